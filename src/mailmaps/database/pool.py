"""A few held connections, and queries on them.

A held connection saves the round trips of a pool that resets on release (a lookup: 98 against 249
microseconds, design notes). A keeper task opens the connections, and opens them anew when they break,
with growing pauses. While none is open and the keeper has failed, queries fail at once: mail then
waits for a 4xx of milliseconds, not of seconds.

Every failure is `CannotSay`; its text is fit for Postfix's log.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from mailmaps.config.load import SettingsError
from mailmaps.database.connect import BREAKS, ConnectError, is_going, reason
from mailmaps.maps.answer import CannotSay

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

from mailmaps.logs import events

log = events(__name__)

# Seconds between attempts to connect: doubled up to the longest, each with up to half as jitter, so
# that many daemons do not come back at once.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


T = TypeVar("T")


class _Broken(Exception):
    """The connection broke under the query; another may answer it."""


class Pool:
    """`size` connections made by `connect`; `start` before the first `fetch`, `close` at the end."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], size: int, name: str = "database.dsn"
    ) -> None:
        """`name` is the setting that says where it leads to, or the place itself, for the log."""
        self._connect = connect
        self._name = name
        self._size = size
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._outdated: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection]] = deque()
        self._away: str | None = None  # why no connection can be had, while that is so
        self._unreachable = False  # the reason is that nobody is there
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._wanted.set()
        self._keeper = asyncio.ensure_future(self._keep())

    @property
    def is_away(self) -> bool:
        """Whether the server cannot be reached: nothing is open and the last attempt found nobody.

        A server that works and refuses us is not away: others may be writing to it.
        """
        return self._unreachable and not self._open

    @property
    def away(self) -> str | None:
        """Why no connection can be had, while that is so."""
        return self._away

    async def tried(self) -> None:
        """Wait until the first attempt to connect has ended, well or badly."""
        await self._tried.wait()

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        return {
            "size": self._size,
            "open": len(self._open),
            "idle": len(self._idle),
            "waiting": len(self._waiters),
            "away": self._away,
        }

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one query and return its rows. Raises `CannotSay`."""
        try:
            return await self.run(lambda connection: connection.fetch(query, *arguments))
        except asyncpg.PostgresError as error:
            raise CannotSay(f"database: {reason(error)}") from error

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Have `work` done on a connection. Raises `CannotSay`, and what PostgreSQL says of the work.

        A connection that breaks is no answer yet: the work reads only, so another connection is asked.
        """
        for _ in range(self._size + 1):  # all held ones may have died at once, unnoticed
            connection = await self._acquire()
            try:
                return await self._run_on(connection, work)
            except _Broken as broken:
                last = str(broken)
        raise CannotSay(f"database: {last}")

    def renew(self) -> None:
        """Replace every connection, and with them what they have prepared; those in use after their use."""
        self._outdated = set(self._open)
        for connection in list(self._idle):
            self._drop(connection)

    async def close(self) -> None:
        """Close every connection without ceremony."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for connection in list(self._open):
            connection.terminate()
        self._fail_waiters("mailmaps is stopping")

    async def _run_on(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            result = await work(connection)
        except asyncpg.PostgresError as error:
            if is_going(connection, error):
                self._drop(connection)
                raise _Broken(reason(error)) from error
            self._release(connection)
            raise
        except BREAKS as error:
            self._drop(connection)
            raise _Broken(reason(error)) from error
        except BaseException as error:  # cancelled in the middle: the connection is of no use to anybody
            self._drop(connection)
            if isinstance(error, asyncio.CancelledError):
                self.suspect()
            raise
        self._release(connection)
        return result

    async def _acquire(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()  # the one used last: its plan and its caches are warm
            if not connection.is_closed():
                return connection
            self._drop(connection)
        if not self._open and self._away is not None:
            raise CannotSay(f"database: {self._away}")
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    def _release(self, connection: Connection) -> None:
        if connection in self._outdated:
            self._drop(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._outdated.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not connection.is_closed():
            connection.terminate()
        self._wanted.set()

    def suspect(self) -> None:
        """The server may hang, with all connections: a query outlived even its statement_timeout, say.

        New ones will tell: while none can be had, lookups fail at once instead of waiting in turn.
        """
        for connection in list(self._idle):
            self._drop(connection)

    def _terminated(self, connection: object) -> None:
        """asyncpg's own notice that a connection ended, idle or not."""
        for mine in [one for one in self._open if one is connection]:
            self._drop(mine)

    def _fail_waiters(self, why: str) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(CannotSay(f"database: {why}"))

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._open) < self._size:
                if await self._open_one():
                    pause = FIRST_PAUSE
                else:
                    await asyncio.sleep(pause * random.uniform(1.0, 1.5))  # noqa: S311  # jitter, no secret
                    pause = min(pause * 2, LONGEST_PAUSE)

    async def _open_one(self) -> bool:
        try:
            connection = await self._connect()
        except ConnectError as error:
            self._went_away(str(error), unreachable=error.unreachable)
            return False
        except SettingsError as error:
            self._went_away(str(error))
            return False
        except Exception:  # the keeper must live, or nobody would ever connect again
            log.exception("internal error", during="connecting", database=self._name)
            self._went_away("internal error")
            return False
        finally:
            self._tried.set()
        if self._away is not None:
            log.warning("the database is back", database=self._name)
            self._away = None
        self._unreachable = False
        connection.add_termination_listener(self._terminated)
        self._open.add(connection)
        self._release(connection)
        return True

    def _went_away(self, why: str, *, unreachable: bool = False) -> None:
        if self._away is None:
            log.error("cannot connect to the database", database=self._name, reason=why)
        self._away, self._unreachable = why, unreachable
        if not self._open:
            self._fail_waiters(why)
