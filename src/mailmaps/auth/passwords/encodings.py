"""How the bytes of a hash are written: as they are, in hexadecimal or base64.

Source: password_decode() of Dovecot's src/auth/password-scheme.c.
"""

from __future__ import annotations

import base64
import binascii
import enum

from mailmaps.auth.passwords.errors import CannotVerify


class Encoding(enum.Enum):
    """The encodings, and `EITHER` for a digest of known size, whose length tells."""

    TEXT = enum.auto()
    HEX = enum.auto()
    BASE64 = enum.auto()
    EITHER = enum.auto()


SUFFIXES = {"HEX": Encoding.HEX, "B64": Encoding.BASE64, "BASE64": Encoding.BASE64}
"""What may follow a scheme's name behind a dot, in upper case."""


def decode(text: str, encoding: Encoding, size: int) -> bytes:
    """Get the bytes. `size` is how many they must be, 0 for any. Raises `CannotVerify`."""
    if encoding is Encoding.TEXT:
        raw = text.encode("utf-8", "surrogatepass")
    elif encoding is Encoding.HEX or (encoding is Encoding.EITHER and len(text) == 2 * size):
        raw = _from_hex(text)
    else:
        raw = _from_base64(text)
    if size and len(raw) != size:
        raise CannotVerify("the hash has not the length of its scheme")
    return raw


def _from_hex(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:  # binascii.Error is one
        raise CannotVerify("the hash is not valid hexadecimal") from None


def _from_base64(text: str) -> bytes:
    """Read base64, whose padding may be missing: some columns and tools drop it."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except ValueError:
        raise CannotVerify("the hash is not valid base64") from None
