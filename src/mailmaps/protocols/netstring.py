"""Netstrings (D. J. Bernstein, 1997): `LENGTH ":" BYTES ","`, LENGTH in decimal without leading zero.

Bytes in, whole netstrings out. A netstring that lies about its length or its form raises `NetstringError`
at the first byte that shows it; nothing is buffered beyond the limit.
"""

from __future__ import annotations


class NetstringError(Exception):
    """The bytes are not a netstring, or announce a longer one than allowed."""


class NetstringReader:
    """Collects bytes into netstrings of at most `longest` bytes."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._most_digits = len(str(longest))
        self._buffer = bytearray()

    @property
    def is_empty(self) -> bool:
        """Whether no byte is waiting for others."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole netstring, or None until more arrives. Raises `NetstringError`."""
        colon = self._buffer.find(b":", 0, self._most_digits + 1)
        if colon < 0:
            self._check_digits(bytes(self._buffer[: self._most_digits + 1]))
            if len(self._buffer) > self._most_digits:
                raise NetstringError("no colon after the length of a netstring")
            return None
        digits = bytes(self._buffer[:colon])
        if not digits:
            raise NetstringError("a netstring without a length")
        self._check_digits(digits)
        length = int(digits)
        if length > self._longest:
            raise NetstringError(f"a netstring of {length} bytes; the limit is {self._longest}")
        end = colon + 1 + length
        if len(self._buffer) <= end:
            return None
        if self._buffer[end] != ord(","):
            raise NetstringError("a netstring does not end in a comma")
        payload = bytes(self._buffer[colon + 1 : end])
        del self._buffer[: end + 1]
        return payload

    @staticmethod
    def _check_digits(digits: bytes) -> None:
        if digits and not (digits.isdigit() and digits.isascii()):
            raise NetstringError("the length of a netstring is not a decimal number")
        if len(digits) > 1 and digits.startswith(b"0"):
            raise NetstringError("the length of a netstring has a leading zero")


def netstring(payload: bytes) -> bytes:
    """Wrap `payload`."""
    return b"%d:%b," % (len(payload), payload)
