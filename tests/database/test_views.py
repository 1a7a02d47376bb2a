"""What the views answer, asked as the daemon asks them: by `mailreader`, key by key and as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest
import pytest_asyncio
from tests.conftest import Connection, Database

from mailmaps.maps.tables import DEFAULT_TABLES

# Three domains of ours; every account's username says what it is for.
WORLD = """
INSERT INTO domains (gid, domain, transport) VALUES
   (1, 'One.test', 'virtual:'), (2, 'two.test', 'smtp:[inside]'), (3, 'three.test', '');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
   ('jan',      11, 1, 'Jan@one.test',        'one/jan',    '1'),
   ('gone',     12, 1, 'gone@one.test',       'one/gone',   '0'),
   ('unlisted', 13, 1, 'Unlisted@one.test',   'one/un',     't'),
   ('asleep',   14, 1, 'asleep@one.test',     'one/asleep', 'n'),
   ('outside',  15, 1, 'me@elsewhere.test',   'one/out',    'y'),
   ('twin_b',   16, 2, 'twins@two.test',      'two/b',      '1'),
   ('twin_a',   17, 2, 'TWINS@two.test',      'two/a',      '1'),
   ('twin_0',   18, 2, 'twins@two.test',      'two/0',      '0'),
   ('borrower', 19, 2, 'jan@one.test',        'two/bo',     '1'),
   ('leaner',   20, 2, 'gone@one.test',       'two/le',     '1'),
   ('quoted',   21, 1, '"jan willem"@one.test', 'one/q',    '1'),
   ('straße',   22, 1, 'STRASSE@one.test',    'one/s',      '1');
INSERT INTO user_addresses (username, alias) VALUES
   ('jan', 'Jan@one.test'), ('jan', 'J.W@ONE.test'), ('jan', '@two.test'),
   ('gone', 'gone@one.test'), ('gone', 'old@one.test'),
   ('outside', 'away@one.test'), ('twin_a', 'a@two.test'), ('borrower', 'b@two.test'),
   ('leaner', 'l@two.test'), ('quoted', '"jan willem"@one.test'), ('straße', 'Straße@one.test');
INSERT INTO mailmaps.forwards (address, target) VALUES
   ('Team@one.test', 'jan@one.test'), ('Team@one.test', 'out@elsewhere.test'),
   ('half@one.test', 'gone@one.test'), ('half@one.test', 'J.W@one.test'),
   ('dead@one.test', 'gone@one.test'), ('dead@one.test', 'asleep@one.test'),
   ('copy@one.test', 'j.w@one.test'),
   ('jan@one.test', 'archive@elsewhere.test'), ('old@one.test', 'new@elsewhere.test'),
   ('ext@one.test', 'jan+Lists@one.test'), ('extdead@one.test', 'gone+x@one.test'),
   ('nobody@one.test', 'missing@one.test'), ('caught@one.test', 'anything@two.test'),
   ('ring1@one.test', 'ring2@one.test'), ('ring2@one.test', 'ring1@one.test'),
   ('open@one.test', 'ring1@one.test'),
   ('ring3@one.test', 'ring1@one.test'), ('ring3@one.test', 'jan@one.test'),
   ('jan@three.test', '@one.test'), ('gone@three.test', '@one.test'), ('x@three.test', '@elsewhere.test'),
   ('@three.test', '@one.test'),
   ('chain@one.test', 'Team@one.test'), ('toalias@one.test', 'jan@alias.test');
INSERT INTO mailmaps.domain_aliases VALUES ('Alias.test', 'One.test'), ('two-alias.test', 'two.test');
INSERT INTO mailmaps.relays VALUES
   ('Relay.test', 'relay:[mx]'), ('two.test', 'smtp:wrong'), ('alias.test', 'x:');
INSERT INTO mailmaps.relay_recipients VALUES ('Known@relay.test'), ('@open.test');
"""

JAN = "Jan@one.test"
NOBODY: list[str] = []

# key -> the values; NOBODY: known and answers nothing; a key that is missing here has no row at all.
ALIASES = {
    "jan@one.test": [JAN, "archive@elsewhere.test"],
    "j.w@one.test": [JAN],
    "@two.test": [JAN],
    "gone@one.test": NOBODY,
    "old@one.test": NOBODY,
    "unlisted@one.test": ["Unlisted@one.test"],
    "asleep@one.test": NOBODY,
    "away@one.test": ["me@elsewhere.test"],
    "me@elsewhere.test": ["me@elsewhere.test"],
    "twins@two.test": ["TWINS@two.test"],
    "a@two.test": ["TWINS@two.test"],
    "b@two.test": ["jan@one.test"],
    "l@two.test": NOBODY,
    '"jan willem"@one.test': ['"jan willem"@one.test'],
    "strasse@one.test": ["STRASSE@one.test"],
    "team@one.test": ["jan@one.test", "out@elsewhere.test"],
    "half@one.test": ["J.W@one.test"],
    "dead@one.test": NOBODY,
    "copy@one.test": ["j.w@one.test"],
    "ext@one.test": ["jan+Lists@one.test"],
    "extdead@one.test": NOBODY,
    "nobody@one.test": NOBODY,
    "caught@one.test": ["anything@two.test"],
    "ring1@one.test": NOBODY,
    "ring2@one.test": NOBODY,
    "open@one.test": NOBODY,
    "ring3@one.test": ["jan@one.test"],
    "jan@three.test": ["@one.test"],
    "gone@three.test": NOBODY,
    "x@three.test": ["@elsewhere.test"],
    "@three.test": NOBODY,
    "chain@one.test": ["Team@one.test"],
    "toalias@one.test": ["jan@alias.test"],
    "@two-alias.test": ["@two.test"],
    "twins@two-alias.test": ["twins@two.test"],
    "a@two-alias.test": ["a@two.test"],
    "b@two-alias.test": ["b@two.test"],
    "l@two-alias.test": NOBODY,
}
ALIASES |= {
    key.replace("@one.test", "@alias.test"): [key] if values else NOBODY
    for key, values in ALIASES.items()
    if key.endswith("@one.test")
}

MAILBOXES = {
    "jan@one.test": "one/jan/",
    "j.w@one.test": "one/jan/",
    "@two.test": "one/jan/",
    "gone@one.test": None,
    "old@one.test": None,
    "unlisted@one.test": "one/un/",
    "asleep@one.test": None,
    "away@one.test": "one/out/",
    "me@elsewhere.test": "one/out/",
    "twins@two.test": "two/a/",
    "a@two.test": "two/a/",
    "b@two.test": "two/bo/",
    "l@two.test": "two/le/",
    '"jan willem"@one.test': "one/q/",
    "strasse@one.test": "one/s/",
}

OWNERS = {
    "jan@one.test": {"jan"},
    "j.w@one.test": {"jan"},
    "@two.test": {"jan"},
    "gone@one.test": {"!inactive"},
    "old@one.test": {"!inactive"},
    "unlisted@one.test": {"unlisted"},
    "asleep@one.test": {"!inactive"},
    "away@one.test": {"outside"},
    "me@elsewhere.test": {"outside"},
    "twins@two.test": {"twin_a", "twin_b", "!inactive"},
    "a@two.test": {"twin_a"},
    "b@two.test": {"borrower"},
    "l@two.test": {"leaner"},
    '"jan willem"@one.test': {"quoted"},
    "strasse@one.test": {"straße"},
}
# A forward is whose mailbox it reaches, and known in any case.
OWNERS |= {
    "team@one.test": {"jan"},
    "half@one.test": {"!inactive", "jan"},
    "dead@one.test": {"!inactive"},
    "copy@one.test": {"jan"},
    "ext@one.test": {"jan"},
    "extdead@one.test": {"!inactive"},
    "nobody@one.test": set(),
    "caught@one.test": {"jan"},
    "ring1@one.test": set(),
    "ring2@one.test": set(),
    "open@one.test": set(),
    "ring3@one.test": {"jan"},
    "jan@three.test": {"jan"},
    "gone@three.test": {"!inactive"},
    "x@three.test": set(),
    "@three.test": set(),
    "chain@one.test": {"jan"},
    "toalias@one.test": {"jan"},
}
OWNERS |= {
    key.replace("@one.test", "@alias.test").replace("@two.test", "@two-alias.test"): owners
    for key, owners in OWNERS.items()
    if not key.endswith(("@elsewhere.test", "@three.test"))
}


@pytest_asyncio.fixture
async def world(database: Database) -> Database:
    """The rows above."""
    await database.connection.execute(WORLD)
    return database


async def listing(connection: Connection, table: str) -> dict[str, list[str | None]]:
    """The whole view, values sorted and each once, as the daemon would read it."""
    found: dict[str, set[str | None]] = {}
    for key, value in await connection.fetch(f"SELECT key, value FROM mailmaps.{table}"):
        found.setdefault(key, set()).add(value)
    return {key: sorted(values, key=str) for key, values in found.items()}


def live(values: Sequence[str | None]) -> list[str]:
    """NULL rows beside others do not count."""
    return [value for value in values if value is not None]


async def test_aliases(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        found = await listing(reader, "virtual_alias_maps")
    assert {key: live(values) for key, values in found.items()} == {
        key: sorted(values) for key, values in ALIASES.items()
    }


async def test_mailbox_uid_and_gid_have_one_value_over_the_same_keys(world: Database) -> None:
    tables = ("virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps")
    async with world.connect(world.reader_dsn) as reader:
        rows = {table: await reader.fetch(f"SELECT key, value FROM mailmaps.{table}") for table in tables}
    assert {row["key"]: row["value"] for row in rows[tables[0]]} == MAILBOXES
    uids = {
        f"one/{name}/": uid
        for name, uid in {"jan": "11", "un": "13", "out": "15", "q": "21", "s": "22"}.items()
    }
    uids |= {"two/a/": "17", "two/bo/": "19", "two/le/": "20"}
    assert {row["key"]: row["value"] for row in rows[tables[1]]} == {
        key: mailbox and uids[mailbox] for key, mailbox in MAILBOXES.items()
    }
    assert {row["key"]: row["value"] for row in rows[tables[2]]} == {
        key: mailbox and {"one": "1", "two": "2"}[mailbox[:3]] for key, mailbox in MAILBOXES.items()
    }
    assert {len(found) for found in rows.values()} == {len(MAILBOXES)}


async def test_sender_logins(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        found = await listing(reader, "smtpd_sender_login_maps")
    assert {key: set(live(owners)) for key, owners in found.items()} == OWNERS


async def test_domains_transports_and_relays(world: Database) -> None:
    domains = {
        "one.test": ["virtual:"],
        "alias.test": ["virtual:"],
        "two.test": ["smtp:[inside]"],
        "two-alias.test": ["smtp:[inside]"],
        "three.test": [None],
    }
    async with world.connect(world.reader_dsn) as reader:
        assert await listing(reader, "virtual_mailbox_domains") == domains
        assert await listing(reader, "transport_maps") == domains | {"relay.test": ["relay:[mx]"]}
        assert set(await listing(reader, "relay_domains")) == {"relay.test"}
        assert await listing(reader, "relay_recipient_maps") == {
            "known@relay.test": ["OK"],
            "@open.test": ["OK"],
        }


async def test_asked_by_key_a_view_says_what_it_lists(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        for table in (*DEFAULT_TABLES, "sender_rights"):
            whole = await listing(reader, table)
            for key in (*whole, "unknown@one.test", "one", ""):
                rows = await reader.fetch(
                    f"SELECT key, value FROM mailmaps.{table} WHERE key = ANY ($1::text[])", [key, "x"]
                )
                assert sorted({row["value"] for row in rows}, key=str) == whole.get(key, []), (table, key)


async def test_ignored_active_stops_nobody(world: Database) -> None:
    for value in (False, None):
        await world.connection.execute("UPDATE mailmaps.settings SET honour_active = $1", value)
        found = await listing(world.connection, "virtual_alias_maps")
        assert found["gone@one.test"] == ["gone@one.test"]
        assert found["old@one.test"] == ["gone@one.test", "new@elsewhere.test"]
        assert found["dead@one.test"] == ["asleep@one.test", "gone@one.test"]
        assert "!inactive" not in str(await listing(world.connection, "smtpd_sender_login_maps"))


async def test_an_inactive_address_never_falls_through_to_the_catch_all(world: Database) -> None:
    await world.connection.execute("INSERT INTO mailmaps.forwards VALUES ('@one.test', 'jan@one.test')")
    found = await listing(world.connection, "virtual_alias_maps")
    assert found["gone@one.test"] == [None]
    assert found["gone@alias.test"] == [None]
    assert found["nobody@one.test"] == ["missing@one.test"], "its target is now caught"


@pytest.mark.parametrize(
    ("delimiters", "special", "arrives"),
    [
        ("", True, set()),
        ("+", True, {"jan+x", "jan+", "jan+a-b"}),
        ("-", True, {"jan-x"}),
        ("-", False, {"jan-x", "jan-request", "owner-jan"}),
        ("+-", True, {"jan+x", "jan+", "jan+a-b", "jan-x"}),
        ("-+", False, {"jan+x", "jan+", "jan+a-b", "jan-x", "jan-request", "owner-jan"}),
    ],
)
async def test_a_target_with_an_extension_is_split_as_postfix_splits_it(
    world: Database, delimiters: str, special: bool, arrives: set[str]
) -> None:
    await world.connection.execute(
        "UPDATE mailmaps.settings SET recipient_delimiter = $1, owner_request_special = $2",
        delimiters,
        special,
    )
    await world.connection.execute("INSERT INTO user_addresses VALUES ('jan', 'owner@one.test')")
    names = [
        "jan+x",
        "jan+",
        "jan+a-b",
        "jan-x",
        "jan-request",
        "owner-jan",
        "+jan",
        "-jan",
        "postmaster",
        "nobody+x",
    ]
    found = {
        name
        for name in names
        if await world.connection.fetchval("SELECT mailmaps.can_receive($1)", f"{name}@one.test")
    }
    assert found == arrives


async def test_an_extension_within_quotes(world: Database) -> None:
    for address, expected in {
        '"jan willem+x y"@one.test': True,
        '"jan willem"@one.test': True,
        '"jan+x y"@one.test': True,
        '"x y"@one.test': False,
        "unlisted@one.test": True,
        "x@nowhere.test": True,
        "bare": True,
        "@one.test": False,
        "@two.test": True,
        "@elsewhere.test": True,
    }.items():
        assert await world.connection.fetchval("SELECT mailmaps.can_receive($1)", address) is expected, (
            address
        )


async def test_mailreader_reads_the_views_and_no_table(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        for relation in ("postfix_aliases", "postfix_mailboxes", "mailmaps.doubtful_rows"):
            await reader.fetch(f"SELECT * FROM {relation}")
        for relation in ("user_accounts", "user_addresses", "mailmaps.accounts", "mailmaps.forwards"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.fetch(f"SELECT * FROM {relation}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("SELECT mailmaps.write_domain_alias_keys(NULL)")


async def test_a_hostile_search_path_does_not_catch_us(world: Database) -> None:
    await world.connection.execute(
        """CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO mailreader;
           CREATE FUNCTION hostile.left(text, integer) RETURNS text LANGUAGE sql RETURN 1 / 0;
           CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql RETURN 1 / 0"""
    )
    async with world.connect(world.reader_dsn) as reader:
        await reader.execute(
            """CREATE TEMP TABLE domains AS SELECT 'one.test' AS domain;
               SET search_path = hostile, pg_temp, public, pg_catalog"""
        )
        found = await listing(reader, "virtual_alias_maps")
    assert live(found["ext@one.test"]) == ["jan+Lists@one.test"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("x y@one.test", r'is not in external form, which is "x y"@one.test'),
        ('"jan"@one.test', r"is not in external form, which is jan@one.test"),
        ("a..b@one.test", r'external form, which is "a..b"@one.test'),
        ("a@b@one.test", r'external form, which is "a@b"@one.test'),
        ("plain", "has no domain"),
        ("plain@", "has no domain"),
        ("", "has no domain"),
        ("a\tb@one.test", "holds a control character"),
        ("a@one.test\n", "holds a control character"),
        ("a@one test", "has a domain that is none"),
        ("Jan <jan@one.test>", "has a domain that is none"),
        ("jan@one.test, a@one.test", "external form"),
        ("x" * 251 + "@a.b", "is longer than 254 bytes"),
        ("ß" * 125 + "@a.bc", "is longer than 254 bytes"),
    ],
)
async def test_an_address_no_lookup_could_use_is_refused_on_write(
    database: Database, address: str, problem: str
) -> None:
    for statement in (
        "INSERT INTO mailmaps.forwards VALUES ($1, 'a@b.test')",
        "INSERT INTO mailmaps.forwards VALUES ('a@b.test', $1)",
        "INSERT INTO mailmaps.relay_recipients VALUES ($1)",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match=problem):
            await database.connection.execute(statement, address)


@pytest.mark.parametrize(
    "address",
    [
        '"x y"@a.test',
        '"a@b"@a.test',
        r'"a\"b"@a.test',
        "jörg@a.test",
        "@a.test",
        "x@[192.0.2.1]",
        "a" * 247 + "@a.test",
    ],
)
async def test_any_other_address_is_taken(database: Database, address: str) -> None:
    await database.connection.execute("INSERT INTO mailmaps.forwards VALUES ($1, $1)", address)


@pytest.mark.parametrize("domain", ["", ".", "a b", "a@b", "*", "a.", "a..b", "x" * 254, "a\n"])
async def test_what_is_no_domain_is_refused_on_write(database: Database, domain: str) -> None:
    await database.connection.execute("INSERT INTO domains (gid, domain) VALUES (1, 'one.test')")
    for statement in (
        "INSERT INTO mailmaps.relays VALUES ($1)",
        "INSERT INTO mailmaps.domain_aliases VALUES ($1, 'one.test')",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="is no domain|control character|253 bytes"):
            await database.connection.execute(statement, domain)


@pytest.mark.parametrize("username", ["!inactive", "!", "a b", "a,b", "a\tb", ""])
async def test_a_username_that_no_sender_map_can_name_is_refused(database: Database, username: str) -> None:
    await database.connection.execute("INSERT INTO domains (gid, domain) VALUES (1, 'one.test')")
    with pytest.raises(asyncpg.CheckViolationError, match="user_accounts_username_can_own_a_sender"):
        await database.connection.execute(
            "INSERT INTO user_accounts (username, uid, gid, email, mailbox) VALUES ($1, 1, 1, 'a@b', 'm')",
            username,
        )


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO domains (gid, domain) VALUES (9, 'ONE.test')",
        "INSERT INTO user_addresses VALUES ('gone', 'JAN@one.test')",
        "INSERT INTO user_addresses VALUES ('gone', 'strasse@one.test')",
        "INSERT INTO mailmaps.domain_aliases VALUES ('ALIAS.test', 'two.test')",
        "INSERT INTO mailmaps.relays VALUES ('RELAY.test')",
        "INSERT INTO mailmaps.relay_recipients VALUES ('KNOWN@relay.test')",
    ],
)
async def test_a_second_spelling_is_refused(world: Database, statement: str) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.connection.execute(statement)


async def test_every_function_pins_where_it_looks_names_up(database: Database) -> None:
    """Functions in plain SQL have their names resolved when they are made; the others must say where."""
    rows = await database.connection.fetch(
        """SELECT p.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
           WHERE p.pronamespace = 'mailmaps'::regnamespace AND p.prosqlbody IS NULL
             AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'"""
    )
    assert [row["proname"] for row in rows] == []
