"""A source whose rows are held whole: what it says without asking, and for how long.

The rules it keeps:

* While the rows are proven current, they are the answer, and a key that is not among them is not there.
* While they are not, the source is asked. Tables that Postfix's resolver asks are an exception: what is held
  is answered at once, whatever more special key may have come since, for smtpd(8) remembers a failed
  resolver lookup until it exits (src/smtpd/smtpd_resolve.c:146-190), and trivial-rewrite(8) is one process
  for everybody.
* When nobody can be asked, what is held is answered for `max_stale` seconds. "Not found", and that a key is
  known and answers nothing, is believed only if
  the server cannot be reached at all, and for `max_stale_not_found` seconds after the last proof (or, for
  the resolver's tables, which are read every second, reading): a query that fails, or is slow, is "cannot
  say", since the key may have been made a second ago.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailmaps.maps.row_bytes import LONGEST_KEY, unpack
from mailmaps.maps.sources import ABSENT, SILENT, UNSURE, Recalled, Rows, Source


class HeldRows(Protocol):
    """What is held of a view (`mailmaps.mirrors.mirror.Mirror`)."""

    @property
    def view(self) -> str:
        """Its name (schema.name)."""

    @property
    def proven(self) -> bool:
        """Whether the rows are known to be those of the database."""

    @property
    def age(self) -> float | None:
        """Seconds since they last were; None: they never were."""

    @property
    def age_of_proof(self) -> float | None:
        """Seconds since they were last proven; None: they never were, or are known to have changed."""

    @property
    def is_behind(self) -> bool:
        """Whether rows are known to have changed that have not been read again."""

    @property
    def changed(self) -> set[Callable[[], None]]:
        """Called when answers may have become others, or are no longer proven."""

    def get(self, key: bytes) -> bytes | None:
        """The packed values of a key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For how many seconds stale answers are given."""

    max_stale: float
    max_stale_not_found: float


class MirroredSource:
    """Wraps a `Source`. `at_once`: what is held is answered even before the source is asked.

    `away` tells whether the server is known to be unreachable.
    """

    def __init__(
        self,
        source: Source,
        rows: HeldRows,
        limits: Limits,
        *,
        at_once: bool,
        away: Callable[[], bool],
    ) -> None:
        self.rows = rows
        self._source = source
        self._limits = limits
        self._at_once = at_once
        self._away = away

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def bare_keys(self) -> bool:
        return self._source.bare_keys

    @property
    def one_by_one(self) -> bool:
        return self._source.one_by_one

    @property
    def exactly(self) -> bool:
        return self._source.exactly

    @property
    def volatile(self) -> bool:
        return self._source.volatile

    @property
    def steady(self) -> bool:
        return self.rows.proven

    @property
    def age(self) -> float | None:
        return self.rows.age

    def known(self, key: str) -> Recalled:
        if self.rows.proven:
            return self._held(key)
        return self.stale(key) if self._at_once or self._away() else SILENT

    def stale(self, key: str) -> Recalled:
        age = self.rows.age
        if age is None:
            return SILENT
        found = self._held(key)
        if isinstance(found, tuple) and found:
            return found if age <= self._limits.max_stale else SILENT
        since = age if self._at_once and not self.rows.is_behind else self.rows.age_of_proof
        if self._away() and since is not None and since <= self._limits.max_stale_not_found:
            return found
        return UNSURE if found is ABSENT and self._at_once and age <= self._limits.max_stale else SILENT

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        return await self._source.fetch(candidates)

    def _held(self, key: str) -> Recalled:
        packed = key.encode(errors="surrogateescape")
        if len(packed) > LONGEST_KEY:
            return SILENT
        row = self.rows.get(packed)
        return ABSENT if row is None else unpack(row)
