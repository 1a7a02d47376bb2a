"""What `mailmaps check` says of a schema, asked as `mailreader`."""

from __future__ import annotations

import pytest
from tests.conftest import Database
from tests.database.site import make_howto

from mailmaps.config import Settings, parse
from mailmaps.database.inspect import LISTED, schema_findings
from mailmaps.database.migrations import Site, migrations, upgrade
from mailmaps.database.watches import watch
from mailmaps.findings import Finding, Level

PLUS = parse('[postfix]\nrecipient_delimiter = "+"\n')


async def findings(database: Database, settings: Settings = PLUS) -> list[Finding]:
    async with database.connect(database.reader_dsn) as reader:
        return await schema_findings(reader, settings)


def texts(found: list[Finding], level: Level = Level.WARNING) -> list[str]:
    return [f"{finding.subject}: {finding.text}" for finding in found if finding.level is level]


async def test_a_good_schema_has_one_good_line(database: Database) -> None:
    newest = migrations()[-1].version
    assert await findings(database) == [Finding(Level.OK, "schema", f"is of version {newest}")]


async def test_no_schema_is_an_error(empty_database: Database) -> None:
    assert texts(await findings(empty_database), Level.ERROR) == ["schema: is not there"]


async def test_an_old_and_a_newer_schema_are_errors(database: Database) -> None:
    newest = migrations()[-1].version
    await database.connection.execute("DELETE FROM mailmaps.schema_version WHERE version = $1", newest)
    found = await findings(database)
    assert texts(found, Level.ERROR) == [f"schema: is of version {newest - 1}, this mailmaps wants {newest}"]
    assert found[-1].remedy.startswith("mailmaps schema upgrade")
    await database.connection.execute("INSERT INTO mailmaps.schema_version VALUES (999, 'x')")
    assert (await findings(database))[-1].remedy == "upgrade mailmaps"


async def test_settings_that_drifted_are_named(database: Database) -> None:
    other = parse('[postfix]\nrecipient_delimiter = "-"\nowner_request_special = false\n')
    assert texts(await findings(database, other), Level.ERROR) == [
        "postfix.recipient_delimiter: is '+' in the database, '-' in the settings",
        "postfix.owner_request_special: is True in the database, False in the settings",
    ]
    ignoring = parse('[postfix]\nrecipient_delimiter = "+"\n[database]\nhonour_active = false\n')
    assert texts(await findings(database, ignoring)) == [
        "database.honour_active: is True in the database, False in the settings"
    ]


async def test_an_undecided_active_names_who_would_lose_his_mail(database: Database) -> None:
    await database.connection.execute(
        """UPDATE mailmaps.settings SET honour_active = NULL;
           INSERT INTO domains (gid, domain) VALUES (1, 'a.test');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox)
              VALUES ('sleeper', 1, 1, 'a@a.test', 'm')"""
    )
    assert texts(await findings(database)) == [
        "database.honour_active: is not decided: inactive accounts get mail",
        "user_accounts: sleeper is inactive, yet gets mail",
    ]


async def test_doubtful_rows_are_named(database: Database) -> None:
    await database.connection.execute(
        """INSERT INTO domains (gid, domain, transport) VALUES
              (1, 'a.test', 'virtual:'), (2, 'b test', 'virtual:'), (3, 'c.test', ''), (4, 'x@y', 'virtual:');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
              ('one', 1, 1, 'same@a.test', 'm', '1'), ('two', 2, 1, 'SAME@a.test', 'm', '1'),
              ('three', 3, 1, 'bare', 'm', '1'), ('four', 4, 1, 'fives@a.test', 'm', '1'),
              ('five', 5, 1, 'five@a.test', 'm', '1');
           INSERT INTO user_addresses VALUES ('one', 'x y@a.test'), ('one', 'naked'),
              ('one', 'z@foreign.test'),
              ('five', 'Fives@a.test'), ('one', '"x z"@a.test'), ('one', '@a.test');
           INSERT INTO mailmaps.domain_aliases VALUES ('A.test', 'c.test');
           INSERT INTO mailmaps.relays VALUES ('C.test');
           INSERT INTO mailmaps.forwards VALUES ('@elsewhere.test', '@c.test')"""
    )
    assert texts(await findings(database)) == [
        'domain_aliases: "A.test" is in domains too, and that counts',
        'domains: "b test" is no domain, so it is left out',
        'domains: "c.test" has an empty transport and gets no mail',
        'domains: "x@y" is no domain, so it is left out',
        'forwards: "@elsewhere.test" to "@c.test" answers nothing: that domain has no catch-all; '
        "a row in domain_aliases would make each of its addresses known",
        'relays: "C.test" is in domains or domain_aliases too, and that counts',
        'user_accounts: "same@a.test" is the email of one and two; mail goes to one of them',
        'user_accounts: email "bare" of three has no domain, so its mail goes astray',
        'user_accounts: email "fives@a.test" of four is an address of five, who gets the mail',
        'user_addresses: "naked" has no domain, so no lookup reaches it',
        'user_addresses: "x y@a.test" is not in external form, which is "x y"@a.test, '
        "so no lookup reaches it",
        'user_addresses: "z@foreign.test" is in a domain that is not ours',
    ]


async def test_a_flood_of_doubts_is_counted_and_hides_no_other(database: Database) -> None:
    await database.connection.execute(
        """INSERT INTO domains (gid, domain, transport) VALUES (1, 'a.test', '');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
              VALUES ('one', 1, 1, 'a@a.test', 'm', '1');
           INSERT INTO user_addresses SELECT 'one', 'bare' || i FROM generate_series(1, 500) i"""
    )
    found = texts(await findings(database))
    assert found[0] == 'domains: "a.test" has an empty transport and gets no mail'
    assert len(found) == 1 + LISTED + 1
    assert found[-1] == f"user_addresses: and {500 - LISTED} more, see the view mailmaps.doubtful_rows"


async def test_hashes_open_to_mailreader_are_named_with_the_cure(empty_database: Database) -> None:
    await make_howto(empty_database)
    await upgrade(empty_database.connection, Site(recipient_delimiter="+"), lambda _: None)
    found = await findings(empty_database)
    assert texts(found) == ["public.user_accounts: the role mailreader can read the password hashes"]
    await empty_database.connection.execute(found[-1].remedy)
    assert texts(await findings(empty_database)) == []
    async with empty_database.connect(empty_database.reader_dsn) as reader:
        uid = "SELECT uid FROM user_accounts WHERE email = 'info@lxtreme.nl'"
        assert await reader.fetchval(uid) == 5002, "the how-to's uids.cf goes on"


async def test_a_daemon_that_asks_as_the_owner_is_told(database: Database) -> None:
    found = await schema_findings(database.connection, PLUS)
    assert texts(found) == ["public.user_accounts: the role postgres can read the password hashes"]
    assert "mailreader" in found[-1].remedy


@pytest.mark.parametrize(
    ("columns", "level", "text"),
    [
        (("'a@b.test'::varchar", "''::text"), Level.ERROR, "its column key is of type character varying"),
        (("'a@b.test'::text", "1"), Level.ERROR, "its column value is of type integer"),
        (("'@b.test'::text", "NULL::text"), Level.OK, ""),
        (("NULL::text", "NULL::text"), Level.OK, ""),
    ],
)
async def test_a_view_that_breaks_the_contract_is_named(
    database: Database, columns: tuple[str, str], level: Level, text: str
) -> None:
    await database.connection.execute(
        f"CREATE SCHEMA site; GRANT USAGE ON SCHEMA site TO mailreader;"
        f"CREATE VIEW site.aliases AS SELECT {columns[0]} AS key, {columns[1]} AS value;"
        "GRANT SELECT ON site.aliases TO mailreader"
    )
    settings = parse(
        '[postfix]\nrecipient_delimiter = "+"\n[tables.virtual_alias_maps]\nsources = ["view:site.aliases"]\n'
    )
    named = [one for one in await findings(database, settings) if one.subject == "site.aliases"]
    assert [one.level for one in named] == ([] if level is Level.OK else [level])
    assert all(text in one.text for one in named)


async def test_a_site_with_views_of_its_own_needs_no_schema_of_ours(empty_database: Database) -> None:
    await empty_database.connection.execute(
        "CREATE VIEW own AS SELECT 'a@b'::text AS key, 'c@d'::text AS value;GRANT SELECT ON own TO mailreader"
    )
    tables = "".join(f'[tables.{name}]\nsources = ["view:public.own"]\n' for name in Settings().tables)
    assert await findings(empty_database, parse(tables)) == []


OWN = """
[postfix]
recipient_delimiter = "+"
[tables.virtual_alias_maps]
sources = ["view:site.aliases"]
depends_on = ["site.raw", "typo"]
"""
WATCH = "mailmaps schema watch, with a --dsn of the tables' owner"
DROPPED = "DROP TRIGGER mailmaps_watch_update ON mailmaps.relays"


async def test_what_is_not_watched_is_named(database: Database) -> None:
    await database.connection.execute(
        """CREATE SCHEMA site; GRANT USAGE ON SCHEMA site TO mailreader;
           CREATE TABLE site.raw (a text, b text);
           CREATE VIEW site.aliases AS SELECT a AS key, b AS value FROM site.raw;
           GRANT SELECT ON site.aliases TO mailreader"""
    )
    missing = Finding(Level.WARNING, "tables.virtual_alias_maps.depends_on typo", "there is no such table")
    text = "site.raw: not all changes are notified"
    found = [one for one in await findings(database, parse(OWN)) if one.level is not Level.OK]
    assert found == [
        Finding(Level.WARNING, "site.aliases", text, WATCH),
        Finding(Level.WARNING, "tables.virtual_alias_maps.depends_on site.raw", text, WATCH),
        missing,
    ]
    assert await watch(database.connection, parse(OWN), lambda _: None) == [
        "tables.virtual_alias_maps.depends_on: there is no typo"
    ]
    found = [one for one in await findings(database, parse(OWN)) if one.level is not Level.OK]
    assert found == [missing]


async def test_a_builtin_view_whose_triggers_are_gone_is_named(database: Database) -> None:
    await database.connection.execute(DROPPED)
    text = "mailmaps.relays: not all changes are notified"
    found = [one for one in await findings(database) if one.level is not Level.OK]
    assert found == [
        Finding(Level.WARNING, view, text, "mailmaps schema upgrade, with a --dsn of the tables' owner")
        for view in ("mailmaps.relay_domains", "mailmaps.transport_maps")
    ]
    without = parse('[postfix]\nrecipient_delimiter = "+"\n[mirror]\nenabled = false\n')
    assert [one for one in await findings(database, without) if one.level is not Level.OK] == []
