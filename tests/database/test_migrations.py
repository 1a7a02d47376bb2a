"""Schema made and upgraded: the how-to's database in place, or named reasons and nothing done."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.conftest import Database, new_database
from tests.database.site import HOWTO_QUESTIONS, answers, dump, make_howto

from mailmaps.database.migrations import Site, create, migrations, read_status, upgrade
from mailmaps.database.preflight import SchemaError, State
from mailmaps.database.sql_files import MAIN, POLICY
from mailmaps.demo.data import HOWTO as HOWTO_ROWS
from mailmaps.demo.postgres import EmbeddedPostgres

SITE = Site(
    recipient_delimiter="+-",
    owner_request_special=False,
    double_bounce_sender="bouncer",
    login_realm="lxtreme.nl",
    login_addresses=True,
    sender_rules_off="f@",
)


def quiet(_: str) -> None:
    """A report nobody reads."""


async def refusal(database: Database, site: Site = SITE) -> list[str]:
    """The reasons for which an upgrade is refused; the database must be as before."""
    before = dump(database)
    with pytest.raises(SchemaError) as caught:
        await upgrade(database.connection, site, quiet)
    assert dump(database) == before
    return caught.value.problems


async def test_create_takes_the_howtos_rows_and_answers_its_questions(empty_database: Database) -> None:
    await create(empty_database.connection, SITE, quiet)
    await empty_database.connection.execute(HOWTO_ROWS)
    assert await answers(empty_database) == HOWTO_QUESTIONS


async def test_a_howto_database_is_upgraded_in_place(empty_database: Database) -> None:
    await make_howto(empty_database)
    assert (await read_status(empty_database.connection)).state is State.HOWTO
    await upgrade(empty_database.connection, SITE, quiet)
    assert await answers(empty_database) == HOWTO_QUESTIONS
    status = await read_status(empty_database.connection)
    assert (status.state, status.version, status.pending) == (State.INSTALLED, migrations()[-1].version, [])


async def test_upgraded_and_created_are_the_same(
    empty_database: Database, postgres: EmbeddedPostgres
) -> None:
    await make_howto(empty_database)
    await upgrade(empty_database.connection, SITE, quiet)
    async with new_database(postgres) as created:
        await create(created.connection, SITE, quiet)
        await created.connection.execute(HOWTO_ROWS)
        await created.connection.execute(
            "GRANT SELECT ON domains, user_accounts, user_addresses TO mailreader"
        )

        def timeless(text: str) -> list[str]:
            return sorted(re.sub(r"\t\d{4}-\d\d-\d\d .*", "", text).splitlines())

        assert timeless(dump(created)) == timeless(dump(empty_database))


async def test_an_upgrade_done_twice_changes_nothing(database: Database) -> None:
    before = dump(database)
    said: list[str] = []
    await upgrade(database.connection, Site(recipient_delimiter="+"), said.append)
    assert dump(database) == before
    assert said[:2] == [
        f"the schema {series.schema} is up to date (version {series.migrations()[-1].version})"
        for series in (MAIN, POLICY)
    ]


async def test_settings_are_written_each_time(database: Database) -> None:
    await upgrade(database.connection, SITE, quiet)
    row = await database.connection.fetchrow("SELECT * FROM mailmaps.settings")
    assert row is not None
    assert dict(row) == {
        "only_row": True,
        "honour_active": True,
        "recipient_delimiter": "+-",
        "owner_request_special": False,
        "double_bounce_sender": "bouncer",
        "login_realm": "lxtreme.nl",
        "login_addresses": True,
        "sender_rules_off": "f@",
    }


async def test_create_and_upgrade_point_at_each_other(empty_database: Database, database: Database) -> None:
    with pytest.raises(SchemaError, match="use `mailmaps schema create`"):
        await upgrade(empty_database.connection, SITE, quiet)
    with pytest.raises(SchemaError, match="the schema of mailmaps: use `mailmaps schema upgrade`"):
        await create(database.connection, SITE, quiet)
    await make_howto(empty_database)
    with pytest.raises(SchemaError, match="the how-to's tables: use `mailmaps schema upgrade`"):
        await create(empty_database.connection, SITE, quiet)


async def test_half_a_howto_is_nobodys(empty_database: Database) -> None:
    await empty_database.connection.execute("CREATE TABLE domains (gid int, domain text)")
    with pytest.raises(SchemaError, match=r"public\.domains has no column transport"):
        await create(empty_database.connection, SITE, quiet)


async def test_case_duplicates_and_bad_usernames_are_all_named(empty_database: Database) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute(
        """INSERT INTO domains (gid, domain) VALUES
              (1, 'LXtreme.nl'), (2, 'straße.test'), (3, 'strasse.test');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
              ('!inactive', 1, 1, 'a@b', 'x', '1'), ('a b', 2, 1, 'a@b', 'x', '1'),
              ('', 3, 1, 'a@b', 'x', '1'), ('c,d', 4, 1, 'a@b', 'x', '1');
           INSERT INTO user_addresses VALUES ('info_lx', 'INFO@lxtreme.nl'), ('jawi_lx', 'Info@lxtreme.nl')"""
    )
    *problems, last = await refusal(empty_database)
    assert problems[:3] == [
        'domains.domain: "LXtreme.nl" and "lxtreme.nl" are the same to Postfix',
        'domains.domain: "strasse.test" and "straße.test" are the same to Postfix',
        'user_addresses.alias: "INFO@lxtreme.nl" and "Info@lxtreme.nl" and "info@lxtreme.nl"'
        " are the same to Postfix",
    ]
    named = [problem.split('"')[1] for problem in problems[3:]]
    assert named == ["", "!inactive", "a b", "c,d"]
    assert last == "nothing was done"


@pytest.mark.parametrize("value", ["0", "n", "f", " ", "j"])
async def test_inactive_yet_served_accounts_stop_until_somebody_decides(
    empty_database: Database, value: str
) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute(
        "UPDATE user_accounts SET active = $1 WHERE username = 'info_lx'", value
    )
    problems = await refusal(empty_database)
    assert problems[0] == "user_accounts: info_lx is inactive, yet gets mail today"
    assert "--honour-active or --ignore-active" in problems[-1]
    await upgrade(empty_database.connection, Site(honour_active=False), quiet)
    mailbox = "SELECT value FROM mailmaps.virtual_mailbox_maps WHERE key = 'info@lxtreme.nl'"
    assert await empty_database.connection.fetchval(mailbox) == "lxtreme.nl/info/"
    await upgrade(empty_database.connection, Site(), quiet)
    assert await empty_database.connection.fetchval(mailbox) == "lxtreme.nl/info/", "decided is decided"
    await upgrade(empty_database.connection, Site(honour_active=True), quiet)
    assert await empty_database.connection.fetchval(mailbox) is None


@pytest.mark.parametrize("value", ["1", "t", "T", "y", "Y"])
async def test_an_active_account_needs_no_decision(empty_database: Database, value: str) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute("UPDATE user_accounts SET active = $1", value)
    await upgrade(empty_database.connection, Site(), quiet)
    assert await empty_database.connection.fetchval("SELECT honour_active FROM mailmaps.settings") is True


async def test_a_file_that_fails_leaves_nothing_of_itself_and_may_be_tried_again(
    empty_database: Database,
) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute("CREATE INDEX user_accounts_gid ON user_accounts (gid)")
    views = dump(empty_database, "--table=postfix_*")
    with pytest.raises(SchemaError, match='0003 widen: relation "user_accounts_gid" already exists'):
        await upgrade(empty_database.connection, SITE, quiet)
    assert (await read_status(empty_database.connection)).version == 2
    assert dump(empty_database, "--table=postfix_*") == views
    assert await answers(empty_database) == HOWTO_QUESTIONS
    await empty_database.connection.execute("DROP INDEX user_accounts_gid")
    await upgrade(empty_database.connection, SITE, quiet)
    assert await answers(empty_database) == HOWTO_QUESTIONS


async def test_two_at_once_do_it_once(empty_database: Database) -> None:
    async with empty_database.connect() as first, empty_database.connect() as second:
        results = await asyncio.gather(
            create(first, SITE, quiet), create(second, SITE, quiet), return_exceptions=True
        )
    assert [str(result) for result in results if result is not None] == [
        "the database holds the schema of mailmaps: use `mailmaps schema upgrade`"
    ]
    assert (await read_status(empty_database.connection)).pending == []


async def test_a_dry_run_says_and_does_nothing(empty_database: Database) -> None:
    said: list[str] = []
    await make_howto(empty_database)
    before = dump(empty_database)
    await upgrade(empty_database.connection, SITE, said.append, dry_run=True)
    assert dump(empty_database) == before
    assert said[:2] == ["would apply 0002 fold", "would apply 0003 widen"]
    assert sorted(said[2:4]) == [
        "   would drop the view public.postfix_aliases and make it again",
        "   would drop the view public.postfix_mailboxes and make it again",
    ]


async def test_a_database_that_is_not_utf8_is_refused(postgres: EmbeddedPostgres) -> None:
    options = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    async with new_database(postgres, options) as latin:
        with pytest.raises(SchemaError, match="encoding is LATIN1, it must be UTF8"):
            await create(latin.connection, SITE, quiet)


async def test_a_newer_schema_is_left_alone(database: Database) -> None:
    await database.connection.execute("INSERT INTO mailmaps.schema_version VALUES (9999, 'future')")
    with pytest.raises(SchemaError, match="version 9999, this mailmaps knows"):
        await upgrade(database.connection, SITE, quiet)


async def test_long_values_fit(database: Database) -> None:
    await database.connection.execute("INSERT INTO domains (gid, domain) VALUES (1, 'a.test')")
    local = "x" * 247
    await database.connection.execute(
        """INSERT INTO user_accounts (username, uid, gid, password, email, mailbox)
           VALUES ($1, 1, 1, $2, $3, $4)""",
        "somebody@with.a.long.username.test",
        "$argon2id$v=19$m=65536,t=3,p=4$" + "x" * 200,
        f"{local}@a.test",
        "m" * 300,
    )
    key = "SELECT value FROM mailmaps.virtual_mailbox_maps WHERE key = $1"
    assert await database.connection.fetchval(key, f"{local}@a.test") is None, "inactive by default"


async def test_every_file_is_reported(empty_database: Database) -> None:
    said: list[str] = []
    await create(empty_database.connection, SITE, said.append)
    assert said == [
        *(f"applied {MAIN.label(one)}" for one in MAIN.migrations()),
        *(f"applied {POLICY.label(one)}" for one in POLICY.migrations()),
        "active is honoured",
        "note: an INSERT that leaves active out makes an inactive account (its default is '0')",
    ]
    for series in (MAIN, POLICY):
        files = series.migrations()
        assert [one.version for one in files] == list(range(1, len(files) + 1))
