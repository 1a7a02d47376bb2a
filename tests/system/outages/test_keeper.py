"""Table sets with their mirrors, in this process, on a real PostgreSQL: ready, following, and in trouble.

What happens to a whole daemon, and to the server, is tests/system/outages.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connection, Database
from tests.system.outages.proxy import Proxy

from mailmaps.config import parse
from mailmaps.config.settings import Settings
from mailmaps.database import changes, watches
from mailmaps.database.views import fetch_rows
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.maps.row_bytes import pack
from mailmaps.mirrors import following, keeper, readings
from mailmaps.mirrors.keeper import GROUP_OF
from mailmaps.mirrors.mirror import Mirror
from mailmaps.tableset import TableSet

pytestmark = pytest.mark.postgres

LONG = 60.0  # seconds; nothing here takes nearly so long

WORLD = """
INSERT INTO domains (gid, domain) VALUES (100, 'ex.test'), (2, 'other.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   VALUES ('anna', 1, 100, 'anna@ex.test', 'm', '1'), ('bert', 2, 100, 'bert@ex.test', 'm', '1');
INSERT INTO user_addresses VALUES ('anna', 'anna@ex.test'), ('bert', 'bert@ex.test');
INSERT INTO mailmaps.forwards VALUES ('team@ex.test', 'anna@ex.test');
"""
SITE = """
CREATE TABLE mailbox (address text PRIMARY KEY, target text);
INSERT INTO mailbox VALUES ('a@site.test', '1'), ('b@site.test', '2');
CREATE VIEW site_aliases AS SELECT address AS key, target AS value FROM mailbox;
GRANT SELECT ON mailbox, site_aliases TO mailreader;
"""
SITE_TABLE = '[tables.site]\nparameter = "virtual_alias_maps"\nsources = ["view:public.site_aliases"]\n'
ALIASES, SITE_VIEW = "mailmaps.virtual_alias_maps", "public.site_aliases"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come often; nothing is given up only because this machine is busy with something else."""
    monkeypatch.setattr(changes, "HEARTBEAT", 0.1)
    monkeypatch.setattr(changes, "BEAT_LIMIT", 20.0)
    monkeypatch.setattr(changes, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(keeper, "PROOF", 30.0)
    monkeypatch.setattr(following, "ANSWER_LIMIT", 20.0)
    monkeypatch.setattr(readings, "TICK", 0.05)
    monkeypatch.setattr(readings, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(readings, "LONGEST_PAUSE", 0.5)


@pytest.fixture
async def world(database: Database) -> Database:
    await database.connection.execute(WORLD)
    return database


def settings(
    database: Database, directory: Path, tables: str = "", *, dsn: str = "", more: str = "", top: str = ""
) -> Settings:
    """All builtin tables and `tables`."""
    return parse(
        f'{top}\n[database]\ndsn = "{dsn or database.reader_dsn}"\nconnections = 2\nconnect_timeout = 10.0\n'
        f'[mirror]\ndirectory = "{directory}"\n{more}\n[postfix]\nrecipient_delimiter = "+"\n{tables}'
    )


@asynccontextmanager
async def running(of: Settings, before: TableSet | None = None) -> AsyncIterator[TableSet]:
    """Started, whether or not it complains."""
    tables = TableSet(of, before and before.mirrors)  # type: ignore[arg-type]
    try:
        await tables.start()
        yield tables
    finally:
        await tables.close()


async def eventually(is_so: Callable[[], object | Awaitable[object]]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(LONG):
        while True:
            found = is_so()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


def mirrors(tables: TableSet) -> dict[str, Mirror]:
    state = tables.mirrors.state["mirrors"]
    assert isinstance(state, dict)
    return {name: tables.mirrors[name] for name in state}


async def proven(tables: TableSet, *names: str) -> None:
    """Wait until these mirrors, or all, are proven."""
    held = mirrors(tables)
    await eventually(lambda: all(held[name].proven for name in names or held))


def now(tables: TableSet, table: str, key: str) -> Answer | None:
    return tables.tables[table].answer_now(key.encode())


async def answers(tables: TableSet, table: str, key: str, expected: Answer) -> None:
    """Wait until this is the answer, given without asking."""
    await eventually(lambda: now(tables, table, key) == expected)


async def differences(tables: TableSet, connection: Connection) -> list[str]:
    """What the mirrors have otherwise than the views."""
    found = []
    for name, mirror in mirrors(tables).items():
        keys = [key for (key,) in await connection.fetch(f"SELECT DISTINCT key FROM {mirror.view}")]
        rows = await fetch_rows(connection, mirror.view, keys, mirror.replace)
        found += [f"{name} {key}" for key in keys if mirror.get(key.encode()) != pack(rows[key])]
        if mirror.state["keys"] != len(keys):
            found.append(f"{name} has {mirror.state['keys']} keys, not {len(keys)}")
    return found


async def equal(tables: TableSet, connection: Connection) -> None:
    """Wait until all mirrors are proven, and are as the views."""

    async def are_equal() -> bool:
        all_proven = all(mirror.proven for mirror in mirrors(tables).values())
        return all_proven and not await differences(tables, connection)

    try:
        await eventually(are_equal)
    except TimeoutError:
        pytest.fail(f"{await differences(tables, connection)}; {tables.mirrors.state}")


def unproven_at_times(mirror: Mirror) -> list[str]:
    """Grows whenever the mirror tells something while it is not proven."""
    times: list[str] = []
    mirror.changed.add(lambda: mirror.proven or times.append(str(mirror.state["why"])))  # type: ignore[arg-type, func-returns-value]
    return times


async def backends(database: Database) -> list[int]:
    """Those of mailmaps."""
    query = """SELECT pid FROM pg_stat_activity
               WHERE application_name = 'mailmaps' AND datname = current_database()"""
    return [pid for (pid,) in await database.connection.fetch(query)]


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


async def test_it_is_ready_after_the_start(world: Database, tmp_path: Path) -> None:
    tables = TableSet(settings(world, tmp_path))
    try:
        assert await tables.start() == []
        assert now(tables, "virtual_mailbox_domains", "ex.test") is not None, "the resolver's come first"
        await proven(tables)
        assert tables.mirrors.state["changes"]["tables"]["trouble"] is None
        assert now(tables, "virtual_alias_maps", "Team+x@ex.test") == Found("anna+x@ex.test")
        assert now(tables, "virtual_alias_maps", "nobody@ex.test") == NOT_FOUND
        assert now(tables, "relay_domains", "ex.test") == NOT_FOUND
        assert await differences(tables, world.connection) == []
    finally:
        await tables.close()
    await eventually(lambda: fewer(world, 0))


async def test_what_is_committed_is_seen(world: Database, tmp_path: Path) -> None:
    execute = world.connection.execute
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        await execute("INSERT INTO mailmaps.forwards VALUES ('new@ex.test', 'bert@ex.test')")
        await answers(tables, "virtual_alias_maps", "new@ex.test", Found("bert@ex.test"))
        await execute("UPDATE user_accounts SET active = '0' WHERE username = 'bert'")
        await answers(tables, "virtual_alias_maps", "new@ex.test", NOT_FOUND)
        await answers(tables, "virtual_mailbox_maps", "bert@ex.test", NOT_FOUND)
        await execute("INSERT INTO mailmaps.relays VALUES ('relay.test')")
        await answers(tables, "relay_domains", "relay.test", Found("relay.test"))
        await execute("INSERT INTO mailmaps.relay_recipients VALUES ('x@relay.test')")
        await eventually(lambda: isinstance(now(tables, "relay_recipient_maps", "x@relay.test"), Found))
        await execute("DELETE FROM domains WHERE domain = 'other.test'")
        await answers(tables, "virtual_mailbox_domains", "other.test", NOT_FOUND)
        await equal(tables, world.connection)


async def test_bulk_changes_are_seen(world: Database, tmp_path: Path) -> None:
    execute = world.connection.execute
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        await execute(
            "INSERT INTO mailmaps.forwards SELECT 'u' || n || '@ex.test', 'anna@ex.test' "
            "FROM generate_series(1, 20000) n"
        )
        await answers(tables, "virtual_alias_maps", "u20000@ex.test", Found("anna@ex.test"))
        await equal(tables, world.connection)
        await execute("UPDATE mailmaps.forwards SET target = 'bert@ex.test' WHERE address LIKE 'u%0@ex.test'")
        await answers(tables, "virtual_alias_maps", "u20000@ex.test", Found("bert@ex.test"))
        await execute("TRUNCATE mailmaps.forwards")
        await answers(tables, "virtual_alias_maps", "u20000@ex.test", NOT_FOUND)
        await equal(tables, world.connection)
        assert all(mirror.drift == 0 for mirror in mirrors(tables).values())


async def test_a_few_thousand_keys_are_read_again_without_reading_all(
    world: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as the triggers name; they must not fail for being many."""
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        async with world.connection.transaction():
            for first in range(0, 4500, 450):
                await world.connection.execute(
                    "INSERT INTO mailmaps.forwards SELECT 'u' || n || '@ex.test', 'anna@ex.test' "
                    "FROM generate_series($1::int, $1::int + 449) n",
                    first,
                )
        await answers(tables, "virtual_alias_maps", "u4499@ex.test", Found("anna@ex.test"))
        await equal(tables, world.connection)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_sites_view_is_proven_once_it_is_watched(world: Database, tmp_path: Path) -> None:
    execute = world.connection.execute
    await execute(SITE)
    of = settings(world, tmp_path, SITE_TABLE)
    async with running(of) as tables:
        await proven(tables, ALIASES)
        mirror = tables.mirrors[SITE_VIEW]
        await eventually(lambda: mirror.is_held and "schema watch" in str(mirror.state["why"]))
        assert not mirror.proven
        assert now(tables, "site", "a@site.test") is None, "it is asked"
        assert await tables.tables["site"].answer(b"a@site.test") == Found("1")

        assert await watches.watch(world.connection, of, lambda _: None) == []
        await proven(tables)
        await execute("UPDATE mailbox SET target = '3' WHERE address = 'a@site.test'")
        await answers(tables, "site", "a@site.test", Found("3"))
        await execute("TRUNCATE mailbox")
        await answers(tables, "site", "b@site.test", NOT_FOUND)
        await execute("INSERT INTO mailbox VALUES ('c@site.test', '4')")
        await answers(tables, "site", "c@site.test", Found("4"))

        await execute("ALTER TABLE mailbox DISABLE TRIGGER ALL")
        await execute("INSERT INTO mailbox VALUES ('d@site.test', '5')")
        await eventually(lambda: not mirror.proven)
        assert await tables.tables["site"].answer(b"d@site.test") == Found("5")


async def test_what_depends_on_a_table_is_forgotten_when_it_changes(
    empty_database: Database, tmp_path: Path
) -> None:
    """A query's answers, which nobody can list; no schema of ours is there."""
    await empty_database.connection.execute(SITE)
    file = tmp_path / "q.cf"
    dsn = empty_database.postgres
    file.write_text(
        f"hosts = 127.0.0.1:{dsn.port}\nuser = mailreader\npassword = a-reader\n"
        f"dbname = {empty_database.name}\nquery = SELECT target FROM mailbox WHERE address = '%s'\n"
    )
    query = f'[tables.q]\nparameter = "virtual_alias_maps"\nsources = ["pgsql:{file}"]\n'
    of = settings(
        empty_database,
        tmp_path / "mirrors",
        query + 'depends_on = ["mailbox"]\n',
        top="builtin_tables = false",
        more="[cache]\nttl = 3600.0\nnegative_ttl = 3600.0",
    )
    assert await watches.watch(empty_database.connection, of, lambda _: None) == []
    async with running(of) as tables, running(of, tables) as others:
        for one in (tables, others):
            assert await one.tables["q"].answer(b"a@site.test") == Found("1")
            assert await one.tables["q"].answer(b"x@site.test") == NOT_FOUND
        await eventually(lambda: now(tables, "q", "x@site.test") == NOT_FOUND)
        await empty_database.connection.execute(
            "UPDATE mailbox SET target = '3'; INSERT INTO mailbox VALUES ('x@site.test', '9')"
        )
        for one in (tables, others):
            await eventually(lambda one=one: said_by(one, "q", "a@site.test", Found("3")))  # type: ignore[misc]
            await eventually(lambda one=one: said_by(one, "q", "x@site.test", Found("9")))  # type: ignore[misc]


async def said_by(tables: TableSet, table: str, key: str, expected: Answer) -> bool:
    return await tables.tables[table].answer(key.encode()) == expected


async def test_sets_share_mirrors_until_the_last_one_leaves(world: Database, tmp_path: Path) -> None:
    await world.connection.execute(SITE)
    with_site = settings(world, tmp_path, SITE_TABLE)
    assert await watches.watch(world.connection, with_site, lambda _: None) == []
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(with_site))
        await proven(first)
        connections = len(await backends(world))
        async with running(with_site, first) as second:
            assert second.mirrors is first.mirrors
            assert all(mirror.proven for mirror in mirrors(second).values()), "at once"
            unproven = unproven_at_times(second.mirrors[ALIASES])
        async with running(settings(world, tmp_path), first) as third:
            await stack.aclose()
            assert SITE_VIEW not in mirrors(third)
            await world.connection.execute(
                "INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')"
            )
            await answers(third, "virtual_alias_maps", "n@ex.test", Found("anna@ex.test"))
            async with running(with_site, third) as fourth:
                await proven(fourth)
                await world.connection.execute("UPDATE mailbox SET target = '3'")
                await answers(fourth, "site", "a@site.test", Found("3"))
            assert unproven == [], "the others were not disturbed"
            await eventually(lambda: fewer(world, connections + 1))
        lock = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
    await eventually(lambda: fewer(world, 0))


async def fewer(database: Database, most: int) -> bool:
    return len(await backends(database)) <= most


async def test_a_set_with_another_delivery_has_its_own_transports(world: Database, tmp_path: Path) -> None:
    """What a mirror holds instead of "virtual:" is what the settings say now, and says another table not at all."""  # noqa: E501
    raw = '[tables.raw]\nparameter = "transport_maps"\nsources = ["view:mailmaps.transport_maps"]\n'
    one, two = (settings(world, tmp_path, raw, top=f'delivery = "lmtp:inet:{host}:24"') for host in "ab")
    virtual = settings(world, tmp_path, raw)
    for order in ((one, two, virtual), (virtual, two, one)):
        async with (
            running(order[0]) as first,
            running(order[1], first) as second,
            running(order[2], second) as third,
        ):
            for tables, of in zip((first, second, third), order, strict=True):
                await proven(tables)
                delivery = "virtual:" if of is virtual else of.delivery
                assert now(tables, "transport_maps", "ex.test") == Found(delivery)
                assert now(tables, "raw", "ex.test") == Found("virtual:")


async def test_trouble_with_one_view_is_its_own(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked, dropped, made anew, without the right to read it: the others are proven all the time."""
    execute = world.connection.execute
    await execute(SITE)
    of = settings(world, tmp_path, SITE_TABLE)
    assert await watches.watch(world.connection, of, lambda _: None) == []
    monkeypatch.setitem(keeper.KEYS_SETTINGS, "statement_timeout", "5000")
    async with running(of) as tables:
        await proven(tables)
        site = tables.mirrors[SITE_VIEW]
        unproven = unproven_at_times(tables.mirrors[ALIASES])

        async with world.connect() as other, other.transaction():
            await other.execute("UPDATE mailbox SET target = '3'")
            await other.execute("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE")
            await other.execute("INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')")
        await answers(tables, "virtual_alias_maps", "n@ex.test", Found("anna@ex.test"))
        await answers(tables, "site", "a@site.test", Found("3"))

        await execute("DROP VIEW site_aliases")
        await eventually(lambda: not site.proven and "no such view" in site.unwatched)
        await eventually(lambda: "does not exist" in site.why)
        assert isinstance(await tables.tables["site"].answer(b"new@site.test"), Unavailable)
        await execute(
            "CREATE VIEW site_aliases AS SELECT address AS key, target || '!' AS value FROM mailbox"
        )
        await eventually(lambda: "permission denied" in site.why)
        await execute("GRANT SELECT ON site_aliases TO mailreader")
        await answers(tables, "site", "a@site.test", Found("3!"))
        await proven(tables)
        await execute(
            "CREATE OR REPLACE VIEW site_aliases AS SELECT address AS key, target AS value FROM mailbox"
        )
        await answers(tables, "site", "a@site.test", Found("3"))
        await execute("ALTER TABLE mailbox RENAME COLUMN target TO goes_to")
        await execute("ALTER TABLE mailbox ADD COLUMN more int DEFAULT random() * 5")
        await execute("INSERT INTO mailbox VALUES ('new@site.test', '7')")
        await answers(tables, "site", "new@site.test", Found("7"))
        await equal(tables, world.connection)
        assert unproven == []


async def test_keys_of_a_locked_view_are_not_waited_for(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the uids' view cannot be read, its changed keys are given up, and "not found" believed no more."""  # noqa: E501
    await world.connection.execute("CREATE TABLE gate (x int)")
    await world.connection.execute("GRANT SELECT ON gate TO mailreader")
    view = (await world.connection.fetchval("SELECT pg_get_viewdef('mailmaps.virtual_uid_maps')")).rstrip(";")
    await world.connection.execute(
        f"CREATE OR REPLACE VIEW mailmaps.virtual_uid_maps AS SELECT * FROM ({view}) v "
        "WHERE NOT EXISTS (SELECT FROM gate)"
    )
    await watch_gate(world.connection)
    monkeypatch.setitem(keeper.KEYS_SETTINGS, "statement_timeout", "300")
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        uids, aliases = tables.mirrors["mailmaps.virtual_uid_maps"], tables.mirrors[ALIASES]
        unproven = unproven_at_times(aliases)
        async with world.connect() as other:
            async with other.transaction():
                await other.execute("LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")
                await world.connection.execute(
                    "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
                    "VALUES ('carl', 3, 100, 'carl@ex.test', 'm', '1')"
                )
                await eventually(lambda: not uids.proven)
                assert uids.age_of_proof is None
                assert "statement timeout" in str(uids.state["why"]) or uids.is_being_read
                await answers(tables, "virtual_mailbox_maps", "carl@ex.test", Found("m/"))
            await equal(tables, world.connection)
        assert unproven == []


async def watch_gate(connection: Connection) -> None:
    """The triggers that name keys, as a builtin view's tables have them; the gate never changes."""
    for event in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        await connection.execute(
            f"CREATE TRIGGER mailmaps_watch_{event.lower()} AFTER {event} ON gate "
            "FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.notify_settings(); "
            f"ALTER TABLE gate ENABLE ALWAYS TRIGGER mailmaps_watch_{event.lower()}"
        )


async def test_connections_that_are_ended_are_opened_again(
    world: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        for number in range(3):
            old = await backends(world)
            await world.connection.execute("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p", old)
            await world.connection.execute(
                "INSERT INTO mailmaps.forwards VALUES ($1, 'anna@ex.test')", f"n{number}@ex.test"
            )
            await answers(tables, "virtual_alias_maps", f"n{number}@ex.test", Found("anna@ex.test"))
            await equal(tables, world.connection)
        assert all(mirror.drift == 0 for mirror in mirrors(tables).values())
    assert 1 <= said(caplog, "changes are not heard of") <= 3


async def test_a_connection_that_hears_nothing_is_replaced(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Statements go through, notifications do not: as after UNLISTEN, or through a pooler."""
    is_silent = False
    passed_on = asyncpg.Connection._process_notification  # type: ignore[attr-defined]

    def process(connection: Any, *notification: Any) -> None:
        if not is_silent:
            passed_on(connection, *notification)

    monkeypatch.setattr(asyncpg.Connection, "_process_notification", process)
    monkeypatch.setattr(changes, "BEAT_LIMIT", 3.0)
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        monkeypatch.setattr(changes, "BEAT_LIMIT", 0.2)
        is_silent = True
        await world.connection.execute("INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')")
        await eventually(lambda: not any(mirror.proven for mirror in mirrors(tables).values()))
        assert await tables.tables["virtual_alias_maps"].answer(b"n@ex.test") == Found("anna@ex.test")
        await asyncio.sleep(1.0)  # many attempts
        assert "did not come back" in str(tables.mirrors.state["changes"])
        assert said(caplog, "changes are not heard of") == 1
        is_silent = False
        monkeypatch.setattr(changes, "BEAT_LIMIT", 3.0)
        await answers(tables, "virtual_alias_maps", "n@ex.test", Found("anna@ex.test"))
        await equal(tables, world.connection)
    assert said(caplog, "changes are heard of again") == 1


@pytest.mark.parametrize("in_a_statement", [False, True])
async def test_a_half_open_connection_is_replaced(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_statement: bool
) -> None:
    """Nothing passes any more, and neither end is told; also while changed keys are being read."""
    async with Proxy(world.postgres.port) as proxy:
        dsn = world.reader_dsn.replace(f":{world.postgres.port}/", f":{proxy.port}/")
        of = settings(world, tmp_path, dsn=dsn)
        async with running(of) as tables:
            await proven(tables)
            monkeypatch.setattr(changes, "BEAT_LIMIT", 0.5)
            monkeypatch.setattr(following, "ANSWER_LIMIT", 0.5)
            if in_a_statement:
                async with world.connection.transaction():
                    await world.connection.execute("LOCK TABLE mailmaps.forwards IN ACCESS EXCLUSIVE MODE")
                    await world.connection.execute("UPDATE user_accounts SET active = '0'")
            proxy.freeze()
            await world.connection.execute(
                "INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')"
            )
            await eventually(lambda: not any(mirror.proven for mirror in mirrors(tables).values()))
            monkeypatch.setattr(changes, "BEAT_LIMIT", 20.0)
            monkeypatch.setattr(following, "ANSWER_LIMIT", 20.0)
            await equal(tables, world.connection)


async def test_two_changes_that_do_not_see_each_other(world: Database, tmp_path: Path) -> None:
    """One adds a way from an alias to a target, the other takes the target away, before the first is committed."""  # noqa: E501
    async with running(settings(world, tmp_path)) as tables, world.connect() as one, world.connect() as two:
        await proven(tables)
        for number in range(10):
            key, goal = f"v{number}@ex.test", f"t{number}@ex.test"
            await world.connection.execute(
                "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
                "VALUES ($1, $2, 100, $1, 'm', '1')",
                goal,
                100 + number,
            )
            first, second = one.transaction(), two.transaction()
            await first.start()
            await second.start()
            await one.execute("INSERT INTO mailmaps.forwards VALUES ($1, $2)", key, goal)
            await two.execute("UPDATE user_accounts SET active = '0' WHERE username = $1", goal)
            if number % 2:
                await first.commit()
                await answers(tables, "virtual_alias_maps", key, Found(goal))
                await second.commit()
            else:
                await second.commit()
                await first.commit()
            await answers(tables, "virtual_alias_maps", key, NOT_FOUND)
        await equal(tables, world.connection)


# Each is a transaction; some are refused now and then.
WRITES = [
    *["INSERT INTO mailmaps.forwards VALUES ({address}, {address})"] * 6,
    *["DELETE FROM mailmaps.forwards WHERE address = {address}"] * 3,
    *["UPDATE mailmaps.forwards SET target = {address} WHERE address = {address}"] * 3,
    *["UPDATE user_accounts SET active = 1 - active::int WHERE username = {user}"] * 4,
    *["UPDATE user_accounts SET email = {address} WHERE username = {user}"] * 2,
    "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES ({user}, {number}, 100, {address}, 'm', '1')",  # noqa: E501
    "DELETE FROM user_accounts WHERE username = {user}",
    *["INSERT INTO user_addresses VALUES ({user}, {address})"] * 2,
    "DELETE FROM user_addresses WHERE username = {user}",
    "INSERT INTO mailmaps.domain_aliases VALUES ({domain}, {domain})",
    "DELETE FROM mailmaps.domain_aliases WHERE domain = {domain}",
    "INSERT INTO domains (gid, domain) VALUES ({number}, {domain})",
    "DELETE FROM domains WHERE domain = {domain}",
    "INSERT INTO mailmaps.relays VALUES ({domain})",
    "DELETE FROM mailmaps.relays WHERE domain = {domain}",
    "INSERT INTO mailmaps.relay_recipients VALUES ({address})",
    "DELETE FROM mailmaps.relay_recipients WHERE address = {address}",
    "INSERT INTO mailmaps.forwards SELECT {user} || n || '@d1.test', {address} FROM generate_series(1, 700) n",  # noqa: E501
    "DELETE FROM mailmaps.forwards WHERE address LIKE {user} || '%'",
    "UPDATE mailmaps.settings SET recipient_delimiter = translate(recipient_delimiter, '+-', '-+')",
]
RARE = [
    "TRUNCATE mailmaps.forwards",
    "TRUNCATE user_addresses",
    "TRUNCATE mailmaps.relays, mailmaps.relay_recipients, mailmaps.domain_aliases",
]
REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.TransactionRollbackError)
SECONDS = float(os.environ.get("SECONDS", "4"))


def a_write(rng: random.Random) -> str:
    locals_ = ["x", "y", "z", "x+e", "u1", "u2", ""]
    domains = ["d1.test", "d2.test", "d3.test"]
    sql = rng.choice(RARE) if rng.random() < 0.01 else rng.choice(WRITES)
    while "{" in sql:
        address = f"'{rng.choice(locals_)}@{rng.choice(domains)}'"
        words = {"address": address, "domain": f"'{rng.choice(domains)}'", "user": f"'u{rng.randrange(4)}'"}
        words["number"] = str(rng.randrange(100, 1000))
        name = sql[sql.index("{") + 1 : sql.index("}")]
        sql = sql.replace("{" + name + "}", words[name], 1)
    return sql


async def write(database: Database, seed: int, until: float) -> int:
    """Commit random changes, one after the other."""
    rng, commits = random.Random(seed), 0
    async with database.connect() as connection:
        while asyncio.get_running_loop().time() < until:
            try:
                async with connection.transaction():
                    for _ in range(rng.choice([1, 1, 1, 3])):
                        await connection.execute(a_write(rng))
                commits += 1
            except REFUSED:
                continue
    return commits


@pytest.mark.parametrize("compare", [0.2, 3600.0])
async def test_many_write_at_once(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compare: float
) -> None:
    """Compared all the time, or never: what is held is what is there, and nothing was unheard of.

    A longer run by hand: MAILMAPS_OUTAGES=1 SECONDS=60 pytest tests/system/outages -k many_write
    """
    monkeypatch.setattr(readings, "CHANGING_SHARE", 0.0)
    async with running(settings(world, tmp_path, more=f"compare = {compare}")) as tables:
        await proven(tables)
        until = asyncio.get_running_loop().time() + SECONDS
        commits = await asyncio.gather(*(write(world, seed, until) for seed in range(8)))
        assert min(commits) > 0
        await equal(tables, world.connection)
        assert {name: mirror.drift for name, mirror in mirrors(tables).items() if mirror.drift} == {}
        assert all(name.partition(" ")[0] in GROUP_OF for name in mirrors(tables))


async def test_they_stay_proven_while_somebody_writes_all_the_time(world: Database, tmp_path: Path) -> None:
    """A beat is counted when what was told before it has been read, whatever has been told since."""
    async with running(settings(world, tmp_path)) as tables:
        await proven(tables)
        aliases = tables.mirrors[ALIASES]
        until = asyncio.get_running_loop().time() + 3.0
        ages: list[float] = []

        async def observe() -> None:
            while asyncio.get_running_loop().time() < until:
                ages.append(aliases.age or 0.0)
                await asyncio.sleep(0.05)

        async def touch(number: int) -> None:
            async with world.connect() as connection:
                while asyncio.get_running_loop().time() < until:
                    await connection.execute(
                        "INSERT INTO mailmaps.forwards VALUES ($1, 'anna@ex.test')",
                        f"{random.random()}@ex.test",
                    )

        await asyncio.gather(observe(), *map(touch, range(6)))
        assert sum(later < earlier for earlier, later in zip(ages, ages[1:], strict=False)) > 1  # noqa: RUF007
        await equal(tables, world.connection)


def _has_drifted(tables: TableSet, view: str) -> bool:
    return tables.mirrors[view].drift == 1


async def test_changes_behind_the_triggers_are_mended_and_counted(
    world: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As who writes to the files could, or puts another function in the place of ours: nobody notifies."""
    async with running(settings(world, tmp_path, more="compare = 0.3")) as tables:
        await proven(tables)
        await world.connection.execute(
            "CREATE OR REPLACE FUNCTION mailmaps.notify_forwards() RETURNS trigger "
            "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        await world.connection.execute("INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')")
        await answers(tables, "virtual_alias_maps", "n@ex.test", Found("anna@ex.test"))
        for view in (ALIASES, "mailmaps.sender_rights"):  # who reads the forward may send as it
            await eventually(partial(_has_drifted, tables, view))
    assert said(caplog, "rows had changed unheard of") == 2


async def test_a_restart_answers_from_disk(world: Database, tmp_path: Path) -> None:
    """While the database is away; and the same files are no others' answers."""
    async with Proxy(world.postgres.port) as proxy:
        dsn = world.reader_dsn.replace(f":{world.postgres.port}/", f":{proxy.port}/")
        async with running(settings(world, tmp_path, dsn=dsn)) as tables:
            await proven(tables)
            drift_of = {name: mirror.state["keys"] for name, mirror in mirrors(tables).items()}
        await proxy.cut()
        async with running(settings(world, tmp_path, dsn=dsn)) as tables:
            assert not any(mirror.proven for mirror in mirrors(tables).values())
            assert {name: mirror.state["keys"] for name, mirror in mirrors(tables).items()} == drift_of
            assert await tables.tables["virtual_alias_maps"].answer(b"team@ex.test") == Found("anna@ex.test")
            assert await tables.tables["virtual_alias_maps"].answer(b"nobody@ex.test") == NOT_FOUND
            await proxy.mend()
            await equal(tables, world.connection)
        await proxy.cut()
        elsewhere = dsn.replace(world.name, "elsewhere")
        async with running(settings(world, tmp_path, dsn=elsewhere)) as tables:
            assert isinstance(await tables.tables["virtual_alias_maps"].answer(b"team@ex.test"), Unavailable)


async def test_a_directory_in_use_by_another(
    world: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = settings(world, tmp_path)
    async with running(of) as first:
        await proven(first)
        files = {file.name: file.stat().st_ino for file in tmp_path.iterdir()}  # noqa: ASYNC240
        async with running(of) as second:
            await proven(second)
            assert second.mirrors.state["directory"] != str(tmp_path)
            assert now(second, "virtual_alias_maps", "team@ex.test") == Found("anna@ex.test")
            temporary = Path(str(second.mirrors.state["directory"]))
        assert not temporary.exists()  # noqa: ASYNC240
        assert {file.name: file.stat().st_ino for file in tmp_path.iterdir()} == files  # noqa: ASYNC240
        assert now(first, "virtual_alias_maps", "team@ex.test") == Found("anna@ex.test")
    assert said(caplog, "in use by another mailmaps") == 1


async def test_a_directory_that_cannot_be_made(
    world: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    async with running(settings(world, tmp_path / "file" / "below")) as tables:
        await proven(tables)
        assert now(tables, "virtual_alias_maps", "team@ex.test") == Found("anna@ex.test")
    assert said(caplog, "mirror.directory") == 1


async def test_a_directory_that_is_removed_while_we_run(world: Database, tmp_path: Path) -> None:
    """New files cannot be made; the database answers, and no connection is lost for each attempt."""
    directory = tmp_path / "mirrors"
    await world.connection.execute(SITE)
    async with running(settings(world, directory)) as tables:
        await proven(tables)
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        async with running(settings(world, directory, SITE_TABLE), tables) as more:
            site = more.mirrors[SITE_VIEW]
            await eventually(lambda: "No such file" in site.why)
            assert await more.tables["site"].answer(b"a@site.test") == Found("1")
            await asyncio.sleep(1.0)  # some attempts
            assert len(await backends(world)) <= 2 + 2 + 1 + readings.READERS
            await world.connection.execute(
                "INSERT INTO mailmaps.forwards VALUES ('n@ex.test', 'anna@ex.test')"
            )
            await answers(more, "virtual_alias_maps", "n@ex.test", Found("anna@ex.test"))


FULL_DISK = """
import asyncio, logging, resource, sys
from mailmaps.config import parse
from mailmaps.maps.answer import Found, NOT_FOUND
from mailmaps.mirrors import readings
from mailmaps.tableset import TableSet
import asyncpg

readings.FIRST_PAUSE, readings.LONGEST_PAUSE = 0.1, 0.2
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
_, config, owner, full_at_first = sys.argv


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def eventually(is_so):
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


async def main():
    if full_at_first == "yes":
        limit(100_000)
    connection = await asyncpg.connect(owner)
    tables = TableSet(parse(config))
    print(await tables.start())
    aliases, table = tables.mirrors["mailmaps.virtual_alias_maps"], tables.tables["virtual_alias_maps"]
    if full_at_first == "no":
        await eventually(lambda: aliases.proven)
        limit(100_000)
        await connection.execute(
            "INSERT INTO mailmaps.forwards "
            "SELECT 'n' || n || '@ex.test', 'anna@ex.test' FROM generate_series(1, 9000) n"
        )
    await eventually(lambda: aliases.why)
    await asyncio.sleep(1)
    assert not aliases.proven
    await connection.execute("INSERT INTO mailmaps.forwards VALUES ('late@ex.test', 'anna@ex.test')")
    await connection.execute("DELETE FROM mailmaps.forwards WHERE address = 'u7@ex.test'")
    assert await table.answer(b"late@ex.test") == Found("anna@ex.test")
    assert await table.answer(b"u8@ex.test") == Found("anna@ex.test")
    assert await table.answer(b"u7@ex.test") == NOT_FOUND
    assert await table.answer(b"nobody@ex.test") == NOT_FOUND
    limit(resource.RLIM_INFINITY)
    await eventually(lambda: aliases.proven)
    assert table.answer_now(b"late@ex.test") == Found("anna@ex.test")
    assert table.answer_now(b"u7@ex.test") == NOT_FOUND
    limit(100_000)
    await tables.close()
    await connection.close()
    print("ends well")


asyncio.run(main())
"""


@pytest.mark.parametrize("full_at_first", ["yes", "no"])
async def test_a_full_disk_ends_nothing(world: Database, tmp_path: Path, full_at_first: str) -> None:
    """Nothing can be written beyond 100 kB: neither a file at first, nor changes to one, nor its seal."""
    await world.connection.execute(
        "INSERT INTO mailmaps.forwards SELECT 'u' || n || '@ex.test', 'anna@ex.test' FROM generate_series(1, 9000) n"  # noqa: E501
    )
    config = (
        f'[database]\ndsn = "{world.reader_dsn}"\n[mirror]\ndirectory = "{tmp_path}"\n'
        "[cache]\nttl = 0.0\nnegative_ttl = 0.0\n"
    )
    command = [sys.executable, "-c", FULL_DISK, config, world.dsn, full_at_first]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert ended.stdout.endswith("ends well\n")
    assert "Traceback" not in ended.stdout + ended.stderr
