"""The one row of a mirror's file that is ours: what file it is, and what its rows add up to.

It is written in the same transaction as the rows, so that it always speaks of them. The value:

    8 bytes     fingerprint of all other rows, little endian
    16 bytes    generation, random: no two built files have the same
    the rest    identity, UTF-8
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import mul
from zlib import crc32

from mailmaps.maps.row_bytes import LONGEST_KEY

# No lookup asks it: it is longer than any key that is looked up here, and Postfix's are C strings. No row can
# have it, as PostgreSQL's text has no NUL. It sorts before them all.
KEY = b"\0mailmaps".ljust(LONGEST_KEY + 1, b"\0")

_FINGERPRINT = 8
_GENERATION = 16
_MASK = (1 << 8 * _FINGERPRINT) - 1


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """What our row says."""

    fingerprint: int
    generation: bytes
    identity: str

    @staticmethod
    def new(identity: str) -> Bookkeeping:
        """That of a file without rows."""
        return Bookkeeping(0, os.urandom(_GENERATION), identity)

    @staticmethod
    def unpack(value: bytes) -> Bookkeeping:
        """Raises ValueError."""
        if len(value) < _FINGERPRINT + _GENERATION:
            raise ValueError("the bookkeeping row is too short")
        rest = value[_FINGERPRINT:]
        identity = rest[_GENERATION:].decode()
        return Bookkeeping(int.from_bytes(value[:_FINGERPRINT], "little"), rest[:_GENERATION], identity)

    def pack(self) -> bytes:
        """Always as long as it was, so that it is written over in its place."""
        return self.fingerprint.to_bytes(_FINGERPRINT, "little") + self.generation + self.identity.encode()

    def changed(self, added: int, removed: int) -> Bookkeeping:
        """After rows with these fingerprints have come and gone."""
        fingerprint = (self.fingerprint + added - removed) & _MASK
        return Bookkeeping(fingerprint, self.generation, self.identity)


def fingerprint(keys: Collection[bytes], values: Iterable[bytes]) -> int:
    """A sum over rows, whatever their order: the squares of their CRCs, modulo 2**64.

    It is to notice what a disk or a crash has done, not an enemy (who could compute it). A row's CRC begins
    with the length of its key, so that a byte moved from key to value shows. CRCs alone are linear: swapping
    the values of two keys could leave their sum as it was. All in C: 0.25 µs a row, BLAKE2 would be 0.6.
    """
    crcs = list(map(crc32, values, map(crc32, keys, map(len, keys))))
    total: int = sum(map(mul, crcs, crcs))
    return total & _MASK


def check_keys(keys: Collection[bytes]) -> None:
    """Raise ValueError unless all of them can be held."""
    if not keys:
        return
    if max(map(len, keys)) > LONGEST_KEY:
        raise ValueError(f"a key is longer than {LONGEST_KEY} bytes")
    if min(keys) < b"\1":
        raise ValueError("a key is empty or begins with a NUL")
