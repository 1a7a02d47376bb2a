"""Writers and clients at work while something happens to the database.

Contract:

    async with Observed(site, daemon) as seen:
        with seen.trouble(Found, NotFound):      # while these may be as old as the trouble
            ...
        await seen.recovered()

At the end every reply is held against the history: none was wrong, none of a known key "not found"; then,
nobody writing any more, the daemon says what the views say.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tests.system.daemon import Daemon
from tests.system.outages import data, truth
from tests.system.outages.asker import Asker, ask
from tests.system.outages.history import History, Place, Trouble
from tests.system.outages.site import LIMIT, Site, absent_places, proven
from tests.system.outages.writer import Writer
from tests.system.processes import eventually_async

from mailmaps.maps.answer import Answer, Found, NotFound

PATIENCE = 5.0
"""Seconds by which an answer may be behind while the database can be reached. It is milliseconds unless both
cores are busy elsewhere; and as long as a beat proves something (`database/changes.py`, 4.5 s) where the
listening connection dies without a word."""

QUICK = 0.02
"""Seconds between two transactions of a writer."""


class Observed:
    """What is said in `async with` is checked at its end."""

    def __init__(
        self,
        site: Site,
        daemon: Daemon,
        *,
        every: float = QUICK,
        session: Mapping[str, str] | None = None,
        entangled: bool = False,
        recovers: bool = True,
    ) -> None:
        """`every` is a writer's pause, `session` the settings of its sessions. `entangled`: they also change
        rows that belong to no one writer, of which only the end is checked. `recovers`: in the end every
        mirror is to be proven again."""
        self._recovers = recovers
        seed = random.randrange(1 << 32)
        self.history = History(PATIENCE)
        self.asker = Asker(daemon, seed)
        self.site = site
        self.daemon = daemon
        self.writers = [
            Writer(site.owner, rows, self.history, seed + number, every=every, settings=session)
            for number, rows in enumerate(data.writers(entangled=entangled))
        ]

    async def __aenter__(self) -> Self:
        async with self.site.connect() as connection:
            now = time.monotonic()
            self.history.note(await truth.answers(connection, [*data.KNOWN, *data.UNKNOWN]), now, now)
        for writer in self.writers:
            await writer.start()
        places = absent_places()
        self.asker.start(lambda: places)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for writer in self.writers:
                    await writer.stop()
                await self.site.agrees(self.daemon)
                if self._recovers:
                    await proven(self.daemon)
                await self.asker.stop()
                self._check()
        finally:
            await self.asker.abandon()
            for writer in self.writers:
                await writer.abandon()

    @contextmanager
    def trouble(self, *stale: type[Found] | type[NotFound]) -> Iterator[Trouble]:
        """Until `recovered` has seen its end, these kinds of answers may be as old as its beginning."""
        trouble = Trouble(stale, time.monotonic())
        self.history.troubles.append(trouble)
        yield trouble

    async def quiet(self) -> None:
        """Have the writers rest, and wait until all that they did is known."""
        for writer in self.writers:
            await writer.pause()
        await asyncio.sleep(1.0)  # rows stay proven while the last changes are read again
        await proven(self.daemon)

    def go_on(self) -> None:
        for writer in self.writers:
            writer.go_on()

    async def recovered(self) -> None:
        """Wait until a change made now is seen, and end the troubles. Raises `AssertionError`."""
        marks = [
            Place("virtual_alias_maps", f"mark{len(self.history.states)}-{time.monotonic_ns()}@fixed.test")
        ]
        await self.site.execute(
            f"INSERT INTO mailmaps.forwards VALUES ('{marks[0].key}', 'mark@elsewhere.test')"
        )

        async def seen() -> bool:
            return isinstance(await ask(self.daemon, marks[0]), Found)

        assert await eventually_async(seen, LIMIT, every=0.1), f"not recovered\n{self.daemon.log()}"
        now = time.monotonic()
        for trouble in self.history.troubles:
            trouble.ended = min(trouble.ended, now)

    def answers(self, places: Sequence[Place], *, since: float) -> list[Answer]:
        """What was said of these places to questions asked since a moment."""
        wanted = frozenset(places)
        return [reply.answer for reply in self.asker.replies if reply.asked > since and reply.place in wanted]

    def _check(self) -> None:
        wrong = self.history.wrong(self.asker.replies)
        told = [f"{len(wrong)} of {len(self.asker.replies)} replies were wrong, such as", *wrong[:10]]
        assert not wrong, "\n".join([*told, self.daemon.log()])
        assert min(writer.commits for writer in self.writers) > 0, "a writer that does nothing proves nothing"
