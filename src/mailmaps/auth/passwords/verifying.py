"""Does this password fit that stored hash?"""

from __future__ import annotations

import re

from mailmaps.auth.passwords.encodings import decode
from mailmaps.auth.passwords.errors import CannotVerify
from mailmaps.auth.passwords.schemes import Scheme, is_known, lookup
from mailmaps.auth.passwords.shapes import certain, possible

# Bytes. libxcrypt takes 511 and Dovecot's checkpassword 512 in all; nobody types more, and hashing much more
# costs the server, not the client.
MAX_PASSWORD = 512

_PREFIX = re.compile(r"\{([^}]*)\}(.*)", re.DOTALL)


def verify(
    password: bytes,
    stored: str,
    *,
    user: str = "",
    default_scheme: str = "CRYPT",
    allow_plain: bool = False,
) -> bool:
    """Tell whether `password` fits `stored`. Blocks, up to some seconds; may be called from many threads.

    `stored` is a hash with a {SCHEME} prefix as Dovecot has it, or one whose shape says what it is, or one of
    `default_scheme`. `user` is needed for DIGEST-MD5 only. Passwords in plain text count with
    `allow_plain` only, and without a prefix only if `default_scheme` is a plain one.

    False also for an empty password, one with a NUL or of more than `MAX_PASSWORD` bytes, and for an account
    that is locked or has no password: `stored` is empty, `x`, or begins with `!` or `*` (shadow(5)).

    Raises `CannotVerify` if `stored` cannot be used; neither its text nor its context has a part of `stored`.
    """
    if not 0 < len(password) <= MAX_PASSWORD or b"\0" in password or _is_locked(stored):
        return False
    try:
        return _verify(password, stored, user, default_scheme, allow_plain)
    except CannotVerify as error:
        reason = str(error)
    raise CannotVerify(reason)  # out here, so that no library's exception hangs on it


def looks_like_a_hash(stored: str) -> bool:
    """Tell whether `verify` would know what it is: a {SCHEME} that is known, or the shape of a hash.

    A word of 13 letters looks like DES's hashes, and counts as one.
    """
    if found := _PREFIX.fullmatch(stored):
        return is_known(found[1])
    return _is_locked(stored) or certain(stored) is not None or bool(possible(stored))


def is_locked(stored: str) -> bool:
    """Tell whether `verify` works nothing out, whatever the password: the account is locked or has none."""
    found = _PREFIX.fullmatch(stored)
    if found is None:
        return _is_locked(stored)
    try:
        scheme = lookup(found[1], "")
    except CannotVerify:
        return False
    return not scheme.plain and _is_locked(found[2])


def _verify(password: bytes, stored: str, user: str, default_scheme: str, allow_plain: bool) -> bool:
    if found := _PREFIX.fullmatch(stored):
        return _fits(password, found[2], lookup(found[1], user), allow_plain)
    if name := certain(stored):
        return _fits(password, stored, lookup(name, user), allow_plain)
    default = lookup(default_scheme, user)
    names = [name for name in possible(stored) if name != default.name]
    if any(_fits(password, stored, lookup(name, user), allow_plain) for name in names):
        return True
    try:
        return _fits(password, stored, default, allow_plain)
    except CannotVerify:
        if names and not default.plain:  # it is one of those, and the password is wrong
            return False
        raise


def _fits(password: bytes, text: str, scheme: Scheme, allow_plain: bool) -> bool:
    if scheme.plain and not allow_plain:
        raise CannotVerify(f"{scheme.name}: passwords in plain text are not allowed")
    if not scheme.plain and _is_locked(text):
        return False
    return scheme.verifier(password, decode(text, scheme.encoding, scheme.size))


def _is_locked(text: str) -> bool:
    return text in ("", "x") or text.startswith(("!", "*"))
