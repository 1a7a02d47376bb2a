"""Keys derived by PBKDF2: Dovecot's scheme PBKDF2, and SCRAM's stored keys (RFC 5802, RFC 7677).

hashlib.pbkdf2_hmac releases the interpreter lock. passlib has both in text forms of its own, not in Dovecot's
(src/auth/password-scheme-pbkdf2.c, password-scheme-scram.c).
"""

from __future__ import annotations

import hashlib
import hmac
import re

from passlib.utils import saslprep

from mailmaps.auth.passwords.costs import check_rounds
from mailmaps.auth.passwords.encodings import Encoding, decode
from mailmaps.auth.passwords.errors import CannotVerify

# $1$salt$rounds$digest; 10 digits are enough for 32 bits.
_PBKDF2 = re.compile(rb"\$1\$([^$]*)\$(\d{1,10})\$([0-9a-fA-F]{40})")

# rounds,salt,StoredKey,ServerKey
_SCRAM = re.compile(r"(\d{1,10}),([^,]*),([^,]*),([^,]*)")


def verify_pbkdf2(password: bytes, raw: bytes) -> bool:
    """Compare PBKDF2-HMAC-SHA1. Raises `CannotVerify` for what is malformed or costs too much."""
    found = _PBKDF2.fullmatch(raw)
    if found is None:
        raise CannotVerify("the PBKDF2 hash is malformed")
    made = hashlib.pbkdf2_hmac("sha1", password, found[1], _rounds(found[2]))
    return hmac.compare_digest(made, bytes.fromhex(found[3].decode("ascii")))


def make_pbkdf2(password: bytes, salt: str, rounds: int) -> str:
    """Make Dovecot's text form; the salt is used as it is written."""
    made = hashlib.pbkdf2_hmac("sha1", password, salt.encode("ascii"), rounds)
    return f"$1${salt}${rounds}${made.hex()}"


def verify_scram(name: str, password: bytes, raw: bytes) -> bool:
    """Compare SCRAM's StoredKey, `name` being the digest's.

    RFC 5802 wants the password prepared by SASLprep, which Dovecot leaves out ("FIXME"): a hash that another
    program made may have it, so both count. Raises `CannotVerify` for what is malformed or costs too much.
    """
    found = _SCRAM.fullmatch(raw.decode("utf-8", "replace"))
    if found is None:
        raise CannotVerify("the SCRAM secret is malformed")
    size = hashlib.new(name, usedforsecurity=False).digest_size
    rounds, salt = _rounds(found[1]), decode(found[2], Encoding.BASE64, 0)
    stored_key = decode(found[3], Encoding.BASE64, size)
    decode(found[4], Encoding.BASE64, size)
    return any(
        hmac.compare_digest(_stored_key(name, prepared, salt, rounds), stored_key)
        for prepared in dict.fromkeys((password, _saslprep(password)))
    )


def _stored_key(name: str, password: bytes, salt: bytes, rounds: int) -> bytes:
    salted = hashlib.pbkdf2_hmac(name, password, salt, rounds)
    client_key = hmac.digest(salted, b"Client Key", name)
    return hashlib.new(name, client_key).digest()


def _saslprep(password: bytes) -> bytes:
    try:
        prepared: str = saslprep(password.decode())
    except ValueError:  # not UTF-8, or a character that RFC 4013 forbids
        return password
    return prepared.encode()


def _rounds(digits: bytes | str) -> int:
    rounds = int(digits)
    check_rounds(rounds)
    if rounds == 0:
        raise CannotVerify("the hash has no rounds")
    return rounds
