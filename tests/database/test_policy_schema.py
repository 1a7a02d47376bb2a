"""The schema mailpolicy: beside ours or alone in a site's database, its role, and what `check` says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from tests.conftest import Database, new_database
from tests.database.site import dump, make_howto, make_older

from mailmaps.database.migrations import Site, create, policy, read_status, upgrade
from mailmaps.database.policy_checks import MAKE, policy_findings
from mailmaps.database.preflight import SchemaError, State
from mailmaps.database.sql_files import MAIN, POLICY
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.findings import Finding, Level

NEWEST = POLICY.migrations()[-1].version
GOOD = Finding(Level.OK, "mailpolicy", f"is of version {NEWEST}")
# A database of PostfixAdmin, and one whose table has a name of the how-to's.
FOREIGN = "CREATE TABLE mailbox (username text, active boolean); CREATE TABLE domains (name text)"


def quiet(_: str) -> None:
    """A report nobody reads."""


async def findings(database: Database, dsn: str | None = None) -> list[Finding]:
    async with database.connect(dsn or database.write_dsn) as writer:
        return await policy_findings(writer)


def texts(found: Sequence[Finding], level: Level) -> list[str]:
    return [f"{finding.subject}: {finding.text}" for finding in found if finding.level is level]


async def test_it_is_made_alone_in_a_database_that_is_not_ours(empty_database: Database) -> None:
    await empty_database.connection.execute(FOREIGN)
    before = dump(empty_database, "--exclude-schema=mailpolicy")
    said: list[str] = []
    await policy(empty_database.connection, said.append, dry_run=True)
    assert said == [f"would apply {POLICY.label(one)}" for one in POLICY.migrations()]
    assert dump(empty_database) == before
    await policy(empty_database.connection, quiet)
    assert dump(empty_database, "--exclude-schema=mailpolicy") == before
    assert await findings(empty_database) == [GOOD]
    whole = dump(empty_database)
    said.clear()
    await policy(empty_database.connection, said.append)
    assert said == [f"the schema mailpolicy is up to date (version {NEWEST})"]
    assert dump(empty_database) == whole


async def test_what_create_upgrade_and_policy_make_is_the_same(
    empty_database: Database, database: Database, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(one: Database) -> list[str]:
        lines = dump(one, "--schema=mailpolicy").splitlines()
        return sorted(line for line in lines if f"\t{POLICY.migrations()[-1].name}\t" not in line)

    await policy(empty_database.connection, quiet)
    assert mine(empty_database) == mine(database)
    async with new_database(postgres) as older, new_database(postgres) as howto:
        await make_older(older, monkeypatch, 11)
        await make_howto(howto)
        for one in (older, howto):
            assert (await read_status(one.connection)).policy.version == 0
            await upgrade(one.connection, Site(), quiet)
            assert mine(one) == mine(database)
            assert await findings(one) == [GOOD]


async def test_the_rest_comes_after_it(empty_database: Database) -> None:
    await policy(empty_database.connection, quiet)
    status = await read_status(empty_database.connection)
    assert (status.state, status.version, status.policy.pending) == (State.EMPTY, 0, [])
    await create(empty_database.connection, Site(), quiet)
    status = await read_status(empty_database.connection)
    assert (status.main.pending, status.policy.version) == ([], NEWEST)


async def test_a_newer_one_is_left_alone(database: Database) -> None:
    await database.connection.execute("INSERT INTO mailpolicy.schema_version VALUES (9999, 'future')")
    before = dump(database)
    newer = f"the schema mailpolicy is of version 9999, this mailmaps knows {NEWEST}"
    for step in (policy(database.connection, quiet), upgrade(database.connection, Site(), quiet)):
        with pytest.raises(SchemaError, match=newer):
            await step
    assert dump(database) == before
    (found,) = await findings(database)
    assert (found.level, found.remedy) == (Level.ERROR, "upgrade mailmaps")


async def test_two_at_once_do_it_once(empty_database: Database) -> None:
    said: list[str] = []
    async with empty_database.connect() as first, empty_database.connect() as second:
        await asyncio.gather(policy(first, said.append), policy(second, said.append))
    assert sorted(said) == sorted(
        [
            *(f"applied {POLICY.label(one)}" for one in POLICY.migrations()),
            f"the schema mailpolicy is up to date (version {NEWEST})",
        ]
    )


async def test_a_file_that_fails_leaves_nothing(empty_database: Database) -> None:
    await empty_database.connection.execute("CREATE SCHEMA mailpolicy; CREATE TABLE mailpolicy.sent (x int)")
    before = dump(empty_database)
    with pytest.raises(SchemaError, match="mailpolicy 0001 policy: relation"):
        await policy(empty_database.connection, quiet)
    assert dump(empty_database) == before


async def test_mailwriter_writes_here_and_reads_nothing_else(database: Database) -> None:
    mine = await _relations(database, "mailpolicy")
    async with database.connect(database.write_dsn) as writer:
        for relation in mine:
            await writer.fetch(f"SELECT * FROM {relation}")
            if relation == "mailpolicy.schema_version":
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await writer.execute(f"DELETE FROM {relation}")
            else:
                await writer.execute(f"DELETE FROM {relation} WHERE false")
        await writer.execute(
            "INSERT INTO mailpolicy.sender_grants (login, address) VALUES ('jan', '@two.test')"
        )
        await writer.execute("SELECT mailpolicy.forget()")
        for relation in await _relations(database, "mailmaps") + await _relations(database, "public"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.fetch(f"SELECT * FROM {relation}")
    for dsn in (database.reader_dsn, database.auth_dsn):
        async with database.connect(dsn) as other:
            for relation in mine:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await other.fetch(f"SELECT * FROM {relation}")


async def _relations(database: Database, schema: str) -> list[str]:
    rows = await database.connection.fetch(
        """SELECT n.nspname || '.' || c.relname AS name
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = $1 AND c.relkind IN ('r', 'v')""",
        schema,
    )
    assert rows
    return [row["name"] for row in rows]


async def test_every_function_pins_where_it_looks_names_up(database: Database) -> None:
    rows = await database.connection.fetch(
        """SELECT p.proname FROM pg_proc p
           WHERE p.pronamespace = 'mailpolicy'::regnamespace AND p.prosqlbody IS NULL
             AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'"""
    )
    assert [row["proname"] for row in rows] == []


async def test_check_says_what_is_missing(empty_database: Database, database: Database) -> None:
    assert await findings(empty_database) == [Finding(Level.ERROR, "mailpolicy", "is not there", MAKE)]
    (found,) = await findings(database, database.reader_dsn)
    assert found.text == "the role mailreader may not read it"
    assert "mailwriter" in found.remedy
    await database.connection.execute(
        """REVOKE INSERT, DELETE ON mailpolicy.sent FROM mailwriter;
           REVOKE EXECUTE ON FUNCTION mailpolicy.forget FROM mailwriter, PUBLIC"""
    )
    assert await findings(database) == [
        Finding(Level.ERROR, "mailpolicy.forget", "the role mailwriter has no right to EXECUTE", MAKE),
        Finding(Level.ERROR, "mailpolicy.sent", "the role mailwriter has no right to INSERT, DELETE", MAKE),
    ]
    await policy(database.connection, quiet)
    assert await findings(database) == [GOOD]
    await database.connection.execute("DELETE FROM mailpolicy.schema_version")
    (found,) = await findings(database)
    assert (found.text, found.remedy) == (f"is of version 0, this mailmaps wants {NEWEST}", MAKE)


async def test_check_names_rows_that_mean_nothing_and_counts_what_is_over(database: Database) -> None:
    await database.connection.execute(
        r"""INSERT INTO mailpolicy.sender_grants (login, address, expires, networks) VALUES
              ('jan', 'x@a.test', NULL, NULL), ('jan', '"x y"@a.test', now() + interval '1 hour', NULL),
              ('service', '*', NULL, '{10.0.0.0/8}'), ('jan', '@a.test', now() - interval '1 hour', NULL),
              (' jan', 'x@a.test', NULL, NULL), ('!inactive', 'x@a.test', NULL, NULL),
              ('jan', 'x@a.test.', NULL, NULL), ('jan', E'x\ty@a.test', NULL, NULL);
           INSERT INTO mailpolicy.sending_limits (scope, name, reason, until) VALUES
              ('login', 'jan@a.test', 'x', NULL), ('login', 'jan', 'x', now()),
              ('domain', 'a.test', 'x', NULL),
              ('domain', '@a.test', 'x', now() - interval '1 day')"""
    )
    found = await findings(database)
    assert texts(found, Level.WARNING) == [
        'mailpolicy.sender_grants: grant 5: nobody logs in as " jan", which begins or ends with a blank',
        'mailpolicy.sender_grants: grant 6: nobody logs in as "!inactive", which begins with !',
        'mailpolicy.sender_grants: grant 7: nobody sends as "x@a.test.", which has a domain that is none',
        'mailpolicy.sender_grants: grant 8: nobody sends as "x\ty@a.test", which holds a control character',
        'mailpolicy.sending_limits: the domain "@a.test" has a domain that is none, so this limits nobody',
    ]
    assert texts(found, Level.OK)[1:] == [
        "mailpolicy.sender_grants: 1 have expired",
        "mailpolicy.sending_limits: 2 have ended",
    ]


def test_the_two_series_have_names_of_their_own() -> None:
    assert MAIN.label(MAIN.migrations()[2]) == "0003 widen"
    assert POLICY.label(POLICY.migrations()[0]) == "mailpolicy 0001 policy"
