"""Stored password hashes: does a password fit one, and making new ones.

The formats are Dovecot's (src/auth/password-scheme*.c of 2.3.19.1), crypt(5)'s and argon2's. Everything
here blocks; the costly schemes release the interpreter lock meanwhile, so a thread pool runs them in
parallel and beside the event loop. No password and no part of a hash is in any exception.
"""

from mailmaps.auth.passwords.errors import CannotVerify
from mailmaps.auth.passwords.making import SCHEMES, default_scheme, make
from mailmaps.auth.passwords.schemes import KNOWN, is_known
from mailmaps.auth.passwords.verifying import MAX_PASSWORD, is_locked, looks_like_a_hash, verify

__all__ = [
    "KNOWN",
    "MAX_PASSWORD",
    "SCHEMES",
    "CannotVerify",
    "default_scheme",
    "is_known",
    "is_locked",
    "looks_like_a_hash",
    "make",
    "verify",
]
