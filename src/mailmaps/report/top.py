"""Counters with a bound: the totals are exact, the greatest keys are there, the rest may be forgotten.

Strangers choose the keys (addresses, domains, reasons), so there may be as many as lines. When there are
twice `KEPT`, the smaller half goes and the lower bound of what remains stays right ("at least").
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

# Keys that stay for sure: far more than are shown, about 10 MB for each counter at the worst.
KEPT = 20_000

# Characters of a key.
LONGEST_KEY = 320


class Top:
    """Counts of keys, several numbers each (`width`); sorted by the first."""

    __slots__ = ("_counts", "_kept", "_width", "forgotten", "totals")

    def __init__(self, width: int = 1, kept: int = KEPT) -> None:
        self._width = width
        self._kept = kept
        self._counts: dict[str, list[int]] = {}
        self.totals = [0] * width
        self.forgotten = False

    def add(self, key: str, *amounts: int) -> None:
        """Add `amounts` (1 where there is none) to the numbers of a key."""
        if not amounts:
            amounts = (1,)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= 2 * self._kept:
                self._forget()
            counts = self._counts.setdefault(key[:LONGEST_KEY], [0] * self._width)
        for place, amount in enumerate(amounts):
            counts[place] += amount
            self.totals[place] += amount

    def most(self, number: int) -> list[tuple[str, list[int]]]:
        """The greatest, with their numbers; equal ones in the order of their keys."""
        return heapq.nsmallest(
            number, self._counts.items(), key=lambda item: ([-one for one in item[1]], item[0])
        )

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, key: str) -> bool:
        return key in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __getitem__(self, key: str) -> list[int]:
        return self._counts.get(key) or [0] * self._width

    def _forget(self) -> None:
        by_first = sorted(self._counts.items(), key=lambda item: item[1][0], reverse=True)
        self._counts = dict(by_first[: self._kept])
        self.forgotten = True
