"""Programs that change the tables all the time, each its own rows, and note what was true when.

Contract: a `Writer` owns some `Rows`; every transaction changes one of them by any of its statements, reads
the answers of all keys that depend on it from the views *inside* the transaction, and notes them in the
`History` with the times around its commit. When the connection breaks in a commit, what became of it is read
afterwards, before anything else is written. `pause` and `go_on` stop it between two transactions.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg
from tests.system.outages import truth
from tests.system.outages.history import History, Place
from tests.system.outages.server import Connection

from mailmaps.maps.answer import Answer

TRY_AGAIN = 0.2
"""Seconds until a writer whose connection broke connects again."""

BROKEN = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)

OPERATOR = "57"
"""The class of errors that the server's end, or a person, causes."""

STATEMENT_LIMIT = 5.0
"""Seconds; a server that hangs would keep a writer for ever."""


@dataclass(frozen=True)
class Rows:
    """Rows, the statements that change them (one is chosen each time), and the keys that depend on them."""

    statements: Sequence[str]
    places: Sequence[Place]
    weight: float = 1.0
    """How often they are chosen, beside others."""


class Doubt(NamedTuple):
    """A transaction that may have been committed, by which backend."""

    rows: Rows
    begun: float
    backend: int


class Writer:
    """One connection's worth of changes: `start`, `pause`, `go_on`, `stop`."""

    def __init__(
        self,
        dsn: str,
        rows: Sequence[Rows],
        history: History,
        seed: int = 0,
        *,
        every: float = 0.01,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`every` is the pause after a transaction, in seconds; `settings` are those of the session."""
        self.commits = 0
        self.rows = rows
        self._dsn = dsn
        self._history = history
        self._every = every
        self._settings = dict(settings or {})
        self._rng = random.Random(seed)
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._between = asyncio.Lock()
        self._doubtful: Doubt | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Note what is true at first, and begin."""
        connection = await self._connect()
        try:
            for rows in self.rows:
                now = time.monotonic()
                self._history.note(await truth.answers(connection, rows.places), now, now)
        finally:
            connection.terminate()
        self._task = asyncio.ensure_future(self._run())

    async def pause(self) -> None:
        """Stop, after the transaction under way and with nothing in doubt; the server must be there."""
        self._may_go.clear()
        async with self._between:
            return

    def go_on(self) -> None:
        self._may_go.set()

    async def stop(self) -> None:
        """Pause and end. Raises what went wrong."""
        task, self._task = self._task, None
        if task is None:
            return
        if not task.done():
            await self.pause()
        ended = await self._end(task)
        if isinstance(ended, Exception):
            raise ended

    async def abandon(self) -> None:
        """End in the middle of it all: the test has failed."""
        if self._task is not None:
            await self._end(self._task)

    async def _end(self, task: asyncio.Task[None]) -> object:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        return ended

    async def _connect(self) -> Connection:
        return await asyncpg.connect(
            self._dsn,
            timeout=STATEMENT_LIMIT,
            command_timeout=STATEMENT_LIMIT,
            server_settings={"application_name": "a writer", **self._settings},
        )

    async def _run(self) -> None:
        while True:
            await self._may_go.wait()
            async with self._between:
                await self._one_transaction()
            await asyncio.sleep(self._every)

    async def _one_transaction(self) -> None:
        """Change something, or find out what became of it; again until the server is there."""
        while True:
            try:
                self._connection = self._connection or await self._connect()
                if self._doubtful is None:
                    await self._change(self._connection)
                else:
                    await self._settle(self._connection, self._doubtful)
                return
            except (*BROKEN, asyncpg.PostgresError) as error:
                if not _comes_back(error):
                    raise
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                await asyncio.sleep(TRY_AGAIN)

    async def _change(self, connection: Connection) -> None:
        (rows,) = self._rng.choices(self.rows, [rows.weight for rows in self.rows])
        transaction = connection.transaction()
        await transaction.start()
        self._doubtful = Doubt(rows, time.monotonic(), connection.get_server_pid())
        await connection.execute(self._rng.choice(rows.statements))
        answers = await truth.answers(connection, rows.places)
        begun = time.monotonic()
        await transaction.commit()
        self._note(answers, begun)
        self.commits += 1

    async def _settle(self, connection: Connection, doubt: Doubt) -> None:
        """Read what became of a transaction that was not heard of, once its backend is gone."""
        gone = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = $1"
        if await connection.fetchval(gone, doubt.backend) is False:
            raise TimeoutError("the backend is still there")
        self._note(await truth.answers(connection, doubt.rows.places), doubt.begun)

    def _note(self, answers: Mapping[Place, Answer], begun: float) -> None:
        self._history.note(answers, begun, time.monotonic())
        self._doubtful = None


def _comes_back(error: Exception) -> bool:
    if not isinstance(error, asyncpg.PostgresError):
        return True
    return str(error.sqlstate).startswith((OPERATOR, "08", "53", "40"))  # 40: a deadlock
