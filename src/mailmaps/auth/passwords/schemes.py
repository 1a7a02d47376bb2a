"""Dovecot's password schemes by name, and what verifies each.

Source: builtin_schemes[] and password_scheme_lookup() of Dovecot's src/auth/password-scheme.c, 2.3.19.1, and
the same of 2.4 for ARGON2, of 2.2.36 for LANMAN and NTLM. What Dovecot 2.4 calls weak is verified too.
"""

from __future__ import annotations

import functools
import hmac
import re
from collections.abc import Callable
from typing import NamedTuple

from mailmaps.auth.passwords.argon import verify_argon2
from mailmaps.auth.passwords.crypt3 import verify_crypt
from mailmaps.auth.passwords.derived import verify_pbkdf2, verify_scram
from mailmaps.auth.passwords.digests import verify_digest, verify_lanman, verify_ntlm, verify_salted
from mailmaps.auth.passwords.encodings import SUFFIXES, Encoding, decode
from mailmaps.auth.passwords.errors import CannotVerify
from mailmaps.auth.passwords.mechanisms import verify_cram_md5, verify_digest_md5, verify_otp

Verifier = Callable[[bytes, bytes], bool]
"""Takes the password and the decoded hash. Raises `CannotVerify`."""

MD5_SIZE, SHA1_SIZE, SHA256_SIZE, SHA512_SIZE = 16, 20, 32, 64
CRAM_MD5_SIZE = 32

_TRUNCATED = re.compile(rb"(\d{1,4})-(.*)", re.DOTALL)


class Scheme(NamedTuple):
    """One scheme.

    `size` is how many bytes the decoded hash has, 0 for any; `plain` means that it is the password itself.
    """

    name: str
    verifier: Verifier
    encoding: Encoding = Encoding.TEXT
    size: int = 0
    plain: bool = False


def _verify_plain(password: bytes, raw: bytes) -> bool:
    return hmac.compare_digest(password, raw)


def _verify_plain_truncated(password: bytes, raw: bytes) -> bool:
    """`length-password`: where the stored password has that length, only so much of the given one counts."""
    found = _TRUNCATED.fullmatch(raw)
    if found is None:
        raise CannotVerify("PLAIN-TRUNC: the length is missing")
    length = int(found[1])
    return hmac.compare_digest(password[:length] if len(found[2]) == length else password, found[2])


def _verify_md5(password: bytes, raw: bytes) -> bool:
    """{MD5} is Dovecot's for MD5-CRYPT and everybody else's for a digest in base64; Dovecot reads both."""
    if raw.startswith(b"$1$"):
        return verify_crypt(password, raw)
    digest = decode(raw.decode("utf-8", "replace"), Encoding.EITHER, MD5_SIZE)
    return verify_digest("md5", password, digest)


def _verify_argon2(password: bytes, raw: bytes) -> bool:
    if not raw.startswith(b"$argon2"):
        raise CannotVerify("the argon2 hash is malformed")
    return verify_argon2(password, raw)


def _digest(scheme: str, name: str, size: int) -> Scheme:
    return Scheme(scheme, functools.partial(verify_digest, name), Encoding.EITHER, size)


def _salted(scheme: str, name: str) -> Scheme:
    return Scheme(scheme, functools.partial(verify_salted, name), Encoding.BASE64)


_ALL = (
    # Any method under any of these names: Dovecot looks no closer either, but at BLF-CRYPT and MD5-CRYPT.
    *(
        Scheme(name, verify_crypt)
        for name in ("CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "BLF-CRYPT", "MD5-CRYPT", "DES-CRYPT")
    ),
    *(Scheme(name, _verify_argon2) for name in ("ARGON2ID", "ARGON2I", "ARGON2")),
    Scheme("PBKDF2", verify_pbkdf2),
    Scheme("MD5", _verify_md5),
    _digest("SHA", "sha1", SHA1_SIZE),
    _digest("SHA1", "sha1", SHA1_SIZE),
    _digest("SHA256", "sha256", SHA256_SIZE),
    _digest("SHA512", "sha512", SHA512_SIZE),
    _digest("PLAIN-MD4", "md4", MD5_SIZE),
    _digest("PLAIN-MD5", "md5", MD5_SIZE),
    _digest("LDAP-MD5", "md5", MD5_SIZE),
    _salted("SMD5", "md5"),
    _salted("SSHA", "sha1"),
    _salted("SSHA256", "sha256"),
    _salted("SSHA512", "sha512"),
    Scheme("LANMAN", verify_lanman, Encoding.EITHER, MD5_SIZE),
    Scheme("NTLM", verify_ntlm, Encoding.EITHER, MD5_SIZE),
    Scheme("SCRAM-SHA-1", functools.partial(verify_scram, "sha1")),
    Scheme("SCRAM-SHA-256", functools.partial(verify_scram, "sha256")),
    Scheme("CRAM-MD5", verify_cram_md5, Encoding.EITHER, CRAM_MD5_SIZE),
    Scheme("HMAC-MD5", verify_cram_md5, Encoding.EITHER, CRAM_MD5_SIZE),
    Scheme("OTP", verify_otp),
    *(Scheme(name, _verify_plain, plain=True) for name in ("PLAIN", "CLEAR", "CLEARTEXT")),
    Scheme("PLAIN-TRUNC", _verify_plain_truncated, plain=True),
)

DIGEST_MD5 = "DIGEST-MD5"
"""The one scheme that has the user's name in it."""

_BY_NAME = {scheme.name: scheme for scheme in _ALL}

KNOWN = frozenset((*_BY_NAME, DIGEST_MD5))
"""The names that a stored hash may have in its prefix, in upper case and without an encoding's suffix."""


def lookup(name: str, user: str) -> Scheme:
    """Find a scheme by a name such as `ssha256.hex`, with the encoding it asks for. Raises `CannotVerify`.

    `user` is whose password it is.
    """
    base, dot, suffix = name.upper().partition(".")
    if base == DIGEST_MD5:
        scheme = Scheme(base, _digest_md5_of(user), Encoding.EITHER, MD5_SIZE)
    elif base in _BY_NAME:
        scheme = _BY_NAME[base]
    else:
        raise CannotVerify("the hash names a scheme that is not known")
    if not dot:
        return scheme
    if suffix not in SUFFIXES:
        raise CannotVerify(f"{scheme.name}: the scheme's name has an unknown encoding behind its dot")
    return scheme._replace(encoding=SUFFIXES[suffix])


def is_known(name: str) -> bool:
    """Tell whether `name`, with or without an encoding's suffix, is a scheme that can be verified."""
    try:
        lookup(name, "")
    except CannotVerify:
        return False
    return True


def _digest_md5_of(user: str) -> Verifier:
    return lambda password, raw: verify_digest_md5(password, user, raw)
