"""What a stored hash without a {SCHEME} prefix may be, by its shape.

A hash of crypt(3) or argon2 says itself what it is. Digests in hexadecimal or base64 do not: then every
scheme of that length is named, and the password counts if any of them fits. That opens no door: a digest that
fits by chance is as improbable under two readings as under one.
"""

from __future__ import annotations

import base64
import re

from mailmaps.auth.passwords.schemes import MD5_SIZE, SHA1_SIZE, SHA256_SIZE, SHA512_SIZE

# Shapes that leave no doubt; the first that fits.
_CERTAIN = (
    (re.compile(r"\$argon2(?:id|i|d)\$.*"), "ARGON2"),
    (re.compile(r"\$1\$[^$]*\$\d{1,10}\$[0-9a-fA-F]{40}"), "PBKDF2"),
    (re.compile(r"\$(?:[13567]|2[abxy]|g?y|sha1)\$.*|\$md5[$,].*"), "CRYPT"),
    (re.compile(r"\d+,[^,]+,[A-Za-z0-9+/]{27}=,[A-Za-z0-9+/]{27}="), "SCRAM-SHA-1"),
    (re.compile(r"\d+,[^,]+,[A-Za-z0-9+/]{43}=,[A-Za-z0-9+/]{43}="), "SCRAM-SHA-256"),
    (re.compile(r"(?:md4|md5|sha1) \d+ [0-9A-Za-z]{1,16} [0-9A-Fa-f]{16}"), "OTP"),
)

# DES's 13 characters and BSDi's 20: a word may look like this too.
_DES = re.compile(r"[./0-9A-Za-z]{13}|_[./0-9A-Za-z]{19}")

_HEX = re.compile(r"[0-9A-Fa-f]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

# LANMAN, NTLM and DIGEST-MD5 have 32 digits too, but are too rare or weak to be guessed.
_HEX_SCHEMES = {
    2 * MD5_SIZE: ("PLAIN-MD5.hex", "PLAIN-MD4.hex"),
    2 * SHA1_SIZE: ("SHA1.hex",),
    2 * SHA256_SIZE: ("SHA256.hex", "CRAM-MD5.hex"),
    2 * SHA512_SIZE: ("SHA512.hex",),
}
_BASE64_SCHEMES = {
    MD5_SIZE: ("LDAP-MD5", "SMD5"),
    SHA1_SIZE: ("SHA1", "SSHA"),
    SHA256_SIZE: ("SHA256", "SSHA256"),
    SHA512_SIZE: ("SHA512", "SSHA512"),
}

# Bytes of salt that a guess allows for: Dovecot and OpenLDAP use 4 and 8, others up to 32; {SSHA} takes any.
_SALTS = range(4, 33)


def certain(stored: str) -> str | None:
    """Name the scheme if the shape leaves no doubt."""
    return next((scheme for shape, scheme in _CERTAIN if shape.fullmatch(stored)), None)


def possible(stored: str) -> list[str]:
    """Name the schemes that the shape allows, in no order of likelihood; the list may be empty."""
    found = []
    if _DES.fullmatch(stored):
        found.append("CRYPT")
    if _HEX.fullmatch(stored):
        found += _HEX_SCHEMES.get(len(stored), ())
    if len(stored) % 4 == 0 and _BASE64.fullmatch(stored):
        length = len(base64.b64decode(stored))
        for size, (plain, salted) in _BASE64_SCHEMES.items():
            if length == size:
                found.append(f"{plain}.b64")
            elif length - size in _SALTS:
                found.append(salted)
    return found
