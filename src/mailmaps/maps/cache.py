"""Remembers rows for a short time, found and not found apart.

The two kinds have bounds of their own, so that a dictionary attack, which asks millions of keys that
do not exist, evicts no key that does. What is remembered is the *row* (which candidate, which
values), never a finished reply: two spellings of an address share a row and get different replies.

What was found stays after its time, for when nobody can be asked (`stale`); "not found" does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic

# An address has at most 254 octets (RFC 5321 4.5.3.1.3, erratum 1690). Keys far over that are somebody's
# experiment and would let the entry count stand for any amount of memory.
LONGEST_CACHED_KEY = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """What the sources said: the candidate that answered (-1: none) and its values.

    `values` may be empty although a candidate answered: that key is known and answers nothing.
    `source` is the name of the source, for `mailmaps explain`. Where several sources were merged, `parts`
    has the values of each by its name.
    """

    index: int
    values: tuple[str, ...]
    source: str
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def found(self) -> bool:
        return bool(self.values)


NO_ROW = Row(-1, (), "")

Candidates = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    row: Row
    since: float
    until: float


class Cache:
    """Rows by candidates, each good for `ttl` (found) or `negative_ttl` seconds (not found).

    A ttl or size of 0 switches that half off. When a half is full, its oldest entry goes: entries
    live so briefly that the oldest is the one about to end anyway.
    """

    def __init__(
        self,
        *,
        ttl: float,
        negative_ttl: float,
        size: int,
        negative_size: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._found = _Half(ttl, size)
        self._missing = _Half(negative_ttl, negative_size)
        self._clock = clock
        self._outdated_at = -inf

    def get(self, candidates: Candidates) -> Row | None:
        """Return the remembered row, or None."""
        entry = self._found.entries.get(candidates) or self._missing.entries.get(candidates)
        if entry is None or not (self._outdated_at < entry.since and self._clock() < entry.until):
            return None
        return entry.row

    def stale(self, candidates: Candidates, longest: float) -> Row | None:
        """Return what was found at most `longest` seconds ago, or None."""
        entry = self._found.entries.get(candidates)
        return entry.row if entry is not None and self._clock() - entry.since <= longest else None

    def put(self, candidates: Candidates, row: Row, longest: float = inf) -> None:
        """Remember a row for at most `longest` seconds, and forget what was remembered in its place."""
        self._found.entries.pop(candidates, None)
        self._missing.entries.pop(candidates, None)
        half = self._found if row.found else self._missing
        ttl = min(half.ttl, longest)
        if ttl > 0 and half.size > 0 and len(candidates[0]) <= LONGEST_CACHED_KEY:
            if len(half.entries) >= half.size:
                del half.entries[next(iter(half.entries))]
            now = self._clock()
            half.entries[candidates] = _Entry(row, now, now + ttl)

    def outdate(self) -> None:
        """Nothing remembered so far is good any more, as when the table has changed; it is stale at best."""
        self._outdated_at = self._clock()
        self._missing.entries.clear()

    def __len__(self) -> int:
        return len(self._found.entries) + len(self._missing.entries)


class _Half:
    def __init__(self, ttl: float, size: int) -> None:
        self.ttl = ttl
        self.size = size
        self.entries: dict[Candidates, _Entry] = {}
