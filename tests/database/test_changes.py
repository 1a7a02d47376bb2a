"""What each kind of change notifies: these keys and tables, and of too many the group."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from tests.conftest import Connection, Database
from tests.database.site import make_older

from mailmaps.database.migrations import Site, upgrade

ROWS = """
INSERT INTO domains (gid, domain) VALUES (1, 'a.test'), (2, 'b.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
   ('anna', 1, 1, 'Anna@a.test', 'a', '1'), ('bob', 2, 2, 'bob@b.test', 'b', '1'),
   ('cara', 3, 1, 'cara@c.test', 'c', '1'), ('dave', 4, 1, 'dave@a.test', 'd', '0');
INSERT INTO user_addresses VALUES ('anna', 'anna@a.test'), ('anna', 'Info@a.test'), ('bob', 'bob@b.test'),
   ('cara', 'cara@a.test'), ('dave', 'cara@c.test'), ('dave', '"john doe"@a.test');
INSERT INTO mailmaps.forwards VALUES ('team@a.test', 'anna@a.test'), ('team@a.test', 'x@out.test'),
   ('all@a.test', 'team@a.test'), ('list@a.test', 'anna+list@a.test'),
   ('quoted@a.test', '"john doe+x"@a.test'), ('spaced@a.test', '"anna+a b"@a.test'),
   ('@b.test', 'bob@b.test'), ('any@a.test', 'any@b.test'), ('later@a.test', 'y@c.test'),
   ('@old.test', '@a.test'), ('past@a.test', 'anna@old.test'), ('past2@a.test', 'anna+z@old.test');
INSERT INTO mailmaps.domain_aliases VALUES ('al.test', 'b.test');
INSERT INTO domains (gid, domain) VALUES (3, 'old.test');
INSERT INTO mailmaps.relays VALUES ('r.test');
INSERT INTO mailmaps.relay_recipients VALUES ('X@r.test');
"""
EMPTY = """
TRUNCATE domains, user_accounts, user_addresses, mailmaps.forwards, mailmaps.domain_aliases, mailmaps.relays,
   mailmaps.relay_recipients, mailmaps.rights;
UPDATE mailmaps.settings SET honour_active = true;
"""
# Whoever depends on anna's mailbox.
ANNA = {"anna@a.test", "info@a.test", "team@a.test", "all@a.test", "list@a.test", "spaced@a.test"} | {
    "past@a.test",
    "past2@a.test",
}

Keys = dict[str, "set[str] | None"]


@dataclass
class Heard:
    """Payloads as they came; `connection` writes and listens."""

    connection: Connection
    payloads: list[str] = field(default_factory=list)

    async def after(self, *statements: str) -> tuple[Keys, set[str]]:
        """Keys by group (None: the group) and relations notified by one transaction."""
        self.payloads.clear()
        async with self.connection.transaction():
            for statement in statements:
                await self.connection.execute(statement)
        return self.told()

    async def begin_anew(self) -> None:
        """The rows as they were."""
        await self.connection.execute(EMPTY + ROWS)

    def told(self) -> tuple[Keys, set[str]]:
        assert all(len(payload.encode()) < 8000 for payload in self.payloads)
        told = [json.loads(payload) for payload in self.payloads]
        keys: Keys = {}
        for change in told:
            if "of" in change:
                assert change.keys() <= {"of", "keys"}
                if "keys" not in change:
                    keys[change["of"]] = None
                elif (known := keys.setdefault(change["of"], set())) is not None:
                    known.update(change["keys"])
        return keys, {change["relation"] for change in told if "relation" in change}


@pytest_asyncio.fixture
async def heard(database: Database) -> AsyncIterator[Heard]:
    """With the rows above."""
    await database.connection.execute(ROWS)
    found = Heard(database.connection)

    def told(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        found.payloads.append(str(payload))

    await database.connection.add_listener("mailmaps", told)
    yield found
    await database.connection.remove_listener("mailmaps", told)


EVE = "INSERT INTO user_accounts (username, uid, gid, email, mailbox) VALUES ('eve', 5, 1, 'Eve@a.test', 'e')"
ADDRESSES = [
    ("UPDATE user_accounts SET active = '0' WHERE username = 'anna'", ANNA),
    ("UPDATE user_accounts SET mailbox = 'x' WHERE username = 'anna'", ANNA),
    ("UPDATE user_accounts SET uid = 9 WHERE username = 'bob'", {"bob@b.test", "bob@al.test", "@b.test",
                                                                 "@al.test", "any@a.test"}),
    ("UPDATE user_accounts SET password = 'x', quota = 7", set()),
    ("UPDATE user_accounts SET mailbox = mailbox", set()),
    (
        EVE,
        {"eve@a.test"},
    ),
    ("UPDATE user_accounts SET email = 'new@a.test' WHERE username = 'dave'",
     {"new@a.test", "dave@a.test", "cara@c.test", "cara@a.test", '"john doe"@a.test', "quoted@a.test"}),
    ("INSERT INTO user_addresses VALUES ('anna', 'More@a.test')", {"more@a.test"}),
    ("INSERT INTO user_addresses VALUES ('anna', 'any@b.test')", {"any@b.test", "any@al.test", "any@a.test"}),
    ("INSERT INTO user_addresses VALUES ('anna', 'y@c.test')", {"y@c.test", "later@a.test"}),
    ("UPDATE user_addresses SET username = 'bob' WHERE alias = 'Info@a.test'", {"info@a.test"}),
    ("UPDATE user_addresses SET alias = 'info2@a.test' WHERE alias = 'Info@a.test'",
     {"info@a.test", "info2@a.test"}),
    # The extension in quotes, and a base that needs them.
    ("""DELETE FROM user_addresses WHERE alias = '"john doe"@a.test'""",
     {'"john doe"@a.test', "quoted@a.test"}),
    ("INSERT INTO mailmaps.forwards VALUES ('Sub@a.test', 'y@out.test')", {"sub@a.test"}),
    ("UPDATE mailmaps.forwards SET target = 'bob@b.test' WHERE target = 'x@out.test'",
     {"team@a.test", "all@a.test"}),
    ("UPDATE mailmaps.forwards SET target = target", set()),
    ("DELETE FROM mailmaps.forwards WHERE address = '@b.test'", {"@b.test", "@al.test", "any@a.test"}),
    ("INSERT INTO mailmaps.forwards VALUES ('@a.test', 'x@out.test')",
     {"@a.test", "@old.test"} | ANNA - {"anna@a.test", "info@a.test"} | {"quoted@a.test"}),
]  # fmt: skip


async def test_a_change_names_the_keys_that_depend_on_it(heard: Heard) -> None:
    for statement, keys in ADDRESSES:
        await heard.begin_anew()
        told, relations = await heard.after(statement)
        assert told == ({"addresses": keys} if keys else {}), statement
        table = re.sub(r"^(INSERT INTO|DELETE FROM|UPDATE) (\S+) .*", r"\2", statement)
        named = {table if "." in table else f"public.{table}"}
        assert relations - {"mailmaps.domain_alias_keys"} == named, statement


DOMAINS: list[tuple[str, Keys]] = [
    ("INSERT INTO domains (gid, domain) VALUES (9, 'New.test')",
     {"domains": {"new.test"}, "addresses": {"new.test"}}),
    # It becomes ours: targets there, and who has his email there while another has it listed.
    ("INSERT INTO domains (gid, domain) VALUES (9, 'c.test')",
     {"domains": {"c.test"}, "addresses": {"c.test", "later@a.test", "cara@a.test"}}),
    ("INSERT INTO mailmaps.domain_aliases VALUES ('c.test', 'old.test')",
     {"domains": {"c.test"}, "addresses": {"c.test", "later@a.test", "cara@a.test", "@c.test"}}),
    ("UPDATE domains SET transport = 'smtp:' WHERE gid = 2", {"domains": {"b.test", "al.test"}}),
    ("UPDATE domains SET domain = 'A.test' WHERE gid = 1", {"domains": {"a.test"}}),
    ("UPDATE domains SET gid = 7 WHERE gid = 3", {}),
    ("DELETE FROM mailmaps.domain_aliases", {"domains": {"al.test"},
                                             "addresses": {"al.test", "bob@al.test", "@al.test"}}),
    ("UPDATE mailmaps.relays SET transport = 'relay:[mx]'", {"domains": {"r.test"}}),
    ("DELETE FROM mailmaps.relays", {"domains": {"r.test"}}),
    ("UPDATE mailmaps.relay_recipients SET address = '@r.test'",
     {"relay_recipients": {"x@r.test", "@r.test"}}),
    ("UPDATE mailmaps.settings SET honour_active = false", {"addresses": None}),
    ("UPDATE mailmaps.settings SET honour_active = true", {}),
    ("TRUNCATE mailmaps.relays", {"domains": None}),
    ("TRUNCATE mailmaps.relay_recipients", {"relay_recipients": None}),
    ("TRUNCATE user_addresses", {"addresses": None}),
    ("TRUNCATE mailmaps.forwards", {"addresses": None}),
    ("TRUNCATE mailmaps.domain_aliases", {"domains": None, "addresses": None}),
    ("TRUNCATE domains CASCADE", {"domains": None, "addresses": None}),
    ("UPDATE mailmaps.relays SET transport = 'x' WHERE domain = 'nowhere'", {}),
]  # fmt: skip


async def test_domains_relays_and_settings(heard: Heard) -> None:
    for statement, keys in DOMAINS:
        await heard.begin_anew()
        assert (await heard.after(statement))[0] == keys, statement


async def test_a_domain_renamed_with_its_alias(heard: Heard) -> None:
    told, relations = await heard.after("UPDATE domains SET domain = 'b2.test' WHERE gid = 2")
    assert told == {"domains": {"b.test", "b2.test", "al.test"}, "addresses": None}
    assert relations == {"public.domains", "mailmaps.domain_aliases", "mailmaps.domain_alias_keys"}


async def test_a_statement_that_finds_no_row_says_nothing(heard: Heard) -> None:
    assert await heard.after(
        "DELETE FROM user_addresses WHERE alias = 'no'",
        "UPDATE user_accounts SET active = '0' WHERE username = 'no'",
        "INSERT INTO domains SELECT 1, 'x' WHERE false",
    ) == ({}, set())


async def test_one_table_is_named_once_a_transaction(heard: Heard) -> None:
    await heard.after("UPDATE user_accounts SET quota = 1", "UPDATE user_accounts SET quota = 2")
    assert heard.payloads == ['{"relation": "public.user_accounts"}']


@pytest.mark.parametrize(("rows", "named"), [(500, True), (501, False)])
async def test_many_keys_are_named_up_to_a_limit(heard: Heard, rows: int, named: bool) -> None:
    told, _ = await heard.after(
        f"INSERT INTO mailmaps.relay_recipients SELECT i || '@r.test' FROM generate_series(1, {rows}) i"
    )
    assert told == {"relay_recipients": {f"{i}@r.test" for i in range(1, 501)} if named else None}


@pytest.mark.parametrize(("rows", "named"), [(400, True), (600, False), (3000, False)])
async def test_many_dependents_are_named_up_to_a_limit(heard: Heard, rows: int, named: bool) -> None:
    await heard.after(
        "INSERT INTO mailmaps.forwards SELECT 'f' || i || '@a.test', 'anna@a.test' "
        f"FROM generate_series(1, {rows}) i"
    )
    told, _ = await heard.after("UPDATE user_accounts SET active = '0' WHERE username = 'anna'")
    assert told == {"addresses": ANNA | {f"f{i}@a.test" for i in range(1, rows + 1)} if named else None}


async def test_many_keys_of_one_transaction_are_named_up_to_a_limit(heard: Heard) -> None:
    await heard.connection.execute(
        "CREATE OR REPLACE FUNCTION mailmaps.most_keys_together() RETURNS integer IMMUTABLE RETURN 3"
    )
    insert = "INSERT INTO mailmaps.relay_recipients VALUES ('{}@r.test')"
    told, _ = await heard.after(*(insert.format(word) for word in "abc"))
    assert told == {"relay_recipients": {"a@r.test", "b@r.test", "c@r.test"}}
    told, _ = await heard.after(*(insert.format(word) for word in "defghi"))
    assert told == {"relay_recipients": None}
    assert len([payload for payload in heard.payloads if "keys" in payload]) == 3, (
        "and no more after the group"
    )
    told, _ = await heard.after(insert.format("j"))
    assert told == {"relay_recipients": {"j@r.test"}}, "the next transaction begins anew"


async def test_a_savepoint_taken_back_takes_the_group_back(heard: Heard) -> None:
    many = "INSERT INTO mailmaps.relay_recipients SELECT i || '@r.test' FROM generate_series(1, 501) i"
    told, _ = await heard.after(
        "SAVEPOINT s", many, "ROLLBACK TO s", "INSERT INTO mailmaps.relay_recipients VALUES ('one@r.test')"
    )
    assert told == {"relay_recipients": {"one@r.test"}}


async def test_payloads_of_multi_byte_keys_keep_their_limit(heard: Heard) -> None:
    keys = {f"{i:03}{'ü' * 110}@a.test" for i in range(300)}
    insert = "INSERT INTO mailmaps.forwards SELECT unnest($1::text[]), 'x@out.test'"
    await heard.connection.execute(insert, sorted(keys))
    assert heard.told()[0] == {"addresses": keys}
    assert len(heard.payloads) > 10


@pytest.mark.parametrize("key", ["x" * 1980, "ü" * 1000 + "@a.test", '"' * 1200])
async def test_a_key_that_fits_no_payload_is_not_named(heard: Heard, key: str) -> None:
    await heard.connection.execute("INSERT INTO user_addresses VALUES ('anna', $1)", key)
    told = heard.told()[0]
    assert told == {"addresses": {key} if len(key) == 1980 else None}


async def test_no_role_of_a_session_keeps_it_quiet(heard: Heard) -> None:
    told, relations = await heard.after(
        "SET LOCAL session_replication_role = replica",
        "UPDATE user_accounts SET active = '0' WHERE username = 'anna'",
        "DELETE FROM mailmaps.relays",
        "TRUNCATE mailmaps.relay_recipients",
    )
    assert told == {"addresses": ANNA, "domains": {"r.test"}, "relay_recipients": None}
    assert relations == {"public.user_accounts", "mailmaps.relays", "mailmaps.relay_recipients"}


async def test_a_role_with_rights_on_the_tables_alone_can_write(heard: Heard) -> None:
    await heard.connection.execute(
        """DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'writer') THEN CREATE ROLE writer;
                 END IF; END $$;
           GRANT USAGE ON SCHEMA mailmaps TO writer;
           GRANT SELECT, INSERT, UPDATE, DELETE ON domains, user_accounts, user_addresses TO writer;
           GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE
              ON mailmaps.forwards, mailmaps.domain_aliases, mailmaps.relays TO writer"""
    )
    told, _ = await heard.after(
        "SET LOCAL ROLE writer",
        EVE,
        "INSERT INTO user_addresses VALUES ('eve', 'e2@a.test')",
        "UPDATE mailmaps.forwards SET target = 'e2@a.test' WHERE target = 'x@out.test'",
        "DELETE FROM domains WHERE domain = 'no'",
        "TRUNCATE mailmaps.relays",
    )
    assert told == {"addresses": {"eve@a.test", "e2@a.test", "team@a.test", "all@a.test"}, "domains": None}


@pytest.mark.parametrize("version", [9, 10])
async def test_an_older_schema_gets_it_by_the_upgrade(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    await make_older(empty_database, monkeypatch, version)
    found = Heard(empty_database.connection)
    await empty_database.connection.execute(ROWS)
    await upgrade(empty_database.connection, Site(recipient_delimiter="+"), lambda _: None)
    await found.connection.add_listener("mailmaps", lambda *words: found.payloads.append(str(words[-1])))
    told, _ = await found.after("UPDATE user_accounts SET active = '0' WHERE username = 'anna'")
    assert told == {"addresses": ANNA}
    await found.connection.reset()


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE user_accounts DISABLE TRIGGER ALL",
        "ALTER TABLE user_accounts ENABLE TRIGGER mailmaps_watch_update",
        "DROP TRIGGER mailmaps_watch_update ON user_accounts",
    ],
)
async def test_an_upgrade_puts_triggers_back(heard: Heard, damage: str) -> None:
    await heard.connection.execute(damage)
    await upgrade(heard.connection, Site(recipient_delimiter="+"), lambda _: None)
    told, _ = await heard.after(
        "SET LOCAL session_replication_role = replica",
        "UPDATE user_accounts SET active = '0' WHERE username = 'anna'",
    )
    assert told == {"addresses": ANNA}


async def test_two_at_once_are_put_together_by_who_reads(database: Database, heard: Heard) -> None:
    """Neither transaction sees the other's row; `depending_keys`, asked afterwards by the daemon, does."""
    async with database.connect() as other, database.connect(database.reader_dsn) as reader:
        first = other.transaction()
        await first.start()
        await other.execute("INSERT INTO mailmaps.forwards VALUES ('new@a.test', 'info@a.test')")
        second = heard.connection.transaction()
        await second.start()
        heard.payloads.clear()
        await heard.connection.execute("UPDATE user_accounts SET active = '0' WHERE username = 'anna'")
        await first.commit()
        await second.commit()
        named = [set(json.loads(payload)["keys"]) for payload in heard.payloads if "keys" in payload]
        assert named == [{"new@a.test"}, ANNA]
        found = await reader.fetchval("SELECT mailmaps.depending_keys('addresses', $1)", sorted(ANNA))
        assert set(found) == ANNA | {"new@a.test"}


async def test_depending_keys_of_each_group(heard: Heard) -> None:
    ask = "SELECT mailmaps.depending_keys($1, $2)"
    assert await heard.connection.fetchval(ask, "relay_recipients", ["x@r.test"]) == ["x@r.test"]
    assert set(await heard.connection.fetchval(ask, "domains", ["b.test"])) == {"b.test", "al.test"}
    assert await heard.connection.fetchval(ask, "domains", [str(i) for i in range(501)]) is None
    assert await heard.connection.fetchval(ask, "relay_recipients", [str(i) for i in range(501)]) is None
    assert await heard.connection.fetchval(ask, "addresses", []) == []


async def test_a_delimiter_beyond_ascii_names_the_group(heard: Heard) -> None:
    await heard.connection.execute("UPDATE mailmaps.settings SET recipient_delimiter = 'é'")
    assert (await heard.after("DELETE FROM user_addresses WHERE username = 'bob'"))[0] == {"addresses": None}


SMALL_CHANGES = [
    "UPDATE user_accounts SET active = '0' WHERE username = 'u7'",
    "INSERT INTO user_addresses VALUES ('u7', 'new@big.test')",
    "DELETE FROM user_addresses WHERE username = 'u7'",
    "INSERT INTO mailmaps.forwards VALUES ('new@big.test', 'u7@big.test')",
    "INSERT INTO mailmaps.forwards VALUES ('@big.test', 'u7@big.test')",
    "INSERT INTO domains (gid, domain) VALUES (9, 'new.test')",
    "UPDATE domains SET transport = 'smtp:'",
]


async def test_a_small_change_reads_little(database: Database) -> None:
    """Rows read in the transaction, by PostgreSQL's own count, at 20,000 addresses."""
    await database.connection.execute(
        """INSERT INTO domains (gid, domain) VALUES (1, 'big.test'), (2, 'other.test');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
              SELECT 'u' || i, i, 1, 'u' || i || '@big.test', 'm', '1' FROM generate_series(1, 10000) i;
           INSERT INTO user_addresses SELECT username, email FROM user_accounts;
           INSERT INTO user_addresses SELECT username, 'Alias.' || email FROM user_accounts;
           INSERT INTO mailmaps.forwards SELECT 'f' || i || '@big.test', 'u' || i || '+x@big.test'
              FROM generate_series(1, 10000) i;
           INSERT INTO mailmaps.forwards SELECT '@typo' || i || '.test', '@big.test'
              FROM generate_series(1, 30) i;
           ANALYZE"""
    )
    read = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
              WHERE relname IN ('user_accounts', 'user_addresses', 'forwards')"""
    for change in SMALL_CHANGES:
        transaction = database.connection.transaction()
        await transaction.start()
        before = await database.connection.fetchval(read)
        await database.connection.execute(change)
        rows = await database.connection.fetchval(read) - before
        await transaction.rollback()
        # A changed catch-all asks for the targets in its domain, until they are too many to name.
        assert rows < 5000, change
