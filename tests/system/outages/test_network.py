"""What lies between us and PostgreSQL: connections that die without a word, that are reset, and PgBouncer.

A listening connection that hears nothing looks like one to which nothing is said. Whoever writes goes on all
the while, so an answer may be behind only for as long as one beat proves something.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.system.daemon import Daemon
from tests.system.outages import data
from tests.system.outages.bouncer import bouncer
from tests.system.outages.observed import Observed
from tests.system.outages.proxy import Proxy
from tests.system.outages.site import Site, hears, mirrors, proven, says

from mailmaps.maps.answer import NOT_FOUND, Found, NotFound

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SILENT = 8.0
"""Seconds: longer than an answer may be behind (`observed.PATIENCE`)."""

NOT_REMEMBERED = {"ttl": 1.0, "negative_ttl": 1.0}
"""[cache] where mirrors are not proven for long: what was asked of the database is then remembered, by design
for 30 s."""


async def test_a_listening_connection_that_hears_nothing(site: Site) -> None:
    """Half-open: frozen again and again, while new connections pass."""
    async with Proxy(site.server.postgres.port) as proxy:
        settings = site.settings({"listen_dsn": site.reader_at(proxy.port)}, cache=NOT_REMEMBERED)
        with Daemon(settings) as daemon:
            await proven(daemon)
            async with Observed(site, daemon) as seen:
                for _ in range(2):
                    proxy.freeze()
                    await hears(daemon, False)
                    await hears(daemon, True)
                assert proxy.connections > 0
    assert set(map(type, seen.answers(data.KNOWN, since=0.0))) == {Found}


async def test_listening_hangs_and_queries_do_not(site: Site) -> None:
    """Nothing is proven, and everything is asked: slower, and right."""
    async with Proxy(site.server.postgres.port) as proxy:
        settings = site.settings({"listen_dsn": site.reader_at(proxy.port)}, cache=NOT_REMEMBERED)
        with Daemon(settings) as daemon:
            await proven(daemon)
            async with Observed(site, daemon) as seen:
                proxy.swallow()
                await hears(daemon, False)
                begun = time.monotonic()
                await asyncio.sleep(SILENT)
                asked = seen.answers(data.UNKNOWN, since=begun)
                await proxy.mend()
    assert set(map(type, asked)) == {NotFound}, "the database says so itself"
    assert set(map(type, seen.answers(data.KNOWN, since=0.0))) == {Found}


async def test_queries_have_no_way_and_listening_has(site: Site) -> None:
    """Everything that is held is current, and is all that is needed."""
    async with Proxy(site.server.postgres.port) as proxy:
        settings = site.settings({"dsn": site.reader_at(proxy.port), "listen_dsn": site.reader})
        with Daemon(settings) as daemon:
            await proven(daemon)
            async with Observed(site, daemon) as seen:
                await proxy.cut()
                await asyncio.sleep(SILENT)
                await proxy.mend()
    # The others may be "later" for as long as it takes to read a table again that was changed as a whole.
    assert set(map(type, seen.answers(data.ROWS_OF_THEIR_OWN, since=0.0))) == {Found}


@pytest.mark.parametrize("how", ["frozen", "swallowed", "cut"])
async def test_we_have_no_way_and_others_have(site: Site, how: str) -> None:
    """A server that cannot be reached is away, whoever else can: then both kinds of answers may be old, and
    that is what `max_stale_not_found` limits."""
    async with Proxy(site.server.postgres.port) as proxy:
        with Daemon(site.settings({"dsn": site.reader_at(proxy.port)})) as daemon:
            await proven(daemon)
            async with Observed(site, daemon) as seen:
                await seen.quiet()
                with seen.trouble(Found, NotFound):
                    seen.go_on()
                    if how == "cut":
                        await proxy.cut()
                    elif how == "swallowed":
                        proxy.swallow()
                    else:
                        proxy.freeze()
                    await asyncio.sleep(SILENT)
                    if how != "frozen":
                        await says(daemon, data.UNKNOWN[0], NOT_FOUND)
                    await proxy.mend()
                await seen.recovered()
    assert set(map(type, seen.answers(data.KNOWN, since=0.0))) == {Found}


@pytest.mark.postfix
@pytest.mark.parametrize("ignores", [[], ["statement_timeout", "plan_cache_mode", "jit", "work_mem"]])
async def test_listening_through_pgbouncer_is_noticed(site: Site, ignores: list[str]) -> None:
    """In transaction mode LISTEN succeeds and nothing ever comes; with its defaults we do not even get in."""
    async with bouncer(site, ignores=ignores) as dsn:
        settings = site.settings({"listen_dsn": dsn}, cache=NOT_REMEMBERED)
        with Daemon(settings) as daemon:
            async with Observed(site, daemon, recovers=False) as seen:
                await asyncio.sleep(SILENT)
                states = await mirrors(daemon)
            assert {state["proven"] for state in states.values()} == {False}
            assert "changes are not heard of" in daemon.log()
            assert not ignores or "listen_dsn" in daemon.log()
    assert set(map(type, seen.answers(data.KNOWN, since=0.0))) == {Found}


@pytest.mark.postfix
async def test_queries_through_pgbouncer_and_listening_round_it(site: Site) -> None:
    async with bouncer(site) as dsn:
        settings = site.settings({"dsn": dsn, "pgbouncer": True, "listen_dsn": site.reader})
        with Daemon(settings) as daemon:
            await proven(daemon)
            async with Observed(site, daemon) as seen:
                await asyncio.sleep(3.0)
            assert seen.asker.count()["Unavailable"] == 0
            assert {state["proven"] for state in (await mirrors(daemon)).values()} == {True}
