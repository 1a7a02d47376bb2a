"""A source kept in memory whole, for the tables that Postfix's resolver asks.

smtpd(8) remembers a failed resolver lookup until it exits (src/smtpd/smtpd_resolve.c:146-190), so the
domain and transport tables should not fail because PostgreSQL restarts. They are small: all rows are
read at the start and again every few seconds.

The rule it keeps: what is listed here is answered from here; what is not listed is asked from the
database, since the domain may have been made a second ago. Only while the server cannot be reached at
all is the list's "not found" believed, for a limited time. A query that fails, or is slow, is "cannot
say" like any other: its "not found" would be a refusal (554) of mail for a domain made since the last
reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from mailmaps.maps.answer import CannotSay
from mailmaps.maps.sources import Rows, Source

# Seconds until a question about what is not listed is given up. trivial-rewrite(8), which asks these tables,
# is one process for everybody: while it waits, no mail is accepted at all.
PATIENCE = 0.5


class HeldSource:
    """Wraps a `Source`; `list_rows` reads all of it.

    `away` tells whether the server is known to be unreachable. In seconds: `deadline` of one query,
    `max_stale` and `max_stale_not_found`, how old the list may be for what it has and has not.
    """

    def __init__(
        self,
        source: Source,
        list_rows: Callable[[], Awaitable[Rows]],
        *,
        away: Callable[[], bool],
        deadline: float,
        max_stale: float,
        max_stale_not_found: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._source = source
        self._list_rows = list_rows
        self._away = away
        self._deadline = deadline
        self._max_stale = max_stale
        self._max_stale_not_found = max_stale_not_found
        self._clock = clock
        self._rows: Rows = {}
        self._read_at: float | None = None
        self._asking: set[asyncio.Task[Rows]] = set()
        # One question at a time, the reading of the list included: it may go on for long after we have
        # given up on it, and the other tables want their connections.
        self._turn = asyncio.Semaphore(1)

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
    def age(self) -> float | None:
        """Seconds since the list was read; None when it never was."""
        return None if self._read_at is None else self._clock() - self._read_at

    async def refresh(self) -> bool:
        """Read the list anew and tell whether it changed.

        Raises `CannotSay` and keeps the old list when that fails.
        """
        async with self._turn:
            read_at = self._clock()
            rows = await self._list_rows()
        changed = rows != self._rows
        self._rows, self._read_at = rows, read_at
        return changed

    def known(self, candidates: Sequence[str]) -> Rows | None:
        rows = self._listed(candidates)
        if rows and self._younger_than(self._max_stale):
            return rows
        if not rows and self._away() and self._younger_than(self._max_stale_not_found):
            return rows
        return None

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """Ask the source, and give up after `PATIENCE`; the query itself may go on to its deadline."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn.acquire()
                task = asyncio.ensure_future(asyncio.wait_for(self._source.fetch(candidates), self._deadline))
                self._asking.add(task)
                task.add_done_callback(self._asked)
                return await asyncio.shield(task)
        except TimeoutError:
            raise CannotSay(f"no answer from the database within {PATIENCE:g} s") from None

    def _asked(self, task: asyncio.Task[Rows]) -> None:
        self._turn.release()
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # read here, in case that nobody waits for it any more

    def _listed(self, candidates: Sequence[str]) -> Rows:
        return {key: self._rows[key] for key in candidates if key in self._rows}

    def _younger_than(self, limit: float) -> bool:
        age = self.age
        return age is not None and age <= limit
