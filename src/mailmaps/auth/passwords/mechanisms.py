"""Secrets of SASL mechanisms of old: CRAM-MD5 (RFC 2195), DIGEST-MD5 (RFC 2831), OTP (RFC 2289).

No library has them in Dovecot's text forms, and hashlib does not show the inner state of MD5, which is what
Dovecot stores for CRAM-MD5 (src/lib/hmac-cram-md5.c): the two states of HMAC after the padded key, so
that the mechanism works without the password. So MD5's one block is computed here (RFC 1321).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct

from mailmaps.auth.passwords.costs import MAX_OTP_SEQUENCE
from mailmaps.auth.passwords.digests import digest_of
from mailmaps.auth.passwords.errors import CannotVerify

_BLOCK = 64  # bytes of one block of MD5, and so of HMAC's key
_IPAD, _OPAD = 0x36, 0x5C

# RFC 1321, 3.3 and 3.4: the initial state, the rotations of the four rounds, the table of sines.
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_ROTATIONS = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
_SINES = tuple(int(abs(math.sin(step + 1)) * 2**32) for step in range(64))
_MASK = 0xFFFFFFFF

# algorithm, sequence, seed, 8 bytes in hexadecimal (src/lib-otp/otp-parse.c, otp_parse_dbentry)
_OTP = re.compile(rb"(md4|md5|sha1) (\d{1,10}) ([0-9A-Za-z]{1,16}) ([0-9A-Fa-f]{16})")


def verify_cram_md5(password: bytes, raw: bytes) -> bool:
    """Compare HMAC-MD5's outer and inner state, 16 bytes each."""
    key = hashlib.md5(password, usedforsecurity=False).digest() if len(password) > _BLOCK else password
    key = key.ljust(_BLOCK, b"\0")
    made = b"".join(_md5_state(bytes(byte ^ pad for byte in key)) for pad in (_OPAD, _IPAD))
    return hmac.compare_digest(made, raw)


def verify_digest_md5(password: bytes, user: str, raw: bytes) -> bool:
    """Compare MD5(user:realm:password), the realm being what follows the last `@` of `user`.

    Raises `CannotVerify` without a user.
    """
    if not user:
        raise CannotVerify("DIGEST-MD5 needs the user's name")
    name, _, realm = user.rpartition("@") if "@" in user else (user, "", "")
    text = f"{name}:{realm}:".encode("utf-8", "surrogatepass") + password
    return hmac.compare_digest(hashlib.md5(text, usedforsecurity=False).digest(), raw)


def verify_otp(password: bytes, raw: bytes) -> bool:
    """Compare the stored one-time password, reached from the pass phrase itself.

    Raises `CannotVerify` for what is malformed or has too high a sequence number.
    """
    found = _OTP.fullmatch(raw)
    if found is None:
        raise CannotVerify("the OTP data are malformed")
    name, steps = found[1].decode("ascii"), int(found[2])
    if steps > MAX_OTP_SEQUENCE:
        raise CannotVerify(f"the OTP sequence number is above {MAX_OTP_SEQUENCE}")
    made = _folded(name, found[3].lower() + password)
    for _ in range(steps):
        made = _folded(name, made)
    return hmac.compare_digest(made, bytes.fromhex(found[4].decode("ascii")))


def _folded(name: str, data: bytes) -> bytes:
    """Fold a digest to 64 bits (RFC 2289, appendix A)."""
    words = struct.unpack(">5I" if name == "sha1" else "<4I", digest_of(name, data))
    first = words[0] ^ words[2] ^ (words[4] if name == "sha1" else 0)
    return struct.pack("<2I", first, words[1] ^ words[3])


def _md5_state(block: bytes) -> bytes:
    """MD5's state after one block of 64 bytes, each word's least byte first."""
    words = struct.unpack("<16I", block)
    a, b, c, d = _INITIAL
    for step in range(64):
        mixed, word = _mix(step, b, c, d)
        total = (a + mixed + _SINES[step] + words[word]) & _MASK
        turn = _ROTATIONS[step // 16][step % 4]
        a, d, c, b = d, c, b, (b + (total << turn | total >> (32 - turn))) & _MASK
    return struct.pack("<4I", *((old + new) & _MASK for old, new in zip(_INITIAL, (a, b, c, d), strict=True)))


def _mix(step: int, b: int, c: int, d: int) -> tuple[int, int]:
    """F, G, H or I of RFC 1321 and which word the step takes."""
    if step < 16:
        return b & c | ~b & d, step
    if step < 32:
        return d & b | ~d & c, (5 * step + 1) % 16
    if step < 48:
        return b ^ c ^ d, (3 * step + 5) % 16
    return c ^ (b | ~d & _MASK), (7 * step) % 16
