"""The kinds of trouble, each an `async with` in whose middle mail is sent.

All of them end with PostgreSQL and the daemon there again, though perhaps not yet well: the next trouble may
come at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.system.daemon import Daemon
from tests.system.outages.server import Server


@dataclass(frozen=True)
class Field:
    """What is troubled."""

    server: Server
    daemon: Daemon
    rng: random.Random

    async def kill_daemon(self) -> None:
        await asyncio.to_thread(self.daemon.kill)

    async def start_daemon(self) -> None:
        await asyncio.to_thread(self.daemon.start)

    async def restart_daemon(self, away: float = 0.0) -> None:
        """kill -9, and a start `away` seconds later."""
        await self.kill_daemon()
        await asyncio.sleep(away)
        await self.start_daemon()


@asynccontextmanager
async def quiet(_field: Field) -> AsyncIterator[None]:
    """Nothing."""
    yield


@asynccontextmanager
async def stopped(field: Field) -> AsyncIterator[None]:
    """PostgreSQL shut down in order."""
    await field.server.stop()
    yield
    await field.server.start()


@asynccontextmanager
async def killed(field: Field) -> AsyncIterator[None]:
    """PostgreSQL killed (-9)."""
    await field.server.kill()
    yield
    await field.server.start()


@asynccontextmanager
async def hung(field: Field) -> AsyncIterator[None]:
    """PostgreSQL stopped by SIGSTOP, connections and all."""
    await field.server.pause()
    yield
    await field.server.resume()


@asynccontextmanager
async def restarted(field: Field) -> AsyncIterator[None]:
    """PostgreSQL restarted, twice."""
    await field.server.restart()
    yield
    await field.server.restart()


@asynccontextmanager
async def daemon_killed(field: Field) -> AsyncIterator[None]:
    """The daemon killed (-9) and started at once."""
    await field.restart_daemon()
    yield
    await field.restart_daemon()


@asynccontextmanager
async def daemon_away(field: Field) -> AsyncIterator[None]:
    """The daemon killed (-9) and away for a second or two."""
    await field.restart_daemon(field.rng.uniform(0.5, 2.0))
    yield


@asynccontextmanager
async def stopped_and_daemon_killed(field: Field) -> AsyncIterator[None]:
    """PostgreSQL away, and the daemon started without it."""
    await field.server.stop()
    await field.restart_daemon()
    yield
    await field.server.start()


@asynccontextmanager
async def hung_and_daemon_killed(field: Field) -> AsyncIterator[None]:
    """PostgreSQL hung, and the daemon started beside it."""
    await field.server.pause()
    await field.restart_daemon()
    yield
    await field.server.resume()


@asynccontextmanager
async def everything_killed(field: Field) -> AsyncIterator[None]:
    """Both killed (-9) in the middle of it; PostgreSQL comes back first."""
    await asyncio.gather(field.server.kill(), field.kill_daemon())
    await field.server.start()
    await field.start_daemon()
    yield


Trouble = Callable[[Field], AbstractAsyncContextManager[None]]

LASTS: dict[Trouble, float] = {
    quiet: 1.0,
    stopped: 2.0,
    killed: 2.0,
    hung: 6.0,
    restarted: 2.0,
    daemon_killed: 2.0,
    daemon_away: 2.0,
    stopped_and_daemon_killed: 2.0,
    hung_and_daemon_killed: 6.0,
    everything_killed: 2.0,
}
"""Seconds in which mail is sent; a hang must be longer than a beat proves something (4.5 s)."""


def name(trouble: Trouble) -> str:
    """For people."""
    return trouble.__name__.replace("_", " ")
