"""Many writers at once, and clients that ask what they change: every reply was true a moment ago.

Each writer owns its keys, so of each it is known what was true when (`history.py`). Some rows belong to
nobody (`data.TANGLE`): chains of aliases that several writers change at once, whose answers depend on both;
they are compared as a whole whenever all writers rest.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.system.daemon import TABLES, Daemon
from tests.system.outages import data
from tests.system.outages.observed import Observed
from tests.system.outages.site import Site, mirrors

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

ROUNDS = 4
WRITING = 2.5
"""Seconds between two comparisons of everything."""


async def test_no_reply_is_older_than_a_change_takes(site: Site, daemon: Daemon) -> None:
    async with Observed(site, daemon, every=0.0, entangled=True) as seen:
        for _ in range(ROUNDS):
            await asyncio.sleep(WRITING)
            await seen.quiet()
            await site.agrees(daemon)
            seen.go_on()
        states = await mirrors(daemon)
    assert seen.asker.count()["Unavailable"] == 0
    assert {view: state["drift"] for view, state in states.items() if state["drift"]} == {}


async def test_a_listener_that_comes_and_goes_among_writers(site: Site, daemon: Daemon) -> None:
    """LISTEN, snapshot, and what was notified meanwhile, over and over, with no moment of quiet."""
    async with Observed(site, daemon, every=0.0, entangled=True):
        for _ in range(6):
            await site.terminate_daemon()
            await asyncio.sleep(1.0)


async def test_everything_at_once(site: Site, daemon: Daemon) -> None:
    """Every table truncated, settings turned, the whole of it filled again."""
    async with site.connect() as connection:
        tables = [
            f"{row['schemaname']}.{row['tablename']}"
            for row in await connection.fetch(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'mailmaps') "
                "AND tablename <> ALL ('{settings,domain_alias_lock,migrations}'::text[])"
            )
        ]
        for honour in ("false", "true"):
            await connection.execute(f"UPDATE mailmaps.settings SET honour_active = {honour}")
            await site.agrees(daemon)
        for table in tables:
            async with connection.transaction():
                await connection.execute(f"TRUNCATE {table} CASCADE")
            await site.agrees(daemon)
        await connection.execute(data.SETUP)
        await site.agrees(daemon)
        await connection.execute(
            "UPDATE user_accounts SET active = '0'; UPDATE domains SET domain = 'x.' || domain"
        )
        await site.agrees(daemon)
    assert len(tables) >= len(TABLES) - 2
