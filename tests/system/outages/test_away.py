"""PostgreSQL that nobody can reach: stopped, killed, hanging, restarting, and one backend at a time.

Writers and clients are at work all the while. No key that exists is ever "not found", no removed one is found
for longer than a change takes, what is in a mirror is answered all through, and afterwards, with nobody's
help, every key of every view is answered as the view has it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tests.system.daemon import Daemon
from tests.system.outages import data
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.observed import Observed
from tests.system.outages.server import Server
from tests.system.outages.site import Site, proven, says

from mailmaps.maps.answer import NOT_FOUND, Found, NotFound

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

AWAY = 2.0
HUNG = 7.0
"""Seconds that it lasts; a hang must be longer than a beat proves something (4.5 s)."""


@asynccontextmanager
async def stopped(server: Server) -> AsyncIterator[None]:
    await server.stop()
    await asyncio.sleep(AWAY)
    yield
    await server.start()


@asynccontextmanager
async def killed(server: Server) -> AsyncIterator[None]:
    await server.kill()
    await asyncio.sleep(AWAY)
    yield
    await server.start()


@asynccontextmanager
async def hung(server: Server) -> AsyncIterator[None]:
    await server.pause()
    await asyncio.sleep(HUNG)
    yield
    await server.resume()


async def test_nothing_happens(site: Site, daemon: Daemon) -> None:
    """What is told of the others must be true without any trouble: every reply is an answer, and right."""
    async with Observed(site, daemon) as seen:
        await asyncio.sleep(2.0)
    assert seen.asker.count()["Unavailable"] == 0
    assert seen.asker.lost == 0


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", [stopped, killed, hung])
async def test_the_server_is_away(
    site: Site, daemon: Daemon, how: Callable[[Server], AbstractAsyncContextManager[None]], busy: bool
) -> None:
    """Where writers are busy at that moment, something was told and not yet read: then nothing is denied."""
    async with Observed(site, daemon) as seen:
        await asyncio.sleep(1.0)
        if not busy:
            await seen.quiet()
        begun = time.monotonic()
        with seen.trouble(Found, NotFound):
            async with how(site.server):
                seen.go_on()
                if not busy:  # nobody is there, so nobody has made it: the mirror is believed
                    await says(daemon, data.UNKNOWN[0], NOT_FOUND)
                    await says(daemon, data.SENDERS_UNKNOWN[0], NOT_FOUND)
        await seen.recovered()
    known = seen.answers(data.ROWS_OF_THEIR_OWN if busy else data.KNOWN, since=begun)
    assert known
    assert {type(answer) for answer in known} == {Found}, "what is in a mirror is answered all through"


async def test_a_hang_is_known_before_anybody_asks(site: Site, daemon: Daemon) -> None:
    """A lookup that had to find out would be "later", which smtpd remembers of the resolver's tables."""
    await proven(daemon)
    await site.server.pause()
    try:
        await asyncio.sleep(HUNG)
        assert await ask(daemon, Place("virtual_mailbox_domains", "elsewhere.example")) == NOT_FOUND
        assert await ask(daemon, data.UNKNOWN[0]) == NOT_FOUND
    finally:
        await site.server.resume()


async def test_the_server_restarts_again_and_again(site: Site, daemon: Daemon) -> None:
    async with Observed(site, daemon) as seen:
        begun = time.monotonic()
        with seen.trouble(Found, NotFound):
            for _ in range(5):
                await site.server.restart()
                await asyncio.sleep(random.uniform(0.0, 1.0))
        await seen.recovered()
    assert {type(answer) for answer in seen.answers(data.ROWS_OF_THEIR_OWN, since=begun)} == {Found}


async def test_it_hangs_for_moments(site: Site, daemon: Daemon) -> None:
    """Shorter than anything that notices it; what was asked of it meanwhile is answered late."""
    async with Observed(site, daemon) as seen:
        begun = time.monotonic()
        with seen.trouble(Found, NotFound):
            for _ in range(6):
                await site.server.pause()
                await asyncio.sleep(random.uniform(0.1, 1.5))
                await site.server.resume()
                await asyncio.sleep(random.uniform(0.0, 0.5))
        await seen.recovered()
    assert {type(answer) for answer in seen.answers(data.ROWS_OF_THEIR_OWN, since=begun)} == {Found}


async def test_every_backend_is_terminated_in_turn(site: Site, daemon: Daemon) -> None:
    """The one that listens, those of the pool, those that read whole tables. The server is there all the
    time, so no answer may be old."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mailmaps' AND datname = $1"
    async with Observed(site, daemon) as seen, site.connect() as connection:
        begun = time.monotonic()
        terminated = set()
        while time.monotonic() < begun + 6.0:
            pids = [row["pid"] for row in await connection.fetch(query, site.name)]
            if pids:
                terminated.add(pid := random.choice(pids))
                await connection.execute(f"SELECT pg_terminate_backend({pid})")
            await asyncio.sleep(random.uniform(0.0, 0.4))
        await seen.recovered()
    assert len(terminated) > 3
    assert {type(answer) for answer in seen.answers(data.KNOWN, since=begun)} == {Found}
