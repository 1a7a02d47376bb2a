"""Reads mirrors whole when that is due: at first, after what could not be followed, and now and then.

A few at a time, on connections of their own, which are kept for as long as there is work for them. A view
that fails costs its own mirror only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from mailmaps.config.load import SettingsError
from mailmaps.database.connect import BREAKS, ConnectError, Refused, reason
from mailmaps.database.listing import read_rows
from mailmaps.mirrors.file import DiskTrouble
from mailmaps.mirrors.mirror import Mirror

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

from mailmaps.logs import events

log = events(__name__)

# Whole readings at a time: while one is sorted in PostgreSQL, the other's rows are written here.
READERS = 2

# Seconds between looks at what is due.
TICK = 0.25

# Ticks without work after which the connections are closed.
IDLE_TICKS = 20

# A view that has to be read whole again and again is read for at most one part in the first of the time, one
# whose changes are not notified for one in the second.
CHANGING_SHARE = 5
UNFOLLOWED_SHARE = 50

# Seconds until a reading that failed is tried again: doubled up to the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class Schedule:
    """When one mirror is read. `eager`: the resolver asks it, so it comes first and is kept young."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.eager = False
        self.may_at = 0.0  # not before, even if it is due
        self.compare_at = 0.0  # at the latest
        self.pause = FIRST_PAUSE
        self.tried = asyncio.Event()  # a first reading has ended, well or badly

    def is_due(self, now: float) -> bool:
        return now >= self.may_at and (self.mirror.unread or now >= self.compare_at)


class Readings:
    """`connect` opens a connection without statement_timeout; `compare` and `refresh` are in seconds.

    `followed` tells whether changes are heard of. `done` is called after each reading.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        compare: float,
        followed: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._compare = compare
        self.refresh = compare
        self._followed = followed
        self._done = done
        self._schedules: dict[str, Schedule] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._idle: list[Connection] = []
        self._idle_ticks = 0
        self._is_closing = False

    def add(self, name: str, mirror: Mirror) -> None:
        """Read this mirror from now on."""
        self._schedules[name] = Schedule(mirror)

    def hasten(self, name: str) -> None:
        """The resolver asks this mirror."""
        self._schedules[name].eager = True

    def remove(self, name: str) -> None:
        """Read it no more."""
        del self._schedules[name]
        if task := self._running.get(name):
            task.cancel()

    def hurry(self) -> None:
        """Whatever is due need not wait any more."""
        for schedule in self._schedules.values():
            schedule.may_at, schedule.pause = 0.0, FIRST_PAUSE

    def give_up(self) -> None:
        """End the readings under way: their connections may be dead without a word."""
        for task in self._running.values():
            task.cancel()
        self._close_idle()

    @property
    def can_wait(self) -> bool:
        """Whether all that the resolver asks is held already."""
        return all(one.mirror.is_held for one in self._schedules.values() if one.eager)

    async def tried(self) -> list[str]:
        """Wait until the eager mirrors have been read once, or could not be; returns why not."""
        eager = [one for one in self._schedules.values() if one.eager]
        await asyncio.gather(*(one.tried.wait() for one in eager))
        return [f"{one.mirror.view}: {one.mirror.why}" for one in eager if one.mirror.why]

    async def close(self) -> None:
        self._is_closing = True
        tasks = list(self._running.values())
        self.give_up()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_idle()

    def tick(self) -> None:
        """Begin what is due. To be called every `TICK` seconds."""
        now = asyncio.get_running_loop().time()
        due = [
            (name, one)
            for name, one in self._schedules.items()
            if name not in self._running and one.is_due(now)
        ]
        due.sort(key=lambda pair: not pair[1].eager)
        for name, schedule in due[: READERS - len(self._running)]:
            task = asyncio.ensure_future(self._read(schedule))
            self._running[name] = task
            task.add_done_callback(partial(self._ended, name))
        self._idle_ticks = 0 if self._running else self._idle_ticks + 1
        if self._idle_ticks >= IDLE_TICKS:
            self._close_idle()

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._running[name]
        if not task.cancelled() and (error := task.exception()):
            log.error("internal error", during="reading a view", view=name, exc_info=error)
        if not self._is_closing:
            self.tick()

    async def _read(self, schedule: Schedule) -> None:
        mirror, clock = schedule.mirror, asyncio.get_running_loop().time
        began = clock()
        why, away, ended = "", False, False
        try:
            await self._read_on(await self._connection(), mirror)
            ended = True
        except ConnectError as error:
            why, away = str(error), True
        except (SettingsError, DiskTrouble, ValueError) as error:
            why = str(error)
        except (Refused, TimeoutError, *BREAKS) as error:
            why = reason(error)
        except Exception:
            why = "internal error"
            raise
        finally:
            if why:
                mirror.fail(why, away=away)
            self._plan(schedule, took=clock() - began, failed=not ended)
            schedule.tried.set()
        self._done()

    async def _read_on(self, connection: Connection, mirror: Mirror) -> None:
        began = asyncio.get_running_loop().time()
        reading = None
        try:
            reading = mirror.begin_reading()
            await read_rows(connection, mirror.view, mirror.replace, reading.take)
            mirror.end_reading(reading, began)
        except BaseException:
            connection.terminate()
            if reading is not None:
                mirror.give_up_reading(reading)
            raise
        self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    def _plan(self, schedule: Schedule, *, took: float, failed: bool) -> None:
        now = asyncio.get_running_loop().time()
        if failed:
            schedule.may_at = now + schedule.pause
            schedule.pause = min(schedule.pause * 2, LONGEST_PAUSE)
            return
        schedule.pause = FIRST_PAUSE
        schedule.may_at = now + CHANGING_SHARE * took
        schedule.compare_at = now + self._compare
        if schedule.eager and not (self._followed() and not schedule.mirror.unwatched):
            schedule.compare_at = now + max(self.refresh, UNFOLLOWED_SHARE * took)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()
