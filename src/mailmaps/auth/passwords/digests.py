"""Digests of the password alone or of the password and a salt, the salt standing behind the digest.

hashlib has them all but MD4, which OpenSSL 3 keeps among its legacy methods; that and LANMAN are passlib's.
passlib's own ldap_salted_* are not used: they take salts of 4 to 16 bytes only, where Dovecot takes any.
Sources: Dovecot's src/auth/password-scheme.c; for LANMAN and NTLM its 2.2.36 (gone in 2.3).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from passlib.crypto.digest import lookup_hash
from passlib.hash import lmhash

from mailmaps.auth.passwords.errors import CannotVerify


def md4(data: bytes) -> bytes:
    """Compute MD4 (RFC 1320)."""
    digest: bytes = lookup_hash("md4").const(data).digest()
    return digest


def digest_of(name: str, data: bytes) -> bytes:
    """Compute a digest of hashlib's name, or MD4."""
    return md4(data) if name == "md4" else hashlib.new(name, data, usedforsecurity=False).digest()


def verify_digest(name: str, password: bytes, raw: bytes) -> bool:
    """Compare the digest of the password alone."""
    return hmac.compare_digest(digest_of(name, password), raw)


def verify_salted(name: str, password: bytes, raw: bytes) -> bool:
    """Compare the digest of password and salt. Raises `CannotVerify` if there is no salt."""
    size = hashlib.new(name, usedforsecurity=False).digest_size
    if len(raw) <= size:
        raise CannotVerify("the hash has no salt")
    return hmac.compare_digest(digest_of(name, password + raw[size:]), raw[:size])


def verify_lanman(password: bytes, raw: bytes) -> bool:
    """Compare the LAN Manager hash, which takes 14 characters in upper case."""
    return hmac.compare_digest(lmhash.raw(password), raw)


def verify_ntlm(password: bytes, raw: bytes) -> bool:
    """Compare the NT hash: MD4 of the password in UTF-16.

    Dovecot widened every byte instead of reading UTF-8; hashes of passwords that are not ASCII may be either.
    """
    readings: tuple[Callable[[], str], ...] = (password.decode, lambda: password.decode("latin-1"))
    found = False
    for reading in readings:
        try:
            text = reading()
        except UnicodeDecodeError:
            continue
        found |= hmac.compare_digest(md4(text.encode("utf-16-le")), raw)
    return found
