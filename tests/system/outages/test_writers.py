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
from tests.system.outages.history import Place
from tests.system.outages.observed import Observed
from tests.system.outages.site import Site, mirrors, says

from mailmaps.maps.answer import Found

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

ROUNDS = 4
WRITING = 2.5
"""Seconds between two comparisons of everything."""


@pytest.mark.parametrize("aliases", [True, False])
async def test_no_reply_is_older_than_a_change_takes(site: Site, daemon: Daemon, aliases: bool) -> None:
    """With domain aliases, writers of addresses wait for each other (schema/0006); else they do not."""
    if not aliases:
        await site.execute("DELETE FROM mailmaps.domain_aliases")
    async with Observed(site, daemon, every=0.0, entangled=True) as seen:
        for _ in range(ROUNDS):
            await asyncio.sleep(WRITING)
            await seen.quiet()
            await site.agrees(daemon)
            seen.go_on()
        states = await mirrors(daemon)
    assert seen.asker.count()["Unavailable"] == 0
    assert {view: state["drift"] for view, state in states.items() if state["drift"]} == {}


WHAT_MAKES_IT_ONE = {
    "a forward": "INSERT INTO mailmaps.forwards VALUES ('y@w.test', 'out@elsewhere.test')",
    "an account": "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
    "VALUES ('y', 90100, 6002, 'y@w.test', 'w.test/y', '1')",
    "a catch-all": "INSERT INTO mailmaps.forwards VALUES ('@w.test', 'out@elsewhere.test')",
    "its state": "UPDATE user_accounts SET active = '1' WHERE username = 'u3'",
}


@pytest.mark.parametrize("what", WHAT_MAKES_IT_ONE)
@pytest.mark.parametrize("alias_first", [True, False])
async def test_two_transactions_that_do_not_see_each_other(
    site: Site, daemon: Daemon, what: str, alias_first: bool
) -> None:
    """One makes an alias, the other what it stands for; neither trigger can know of the other's rows."""
    target = "u3@w.test" if what == "its state" else "y@w.test"
    statements = [
        f"INSERT INTO mailmaps.forwards VALUES ('x@w.test', '{target}')",
        WHAT_MAKES_IT_ONE[what],
    ]
    x = Place("virtual_alias_maps", "x@w.test")
    async with site.connect() as one, site.connect() as other:
        await one.execute(
            "DELETE FROM mailmaps.domain_aliases; UPDATE user_accounts SET active = '0' WHERE username = 'u3'"
        )
        await site.agrees(daemon)
        connections = (one, other) if alias_first else (other, one)
        for connection, statement in zip((one, other), statements, strict=True):
            await connection.execute("BEGIN")
            await connection.execute(statement)
        for connection in connections:
            await connection.execute("COMMIT")
            await site.agrees(daemon)
    await says(daemon, x, Found(target))


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
