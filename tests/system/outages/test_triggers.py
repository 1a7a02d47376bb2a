"""Changes of which no trigger tells, or that look so: replication's sessions, triggers that are disabled or
dropped, and what was done behind all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.system.daemon import Daemon
from tests.system.outages.history import Place
from tests.system.outages.observed import Observed
from tests.system.outages.site import LIMIT, Site, mirrors, proven, says
from tests.system.processes import eventually_async

from mailmaps.maps.answer import NOT_FOUND, Found

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

REPLICA = {"session_replication_role": "replica"}

BEHIND = Place("virtual_alias_maps", "behind@w.test")
CHANGE = "INSERT INTO mailmaps.forwards VALUES ('behind@w.test', 'x@elsewhere.test')"
REMOVE = "DELETE FROM mailmaps.forwards WHERE address = 'also1@fixed.test' OR address = 'near0@w.test'"


async def test_writers_in_replication_role(site: Site, daemon: Daemon) -> None:
    """Ordinary triggers do not fire there."""
    async with Observed(site, daemon, session=REPLICA) as seen:
        await asyncio.sleep(3.0)
    assert seen.asker.count()["Unavailable"] == 0


async def test_a_database_in_replication_role(site: Site) -> None:
    """As a setting of the database it holds for everybody, ourselves included."""
    await site.execute(f"ALTER DATABASE {site.name} SET session_replication_role = replica")
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        async with Observed(site, daemon) as seen:
            await asyncio.sleep(3.0)
        assert seen.asker.count()["Unavailable"] == 0


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [
        ("ALTER TABLE mailmaps.forwards DISABLE TRIGGER ALL", "ENABLE"),
        ("ALTER TABLE mailmaps.forwards DISABLE TRIGGER USER", "ENABLE"),
        ("DROP", "CREATE"),
    ],
)
async def test_triggers_that_are_taken_away_are_noticed(site: Site, statement: str, remedy: str) -> None:
    """From then on nothing is believed to be missing, and what is asked is remembered for `ttl` only."""
    triggers = await notifying(site, "mailmaps.forwards")
    assert triggers
    undo = [f"ALTER TABLE mailmaps.forwards ENABLE ALWAYS TRIGGER {name}" for name in triggers]
    if statement == "DROP":
        statement = "; ".join(f"DROP TRIGGER {name} ON mailmaps.forwards" for name in triggers)
        undo = list(triggers.values())
    with Daemon(site.settings(cache={"ttl": 0.5, "negative_ttl": 0.5})) as daemon:
        await proven(daemon)
        await site.execute(statement)
        await noticed(daemon, "virtual_alias_maps", "mailmaps.forwards")
        await site.execute(CHANGE)
        await says(daemon, BEHIND, Found("x@elsewhere.test"))
        await site.agrees(daemon)
        await site.execute("; ".join(undo))
        await proven(daemon)
        await site.execute("DELETE FROM mailmaps.forwards WHERE address = 'behind@w.test'")
        await says(daemon, BEHIND, NOT_FOUND)
        await site.agrees(daemon)


async def test_triggers_disabled_for_one_transaction(site: Site, daemon: Daemon) -> None:
    """Nothing is notified, and nothing is different afterwards but the catalog's own row versions."""
    names = await notifying(site, "mailmaps.forwards")
    async with site.connect() as connection:
        for change in (CHANGE, REMOVE):
            async with connection.transaction():
                await connection.execute("ALTER TABLE mailmaps.forwards DISABLE TRIGGER ALL")
                await connection.execute(change)
                for name in names:
                    await connection.execute(f"ALTER TABLE mailmaps.forwards ENABLE ALWAYS TRIGGER {name}")
    await says(daemon, BEHIND, Found("x@elsewhere.test"))
    await site.agrees(daemon)


async def test_the_full_comparison_mends_and_counts_what_nothing_told(site: Site) -> None:
    """The triggers are all there and call functions that do nothing, for one transaction."""
    functions = await definitions(site, await functions_called(site, "mailmaps.forwards"))
    with Daemon(site.settings(mirror={"compare": 1.0})) as daemon:
        await proven(daemon)
        before = (await mirrors(daemon))["mailmaps.virtual_alias_maps"]["drift"]
        assert before == 0
        nothing = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        async with site.connect() as connection, connection.transaction():
            for name in functions:
                await connection.execute(f"CREATE OR REPLACE FUNCTION {name} {nothing}")
            await connection.execute(CHANGE)
            await connection.execute(REMOVE)
            for definition in functions.values():
                await connection.execute(definition)

        async def counted() -> bool:
            return int((await mirrors(daemon))["mailmaps.virtual_alias_maps"]["drift"]) > 0

        assert await eventually_async(counted, LIMIT, every=0.1), (await mirrors(daemon), daemon.log())
        await says(daemon, BEHIND, Found("x@elsewhere.test"))
        await site.agrees(daemon)
        states = await mirrors(daemon)
    others = {view: state["drift"] for view, state in states.items() if "virtual_alias_maps" not in view}
    assert set(others.values()) == {0}


async def test_comparing_all_the_time_counts_no_drift_that_is_none(site: Site) -> None:
    """A reading races with changes that are notified; these are no drift."""
    with Daemon(site.settings(mirror={"compare": 0.3})) as daemon:
        await proven(daemon)
        async with Observed(site, daemon) as seen:
            await asyncio.sleep(5.0)
        states = await mirrors(daemon)
    assert {view: state["drift"] for view, state in states.items() if state["drift"]} == {}
    assert seen.asker.count()["Unavailable"] == 0


async def noticed(daemon: Daemon, table: str, what: str) -> None:
    """Wait until the mirror of a table is not proven, and says why."""

    async def so() -> bool:
        state = (await mirrors(daemon))[f"mailmaps.{table}"]
        return not state["proven"] and what in state["why"]

    assert await eventually_async(so, LIMIT, every=0.1), (await mirrors(daemon), daemon.log())


async def notifying(site: Site, table: str) -> dict[str, str]:
    """The triggers of ours on a table that notify, each with the statements that make it."""
    query = """
        SELECT t.tgname, pg_get_triggerdef(t.oid)
               || format('; ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tgrelid::regclass, t.tgname)
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = $1::text::regclass AND NOT t.tgisinternal AND p.proname LIKE 'notify%'
    """
    async with site.connect() as connection:
        rows = await connection.fetch(query, table)
    return {str(name): str(text) for name, text in rows}


async def functions_called(site: Site, table: str) -> list[str]:
    query = """
        SELECT DISTINCT p.oid::regprocedure::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = $1::text::regclass AND NOT t.tgisinternal AND p.proname LIKE 'notify%'
    """
    async with site.connect() as connection:
        return [name for (name,) in await connection.fetch(query, table)]


async def definitions(site: Site, functions: Sequence[str]) -> dict[str, str]:
    async with site.connect() as connection:
        return {
            name: await connection.fetchval("SELECT pg_get_functiondef($1::text::regprocedure)", name)
            for name in functions
        }
