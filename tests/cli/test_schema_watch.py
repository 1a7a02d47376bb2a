"""`mailmaps schema watch` in somebody else's database: triggers on his tables, and nothing else of ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.conftest import Connection, Database
from tests.database.site import dump, make_howto

from mailmaps.database.migrations import Site, migrations, upgrade

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]

# As PostfixAdmin has them, in short.
POSTFIXADMIN = """
CREATE TABLE mailbox (username text PRIMARY KEY, maildir text, active boolean);
CREATE TABLE alias (address text PRIMARY KEY, goto text);
CREATE VIEW boxes AS SELECT username AS key, maildir || '/' AS value FROM mailbox WHERE active;
CREATE MATERIALIZED VIEW copied AS SELECT address AS key, goto AS value FROM alias;
"""
SETTINGS = """
builtin_tables = false
[tables.virtual_mailbox_maps]
sources = ["view:public.boxes"]
tcp = ""
[tables.virtual_alias_maps]
sources = ["pgsql:/etc/postfix/alias.cf"]
depends_on = ["alias", "public.mailbox"]
tcp = ""
"""


@pytest.fixture
def mailmaps(empty_database: Database, tmp_path: Path) -> Run:
    """Run `mailmaps schema ...` on the empty database, with settings of ours."""

    async def run(
        *words: str, settings: str = SETTINGS, dsn: str = empty_database.dsn
    ) -> subprocess.CompletedProcess[str]:
        config = tmp_path / "mailmaps.toml"
        config.write_text(settings)
        where = ["--config", str(config), "--dsn", dsn]
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "mailmaps", "schema", *words, *where],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


async def heard_after(connection: Connection, *statements: str) -> list[str]:
    """The payloads of each statement, run as a session that takes no part in triggers."""
    payloads: list[str] = []

    def told(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        payloads.append(str(payload))

    await connection.add_listener("mailmaps", told)
    await connection.execute("SET session_replication_role = replica")
    for statement in statements:
        await connection.execute(statement)
    await connection.execute("RESET session_replication_role")
    await connection.remove_listener("mailmaps", told)
    return payloads


async def test_every_change_of_a_watched_table_is_told(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    done = await mailmaps("watch")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["watching public.alias", "watching public.mailbox"]
    told = '{"relation": "public.alias"}'
    assert (
        await heard_after(
            empty_database.connection,
            "INSERT INTO alias VALUES ('a', 'b'), ('c', 'd')",
            "UPDATE alias SET goto = 'e'",
            "DELETE FROM alias WHERE address = 'a'",
            "TRUNCATE alias",
        )
        == [told] * 4
    )
    nothing = (
        "INSERT INTO alias SELECT '', '' WHERE false",
        "UPDATE alias SET goto = ''",
        "DELETE FROM alias",
    )
    assert await heard_after(empty_database.connection, *nothing) == []


async def test_a_second_time_changes_nothing(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    await mailmaps("watch")
    before = dump(empty_database)
    again = await mailmaps("watch")
    assert sorted(again.stdout.splitlines()) == [
        "public.alias is watched already",
        "public.mailbox is watched already",
    ]
    assert dump(empty_database) == before


async def test_a_trigger_that_sleeps_is_woken(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    await mailmaps("watch")
    await empty_database.connection.execute(
        """ALTER TABLE alias DISABLE TRIGGER mailmaps_watch_insert;
           ALTER TABLE alias ENABLE TRIGGER mailmaps_watch_update;
           DROP TRIGGER mailmaps_watch_delete ON alias"""
    )
    done = await mailmaps("watch")
    assert "watching public.alias" in done.stdout.splitlines()
    statements = ("INSERT INTO alias VALUES ('a', 'b')", "UPDATE alias SET goto = 'e'", "DELETE FROM alias")
    assert len(await heard_after(empty_database.connection, *statements)) == 3


async def test_a_dry_run_does_nothing(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    before = dump(empty_database)
    done = await mailmaps("watch", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["would watch public.alias", "would watch public.mailbox"]
    assert dump(empty_database) == before


async def test_what_cannot_be_watched_is_named_and_the_rest_done(
    mailmaps: Run, empty_database: Database
) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    settings = SETTINGS.replace("public.boxes", "public.copied").replace('"alias"', '"alias", "typo"')
    done = await mailmaps("watch", settings=settings)
    assert done.returncode == 2
    assert sorted(done.stdout.splitlines()) == ["watching public.alias", "watching public.mailbox"]
    assert done.stderr.splitlines() == [
        "Error: tables.virtual_mailbox_maps.sources public.copied: "
        "public.copied is a materialized view, and REFRESH is not notified",
        "tables.virtual_alias_maps.depends_on: there is no typo",
    ]


async def test_a_role_that_owns_nothing_is_told_so(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    done = await mailmaps("watch", dsn=empty_database.reader_dsn)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.removeprefix("Error: ").splitlines()) == [
        f"{table}: permission denied for database {empty_database.name} (42501)"
        for table in ("public.alias", "public.mailbox")
    ]


async def test_the_owner_of_the_tables_needs_no_right_on_the_function(
    mailmaps: Run, empty_database: Database
) -> None:
    await empty_database.connection.execute(POSTFIXADMIN + "ALTER TABLE alias OWNER TO mailreader")
    await mailmaps("watch")
    await empty_database.connection.execute("DROP TRIGGER mailmaps_watch_delete ON alias")
    done = await mailmaps("watch", dsn=empty_database.reader_dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert "watching public.alias" in done.stdout.splitlines()


async def test_nothing_to_watch(mailmaps: Run) -> None:
    done = await mailmaps("watch", settings="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nothing to watch: ")


async def test_nobody_takes_it_for_our_schema(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute(POSTFIXADMIN)
    await mailmaps("watch")
    status = await mailmaps("status")
    assert status.stdout.startswith("the database holds no tables of ours, version 0\n")
    assert (await mailmaps("create")).returncode == 0
    assert (await mailmaps("status")).returncode == 0


async def test_a_howto_database_may_be_watched_and_upgraded_later(
    mailmaps: Run, empty_database: Database
) -> None:
    await make_howto(empty_database)
    settings = SETTINGS.replace('"alias", "public.mailbox"', '"user_accounts"').replace(
        "public.boxes", "public.postfix_mailboxes"
    )
    assert "watching public.user_accounts" in (await mailmaps("watch", settings=settings)).stdout
    await upgrade(empty_database.connection, Site(), lambda _: None)
    told = await heard_after(
        empty_database.connection, "UPDATE user_accounts SET active = '0' WHERE uid = 5002"
    )
    assert told == [
        '{"of": "addresses", "keys": ["info@lxtreme.nl"]}',
        '{"relation": "public.user_accounts"}',
    ]
    assert await empty_database.connection.fetchval(
        "SELECT max(version) FROM mailmaps.schema_version"
    ) == len(migrations())
    again = await mailmaps("watch", settings=settings)
    assert "public.user_accounts is watched already" in again.stdout
