"""Argon2 (RFC 9106) by argon2-cffi, which releases the interpreter lock.

Dovecot makes and verifies the same text form by libsodium.
"""

from __future__ import annotations

import argon2

from mailmaps.auth.passwords.costs import MAX_LANES, check_memory
from mailmaps.auth.passwords.errors import CannotVerify

# What doveadm takes (libsodium's INTERACTIVE): 64 MiB, 3 passes, about 0.15 s. One lane, since the logins of
# others want the second core.
_HASHER = argon2.PasswordHasher(time_cost=3, memory_cost=1 << 16, parallelism=1, type=argon2.Type.ID)


def verify_argon2(password: bytes, stored: bytes) -> bool:
    """Tell whether `password` fits a hash `$argon2id$..`, `$argon2i$..` or `$argon2d$..`.

    Raises `CannotVerify` for what is no such hash, or costs too much.
    """
    try:
        text = stored.decode("ascii")
        asked = argon2.extract_parameters(text)
    except (ValueError, argon2.exceptions.InvalidHashError):
        raise CannotVerify("the argon2 hash is malformed") from None
    check_memory(asked.memory_cost << 10, asked.time_cost)
    if asked.parallelism > MAX_LANES:
        raise CannotVerify(f"the argon2 hash asks for more than {MAX_LANES} threads")
    try:
        return _HASHER.verify(text, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        raise CannotVerify("the argon2 hash is malformed, or there is not enough memory for it") from None


def make_argon2(password: bytes) -> str:
    """Make a new hash, `$argon2id$..`."""
    return _HASHER.hash(password)
