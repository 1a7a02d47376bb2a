"""New hashes, with the prefix that Dovecot and `verify` read."""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

from mailmaps.auth.passwords.argon import make_argon2
from mailmaps.auth.passwords.crypt3 import MAX_CRYPT_PASSWORD, crypt, gensalt
from mailmaps.auth.passwords.derived import make_pbkdf2
from mailmaps.auth.passwords.digests import digest_of
from mailmaps.auth.passwords.verifying import MAX_PASSWORD
from mailmaps.auth.passwords.without_libcrypt import BCRYPT_BYTES, make_without

# Dovecot's doveadm and crypt(5) use 5000, "too low for modern hardware"; 100,000 are 20 ms of a core.
SHA2_ROUNDS = 100_000

# 2^11 steps, 0.1 s; doveadm's 5 is 2 ms.
BCRYPT_COST = 11

# 0.1 s, where doveadm's 5000 are 1 ms.
PBKDF2_ROUNDS = 500_000

# Bytes of random salt behind a digest: no two accounts of the world share one of 64 bits.
SALT_BYTES = 8

DES_BYTES = 8  # what DES reads of a password


class _Method(NamedTuple):
    prefix: str
    make: Callable[[bytes], str]
    longest: int


def _crypt(prefix: bytes, count: int, password: bytes) -> str:
    setting = gensalt(prefix, count)
    made = crypt(password, setting) if setting is not None else make_without(prefix, password, count)
    if made is None:
        raise ValueError("this system's libcrypt does not have that scheme")
    return made.decode("ascii")


def _crypt_method(name: str, prefix: bytes, count: int = 0, longest: int = MAX_CRYPT_PASSWORD) -> _Method:
    return _Method(name, functools.partial(_crypt, prefix, count), longest)


def _salted(name: str, password: bytes) -> str:
    salt = os.urandom(SALT_BYTES)
    return base64.b64encode(digest_of(name, password + salt) + salt).decode("ascii")


def _pbkdf2(password: bytes) -> str:
    return make_pbkdf2(password, os.urandom(SALT_BYTES).hex(), PBKDF2_ROUNDS)


_METHODS = {
    "YESCRYPT": _crypt_method("CRYPT", b"$y$"),
    "ARGON2ID": _Method("ARGON2ID", make_argon2, MAX_PASSWORD),
    "BLF-CRYPT": _crypt_method("BLF-CRYPT", b"$2y$", BCRYPT_COST, BCRYPT_BYTES),
    "SHA512-CRYPT": _crypt_method("SHA512-CRYPT", b"$6$", SHA2_ROUNDS),
    "SHA256-CRYPT": _crypt_method("SHA256-CRYPT", b"$5$", SHA2_ROUNDS),
    "PBKDF2": _Method("PBKDF2", _pbkdf2, MAX_PASSWORD),
    "SSHA512": _Method("SSHA512", functools.partial(_salted, "sha512"), MAX_PASSWORD),
    "SSHA256": _Method("SSHA256", functools.partial(_salted, "sha256"), MAX_PASSWORD),
    "SSHA": _Method("SSHA", functools.partial(_salted, "sha1"), MAX_PASSWORD),
    "MD5-CRYPT": _crypt_method("MD5-CRYPT", b"$1$"),
    "DES-CRYPT": _crypt_method("DES-CRYPT", b"", 0, DES_BYTES),
}

SCHEMES = tuple(_METHODS)
"""What `make` offers, the strong ones first; SSHA and what follows are for old systems only."""


def make(password: bytes, scheme: str) -> str:
    """Make a new hash with its {SCHEME} prefix. Blocks for some 0.1 s.

    Raises ValueError, whose text holds no part of the password, for a password that is empty, has a NUL or
    is longer than the scheme reads, and for a scheme that is not in `SCHEMES` or not on this system.
    """
    method = _METHODS.get(scheme.upper())
    if method is None:
        raise ValueError(f"the scheme must be one of {', '.join(SCHEMES)}")
    if not password:
        raise ValueError("the password is empty")
    if b"\0" in password:
        raise ValueError("the password has a NUL character")
    if len(password) > method.longest:
        raise ValueError(
            f"the password is longer than the {method.longest} bytes that {scheme.upper()} reads"
        )
    return f"{{{method.prefix}}}{method.make(password)}"


@functools.cache
def default_scheme() -> str:
    """Name the scheme for new passwords: YESCRYPT where libcrypt has it, else ARGON2ID."""
    return "YESCRYPT" if gensalt(b"$y$") is not None else "ARGON2ID"
