"""The written-out keys of domain aliases follow every change, also of two transactions at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from tests.conftest import Connection, Database

ROWS = """
INSERT INTO domains (gid, domain) VALUES (1, 'Target.test'), (2, 'other.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
   ('a', 1, 1, 'A@target.test', 'a', '1'), ('b', 2, 2, 'b@other.test', 'b', '1');
INSERT INTO user_addresses VALUES ('a', 'A@target.test'), ('a', 'a2@target.test'), ('b', 'b@other.test');
INSERT INTO mailmaps.forwards VALUES ('f@target.test', 'x@y.test'), ('@target.test', 'a@target.test');
INSERT INTO mailmaps.domain_aliases VALUES ('Alias.test', 'Target.test');
"""

# What the table must hold, from the definition alone.
EXPECTED = """
SELECT DISTINCT split_part(k.key, '@', 1) || '@' || lower(a.domain) AS key, k.key AS target_key
FROM mailmaps.known_keys k JOIN mailmaps.domain_aliases a ON split_part(k.key, '@', 2) = lower(a.target)
"""


async def keys(connection: Connection) -> set[str]:
    """The keys; the whole table must be as defined."""
    found = {
        tuple(row) for row in await connection.fetch("SELECT key, target_key FROM mailmaps.domain_alias_keys")
    }
    assert found == {tuple(row) for row in await connection.fetch(EXPECTED)}
    return {str(key) for key, _ in found}


@pytest_asyncio.fixture
async def other(database: Database) -> AsyncIterator[Connection]:
    """The rows above, and a second connection."""
    await database.connection.execute(ROWS)
    async with database.connect() as connection:
        yield connection


@pytest.mark.usefixtures("other")
async def test_every_key_of_the_target_is_there_and_no_other(database: Database) -> None:
    assert await keys(database.connection) == {"a@alias.test", "a2@alias.test", "f@alias.test", "@alias.test"}


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize(
    ("statement", "added", "removed"),
    [
        ("INSERT INTO user_addresses VALUES ('b', 'New@TARGET.test')", {"new@alias.test"}, set()),
        (
            "UPDATE user_addresses SET alias = 'a3@target.test' WHERE alias = 'a2@target.test'",
            {"a3@alias.test"},
            {"a2@alias.test"},
        ),
        (
            "UPDATE user_addresses SET alias = 'a2@other.test' WHERE alias = 'a2@target.test'",
            set(),
            {"a2@alias.test"},
        ),
        ("DELETE FROM user_addresses WHERE username = 'a'", set(), {"a2@alias.test"}),
        ("UPDATE user_accounts SET email = 'e@target.test' WHERE username = 'a'", {"e@alias.test"}, set()),
        ("UPDATE user_accounts SET quota = 7", set(), set()),
        ("DELETE FROM user_addresses; DELETE FROM user_accounts", set(), {"a@alias.test", "a2@alias.test"}),
        ("INSERT INTO mailmaps.forwards VALUES ('f@target.test', 'z@y.test')", set(), set()),
        ("DELETE FROM mailmaps.forwards", set(), {"f@alias.test", "@alias.test"}),
        (
            "UPDATE mailmaps.forwards SET address = 'g@target.test' WHERE address = 'f@target.test'",
            {"g@alias.test"},
            {"f@alias.test"},
        ),
        ("INSERT INTO mailmaps.domain_aliases VALUES ('more.test', 'other.test')", {"b@more.test"}, set()),
        (
            "DELETE FROM mailmaps.domain_aliases",
            set(),
            {"a@alias.test", "a2@alias.test", "f@alias.test", "@alias.test"},
        ),
        (
            "UPDATE mailmaps.domain_aliases SET target = 'other.test'",
            {"b@alias.test"},
            {"a@alias.test", "a2@alias.test", "f@alias.test", "@alias.test"},
        ),
        (
            "UPDATE domains SET domain = 'renamed.test' WHERE gid = 1",
            set(),
            {"a@alias.test", "a2@alias.test", "f@alias.test", "@alias.test"},
        ),
        ("TRUNCATE mailmaps.forwards", set(), {"f@alias.test", "@alias.test"}),
        ("TRUNCATE user_addresses", set(), {"a2@alias.test"}),
        ("TRUNCATE user_accounts CASCADE", set(), {"a@alias.test", "a2@alias.test"}),
        ("TRUNCATE domains CASCADE", set(), {"a@alias.test", "a2@alias.test", "f@alias.test", "@alias.test"}),
    ],
)
async def test_each_change_is_followed(
    database: Database, statement: str, added: set[str], removed: set[str]
) -> None:
    before = await keys(database.connection)
    await database.connection.execute(statement)
    after = await keys(database.connection)
    assert (after - before, before - after) == (added, removed)


@pytest.mark.usefixtures("other")
async def test_an_address_of_its_own_in_the_alias_domain_goes_first(database: Database) -> None:
    await database.connection.execute("INSERT INTO user_addresses VALUES ('b', 'A@alias.test')")
    rows = await database.connection.fetch(
        "SELECT value FROM mailmaps.virtual_alias_maps WHERE key = 'a@alias.test'"
        " UNION ALL SELECT value FROM mailmaps.smtpd_sender_login_maps WHERE key = 'a@alias.test'"
    )
    assert [row["value"] for row in rows] == ["b@other.test", "b"]


@pytest.mark.usefixtures("other")
async def test_whoever_may_write_addresses_needs_no_right_on_our_tables(database: Database) -> None:
    role = f"{database.name}_admin"
    await database.connection.execute(
        f"""CREATE ROLE {role}; GRANT INSERT ON user_addresses TO {role}; SET ROLE {role};
            INSERT INTO user_addresses VALUES ('a', 'c@target.test'); RESET ROLE;
            DROP OWNED BY {role}; DROP ROLE {role}"""
    )
    assert "c@alias.test" in await keys(database.connection)


# Pairs of writers whose transactions overlap: the first has not committed when the second begins.
OVERLAPPING = [
    (
        "INSERT INTO user_addresses VALUES ('a', 'n@target.test')",
        "INSERT INTO mailmaps.domain_aliases VALUES ('second.test', 'Target.test')",
    ),
    (
        "INSERT INTO mailmaps.domain_aliases VALUES ('second.test', 'Target.test')",
        "INSERT INTO user_addresses VALUES ('a', 'n@target.test')",
    ),
    (
        "DELETE FROM user_addresses WHERE alias = 'A@target.test'",
        "UPDATE user_accounts SET email = 'e@other.test' WHERE username = 'a'",
    ),
    (
        "DELETE FROM mailmaps.domain_aliases",
        "INSERT INTO mailmaps.forwards VALUES ('n@target.test', 'x@y.test')",
    ),
    (
        "INSERT INTO mailmaps.forwards VALUES ('a2@target.test', 'x@y.test')",
        "DELETE FROM user_addresses WHERE alias = 'a2@target.test'",
    ),
    ("TRUNCATE mailmaps.forwards", "INSERT INTO user_addresses VALUES ('b', 'f@target.test')"),
]


@pytest.mark.parametrize("aliases", [True, False], ids=["with aliases", "the first alias"])
@pytest.mark.parametrize(("first", "second"), OVERLAPPING)
async def test_overlapping_transactions_miss_nothing(
    database: Database, other: Connection, first: str, second: str, aliases: bool
) -> None:
    if not aliases:
        await other.execute("DELETE FROM mailmaps.domain_aliases")
    ours = database.connection.transaction()
    await ours.start()
    await database.connection.execute(first)
    waiting = asyncio.ensure_future(other.execute(second))
    await until_it_waits_or_is_done(database, waiting)
    await ours.commit()
    await waiting
    await keys(other)


@pytest.mark.parametrize(("first", "second"), OVERLAPPING[:2])
async def test_an_older_snapshot_fails_rather_than_misses(
    database: Database, other: Connection, first: str, second: str
) -> None:
    await other.execute("DELETE FROM mailmaps.domain_aliases")
    old = other.transaction(isolation="repeatable_read")
    await old.start()
    await other.fetch("SELECT FROM domains")
    await database.connection.execute(first)
    with pytest.raises((asyncpg.SerializationError, asyncpg.ActiveSQLTransactionError)):
        await other.execute(second)
    await old.rollback()
    await keys(other)


async def test_without_domain_aliases_writers_do_not_wait_for_each_other(
    database: Database, other: Connection
) -> None:
    await other.execute("DELETE FROM mailmaps.domain_aliases")
    async with database.connection.transaction():
        await database.connection.execute("INSERT INTO user_addresses VALUES ('a', 'n@target.test')")
        await asyncio.wait_for(other.execute("INSERT INTO user_addresses VALUES ('b', 'm@target.test')"), 60)


async def until_it_waits_or_is_done(database: Database, task: asyncio.Future[str]) -> None:
    """Until the other connection hangs on a lock of ours."""
    async with database.connect() as watcher:
        while not task.done() and not await watcher.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock')",
            database.name,
        ):
            await asyncio.sleep(0.01)
