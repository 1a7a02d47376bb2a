"""Sets of keys in 8 bytes each, and what is wrong with a key by itself.

A million keys as Python strings in a set are 150 MB, and what is wanted of them is only whether one is there.
By 64-bit hash two of ten million keys are taken for one with a chance of 1 in 300,000.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Sequence

from mailmaps.maps.address import fold, is_external, is_well_formed


class Keys:
    """A set of keys that is filled, `sealed`, and then asked."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, key: bytes) -> None:
        """Before `seal` only."""
        self._hashes.append(hash(key))

    def seal(self) -> None:
        """From now on `in` works."""
        self._hashes = array("q", sorted(self._hashes))

    def __contains__(self, key: bytes) -> bool:
        wanted = hash(key)
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    def __len__(self) -> int:
        return len(self._hashes)


# What an ordinary key does not have, keys being lines: nearly every batch passes at one look.
_ODD = re.compile(rb"[^a-z0-9@._+=#&'/\n-]|\.\.|^\.|\.@", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def doubtful_keys(keys: Sequence[bytes], *, addresses: bool) -> list[tuple[str, str]]:
    """The keys that no lookup can reach, with the reason; `addresses`: they have to be in external form."""
    lines = b"\n".join(keys)
    if _ODD.search(lines) is None and lines.count(b"\n") == len(keys) - 1 and b"" not in keys:
        return []
    found = []
    for raw in keys:
        if not raw or _ODD.search(raw) is not None or b"\n" in raw:
            key = raw.decode(errors="surrogateescape")
            if problem := key_problem(key, address=addresses):
                found.append((key, problem))
    return found


def key_problem(key: str, *, address: bool) -> str:
    """Why no lookup reaches a key of a view; empty when one does."""
    if not key:
        return "is empty"
    if not is_well_formed(key):
        return "is not UTF-8"
    if _CONTROL.search(key):
        return "holds a control character"
    if key != key.strip():
        return "begins or ends with a blank"
    if fold(key) != key:
        return "is not case-folded"
    if unicodedata.normalize("NFC", key) != key:
        return "is not in Unicode's composed form (NFC), in which addresses are typed and sent"
    if address and not key.startswith("@") and not is_external(key):
        return "is not in external form"
    return ""
