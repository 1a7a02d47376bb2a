"""A source kept in memory whole, for the tables that Postfix's resolver asks.

smtpd(8) remembers a failed resolver lookup until it exits (src/smtpd/smtpd_resolve.c:146-190), so the
domain and transport tables should not fail because PostgreSQL restarts. They are small: all rows are
read at the start and again every few seconds.

The rule it keeps: what is listed here is answered from here; what is not listed is asked from the
database, since the domain may have been made a second ago; and only when the database cannot say, or
does not within half a second, is the list's "not found" believed, for a limited time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from mailmaps.maps.answer import CannotSay
from mailmaps.maps.sources import Rows, Source

# Seconds until the list is believed although the database has not said no. trivial-rewrite(8), which asks
# these tables, is one process for everybody: while it waits, no mail is accepted at all.
PATIENCE = 0.5


class HeldSource:
    """Wraps a `Source`; `list_rows` reads all of it, `max_stale*` bound in seconds how old it may get."""

    def __init__(
        self,
        source: Source,
        list_rows: Callable[[], Awaitable[Rows]],
        *,
        max_stale: float,
        max_stale_not_found: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._source = source
        self._list_rows = list_rows
        self._max_stale = max_stale
        self._max_stale_not_found = max_stale_not_found
        self._clock = clock
        self._rows: Rows = {}
        self._read_at: float | None = None

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def bare_keys(self) -> bool:
        return self._source.bare_keys

    @property
    def age(self) -> float | None:
        """Seconds since the list was read; None when it never was."""
        return None if self._read_at is None else self._clock() - self._read_at

    async def refresh(self) -> bool:
        """Read the list anew and tell whether it changed.

        Raises `CannotSay` and keeps the old list when that fails.
        """
        read_at = self._clock()
        rows = await self._list_rows()
        changed = rows != self._rows
        self._rows, self._read_at = rows, read_at
        return changed

    def known(self, candidates: Sequence[str]) -> Rows | None:
        rows = self._listed(candidates)
        return rows if rows and self._younger_than(self._max_stale) else None

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        if not self._younger_than(self._max_stale_not_found):
            return await self._source.fetch(candidates)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._source.fetch(candidates)
        except (CannotSay, TimeoutError):
            return self._listed(candidates)

    def _listed(self, candidates: Sequence[str]) -> Rows:
        return {key: self._rows[key] for key in candidates if key in self._rows}

    def _younger_than(self, limit: float) -> bool:
        age = self.age
        return age is not None and age <= limit
