"""A PostgreSQL that a test on the event loop stops, kills and starts while its other tasks go on.

Contract: `async with Server(folder) as server`; every step runs in one thread of its own, since the server
ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG). Nothing of it is left afterwards, whatever
state a test left it in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeAlias

import asyncpg

from mailmaps.demo.postgres import EmbeddedPostgres

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_LIMIT = 30.0
"""Seconds for a test's own connection; a server that has just replayed its log is slow."""


class Server:
    """One server; `postgres` is what it is made of."""

    def __init__(self, folder: Path) -> None:
        self.postgres = EmbeddedPostgres(folder, fsync=False)
        self._thread = ThreadPoolExecutor(1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            self._thread.shutdown()

    async def start(self) -> None:
        await self._step(self.postgres.start)

    async def stop(self) -> None:
        """Fast shutdown, as at a restart."""
        await self._step(self.postgres.stop)

    async def kill(self) -> None:
        """kill -9 of all its processes, as by a power cut."""
        await self._step(self.postgres.kill)

    async def pause(self) -> None:
        """SIGSTOP for all its processes: connections stay and nothing answers."""
        await self._step(self.postgres.pause)

    async def resume(self) -> None:
        await self._step(self.postgres.resume)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @asynccontextmanager
    async def connect(self, dsn: str | None = None) -> AsyncIterator[Connection]:
        """A connection for the test itself, by default as the superuser."""
        connection = await asyncpg.connect(dsn or self.postgres.dsn(), timeout=CONNECT_LIMIT)
        try:
            yield connection
        finally:
            connection.terminate()

    async def execute(self, statements: str, dsn: str | None = None) -> None:
        """Run SQL on a connection of its own."""
        async with self.connect(dsn) as connection:
            await connection.execute(statements)

    async def _step(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
