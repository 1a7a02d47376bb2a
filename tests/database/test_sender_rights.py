"""Who may send as which address, by which rule; a model of the same is in test_receive_model.py."""

from __future__ import annotations

import json
from collections.abc import Iterable

import asyncpg
import pytest
import pytest_asyncio
from tests.conftest import Connection, Database
from tests.database.site import make_howto, make_older
from tests.database.test_views import WORLD

from mailmaps.database.migrations import Site, upgrade
from mailmaps.database.watching import read_watches

# key -> its rows; nothing: known, and nobody's. What is not here is in test_views.py, without letters.
RIGHTS: dict[str, list[str]] = {
    "jan@one.test": ["o jan"],
    "j.w@one.test": ["a jan"],
    "@two.test": ["a jan"],
    "unlisted@one.test": ["o unlisted"],
    "gone@one.test": ["o !inactive"],
    "old@one.test": ["a !inactive"],
    "twins@two.test": ["o !inactive", "o twin_a", "o twin_b"],
    "jan@alias.test": ["od jan"],
    "j.w@alias.test": ["ad jan"],
    "twins@two-alias.test": ["od !inactive", "od twin_a", "od twin_b"],
    "@two-alias.test": ["ad jan"],
    # A forward beside a mailbox makes nobody its owner; me@elsewhere.test is an account's email.
    "away@one.test": ["a outside"],
    "me@elsewhere.test": ["o outside"],
    "team@one.test": ["f jan"],
    "half@one.test": ["f !inactive", "f jan"],
    "dead@one.test": ["f !inactive"],
    "ext@one.test": ["f jan"],
    "caught@one.test": ["f jan"],
    "chain@one.test": ["f jan"],
    "toalias@one.test": ["f jan"],
    "ring1@one.test": [],
    "ring3@one.test": ["f jan"],
    "nobody@one.test": [],
    "x@three.test": [],
    "jan@three.test": ["f jan"],
    "@three.test": [],
    "team@alias.test": ["fd jan"],
    "half@alias.test": ["fd !inactive", "fd jan"],
    "ring1@alias.test": [],
}


@pytest_asyncio.fixture
async def world(database: Database) -> Database:
    await database.connection.execute(WORLD)
    return database


async def rights(connection: Connection, keys: Iterable[str]) -> dict[str, list[str]]:
    """The rows of these keys, as the daemon asks; NULL rows are left out, unknown keys too."""
    query = "SELECT key, value FROM mailmaps.sender_rights WHERE key = ANY ($1::text[])"
    found: dict[str, set[str]] = {}
    for key, value in await connection.fetch(query, list(keys)):
        found.setdefault(key, set()).update([value] if value is not None else [])
    return {key: sorted(values) for key, values in found.items()}


async def of(database: Database, key: str) -> list[str] | None:
    return (await rights(database.connection, [key])).get(key)


async def forward(database: Database, *pairs: tuple[str, str]) -> None:
    await database.connection.executemany("INSERT INTO mailmaps.forwards VALUES ($1, $2)", pairs)


async def test_rules_and_logins_as_mailreader_reads_them(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        assert await rights(reader, [*RIGHTS, "unknown@one.test", "unlisted"]) == RIGHTS
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch("SELECT * FROM mailmaps.sender_owners")


async def test_postfix_is_told_the_same_without_the_rules(world: Database) -> None:
    for spelt in (False, True):
        await world.connection.execute("UPDATE mailmaps.settings SET login_addresses = $1", spelt)
        difference = """SELECT key, split_part(value, ' ', 2) FROM mailmaps.sender_rights
                        EXCEPT ALL SELECT key, value FROM mailmaps.smtpd_sender_login_maps"""
        assert await world.connection.fetch(difference) == []


async def test_a_forward_is_owned_by_login_as_logins_are_spelt(world: Database) -> None:
    await world.connection.execute("UPDATE mailmaps.settings SET login_realm = 'r.test'")
    assert await of(world, "team@one.test") == ["f jan", "f jan@r.test"]
    assert await of(world, "team@alias.test") == ["fd jan", "fd jan@r.test"]
    assert await of(world, "dead@one.test") == ["f !inactive"]


async def test_who_cannot_receive_may_still_send(world: Database) -> None:
    await world.connection.execute("INSERT INTO mailmaps.rights (username, receive) VALUES ('jan', false)")
    assert await of(world, "team@one.test") == ["f jan"]
    await world.connection.execute("UPDATE mailmaps.settings SET honour_active = false")
    assert await of(world, "dead@one.test") == ["f asleep", "f gone"]


async def test_what_an_account_has_ends_a_chain(world: Database) -> None:
    """j.w's mail is copied on to the team's other reader: he gets copies, and is no owner."""
    await forward(
        world, ("copies@one.test", "j.w@one.test"), ("j.w@one.test", "unlisted@one.test"),
        ("gone@one.test", "unlisted@one.test"), ("past@one.test", "gone@one.test"),
    )  # fmt: skip
    assert await of(world, "j.w@one.test") == ["a jan"]
    assert await of(world, "copies@one.test") == ["f jan"]
    assert await of(world, "past@one.test") == ["f !inactive"]


async def test_catch_alls(world: Database) -> None:
    await world.connection.execute(
        "INSERT INTO domains (gid, domain) VALUES (4, 'four.test'), (5, 'five.test')"
    )
    await forward(world, ("@four.test", "@two.test"), ("@five.test", "unlisted@one.test"))
    assert await of(world, "@four.test") == []  # boss@four.test goes to boss@two.test, whoever that is
    assert await of(world, "@five.test") == ["f unlisted"]
    # Through them, the local part is kept: known addresses there are their owners', the rest the catch-all's.
    await forward(
        world, ("one@one.test", "twins+x@four.test"), ("two@one.test", "b@four.test"),
        ("three@one.test", "whoever@four.test"), ("four@one.test", "whoever@five.test"),
        ("five@one.test", "@nowhere.test"),
    )  # fmt: skip
    assert await of(world, "one@one.test") == ["f !inactive", "f twin_a", "f twin_b"]
    assert await of(world, "two@one.test") == ["f borrower"]
    assert await of(world, "three@one.test") == ["f jan"]
    assert await of(world, "four@one.test") == ["f unlisted"]
    assert await of(world, "five@one.test") == []


async def test_an_address_elsewhere_is_nobodys_and_has_no_extension(world: Database) -> None:
    await forward(
        world, ("out1@one.test", "me+x@elsewhere.test"), ("out2@one.test", "me@elsewhere.test"),
        ("@elsewhere.test", "jan@one.test"), ("out3@one.test", "you@elsewhere.test"),
    )  # fmt: skip
    assert await of(world, "out1@one.test") == []
    assert await of(world, "out2@one.test") == ["f outside"], "that is the email of an account"
    assert await of(world, "out3@one.test") == []


async def test_an_address_that_an_account_gets_is_no_forward_any_more(world: Database) -> None:
    await world.connection.execute("INSERT INTO user_addresses VALUES ('unlisted', 'team@one.test')")
    assert await of(world, "team@one.test") == ["a unlisted"]
    assert await of(world, "team@alias.test") == ["ad unlisted"]
    await world.connection.execute("INSERT INTO user_addresses VALUES ('twin_a', 'half@alias.test')")
    assert await of(world, "half@alias.test") == ["a twin_a"]


async def test_a_forward_of_its_own_beside_a_domain_alias(world: Database) -> None:
    """As ever for what accounts have at the alias' target; a forward there is hidden."""
    await forward(world, ("jan@alias.test", "unlisted@one.test"), ("team@alias.test", "unlisted@one.test"))
    assert await of(world, "jan@alias.test") == ["f unlisted", "od jan"]
    assert await of(world, "team@alias.test") == ["f unlisted"]


async def test_a_list_of_thousands_behind_a_forward(world: Database) -> None:
    """By index, as far as PostgreSQL's own count of rows tells: a few for each member."""
    await world.connection.execute(
        """INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
              SELECT 'u' || i, 100 + i, 1, 'u' || i || '@one.test', 'm' || i, '1'
              FROM generate_series(1, 3000) i;
           INSERT INTO mailmaps.forwards SELECT 'all@one.test', 'u' || i || '@one.test'
              FROM generate_series(1, 3000) i;
           INSERT INTO mailmaps.forwards VALUES ('everybody@one.test', 'all@one.test'); ANALYZE"""
    )
    read = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))
              FROM pg_stat_xact_user_tables WHERE relname <> 'settings'"""
    await world.connection.execute("SET plan_cache_mode = force_generic_plan")
    for key in ("everybody@one.test", "all@one.test"):
        async with world.connection.transaction():
            assert await of(world, key) == []  # too many to be its owners
            assert await world.connection.fetchval(read) < 150 * 3000, key


async def test_a_mirror_may_believe_it(world: Database) -> None:
    async with world.connect(world.reader_dsn) as reader:
        watches = await read_watches(reader, ["mailmaps.sender_rights", "mailmaps.smtpd_sender_login_maps"])
    rights, logins = watches.values()
    assert rights.problem == logins.problem == ""
    assert rights.relations == logins.relations
    assert {"mailmaps.forwards", "mailmaps.domain_alias_keys", "public.domains"} <= rights.relations


async def _before(connection: Connection) -> set[tuple[str, str | None]]:
    rows = await connection.fetch("SELECT key, value FROM mailmaps.smtpd_sender_login_maps")
    return {(key, value) for key, value in rows}


async def test_an_upgrade_from_version_11_adds_forwards_and_keeps_the_rest(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_older(empty_database, monkeypatch, 11)
    connection = empty_database.connection
    mine = "CREATE VIEW mine AS SELECT * FROM mailmaps.smtpd_sender_login_maps, mailmaps.sender_owners o"
    await connection.execute(WORLD + mine.replace("*", "value, o.username"))
    before = await _before(connection)
    await upgrade(connection, Site(honour_active=True, recipient_delimiter="+"), lambda _: None)
    after = await _before(connection)
    assert before < after
    forwards = await connection.fetch("SELECT key FROM mailmaps.forwards")
    extra = {key.replace("alias.test", "one.test") for key, _ in after - before}
    assert extra <= {row["key"] for row in forwards}
    assert await rights(connection, RIGHTS) == RIGHTS
    assert await connection.fetch("SELECT * FROM mine LIMIT 1")


async def test_a_howto_database_has_it_after_an_upgrade(empty_database: Database) -> None:
    await make_howto(empty_database)
    await upgrade(empty_database.connection, Site(), lambda _: None)
    found = await empty_database.connection.fetch("SELECT key, value FROM mailmaps.sender_rights")
    assert ("info@lxtreme.nl", "o info_lx") in {(row["key"], row["value"]) for row in found}
    assert {row["value"].split()[1] for row in found} == {"jawi_lx", "info_lx"}


@pytest.mark.parametrize(
    ("statement", "keys"),
    [
        ("UPDATE user_accounts SET active = '0' WHERE username = 'jan'",
         "team@one.test chain@one.test team@alias.test toalias@one.test caught@one.test"),
        ("UPDATE user_accounts SET username = 'j2' WHERE username = 'straße'", "s@one.test s@alias.test"),
        ("INSERT INTO mailmaps.forwards VALUES ('out@one.test', 'x@elsewhere.test')", "out@one.test"),
        ("INSERT INTO user_addresses VALUES ('jan', 'missing@one.test')",
         "nobody@one.test nobody@alias.test"),
        ("DELETE FROM user_addresses WHERE alias = '@two.test'", "caught@one.test"),
        ("UPDATE user_addresses SET username = 'twin_a' WHERE alias = 'J.W@ONE.test'", "copy@one.test"),
        ("INSERT INTO user_addresses VALUES ('twin_a', 'team@one.test')", "team@one.test team@alias.test"),
        ("UPDATE domains SET domain = '2.test' WHERE domain = 'two.test'", "caught@one.test"),
    ],
)  # fmt: skip
async def test_a_change_names_the_forwards(world: Database, statement: str, keys: str) -> None:
    await world.connection.execute(
        """UPDATE user_addresses SET username = 'jan' WHERE username = 'straße';
           INSERT INTO mailmaps.forwards VALUES ('s@one.test', 'strasse@one.test');
           DELETE FROM mailmaps.domain_aliases WHERE domain = 'two-alias.test'"""
        if "straße" not in statement
        else """DELETE FROM user_addresses WHERE username = 'straße';
                INSERT INTO mailmaps.forwards VALUES ('s@one.test', 'strasse+x@one.test')"""
    )
    query = "SELECT key, value FROM mailmaps.sender_rights"
    before = {tuple(row) for row in await world.connection.fetch(query)}
    heard: list[str] = []
    await world.connection.add_listener("mailmaps", lambda *words: heard.append(str(words[-1])))
    await world.connection.execute(statement)
    await world.connection.fetch("SELECT 1")
    await world.connection.reset()
    changed = {key for key, _ in before ^ {tuple(row) for row in await world.connection.fetch(query)}}
    assert changed >= set(keys.split())
    named = [key for payload in heard for key in json.loads(payload).get("keys", [])]
    assert changed <= set(named)


@pytest.mark.parametrize(
    ("off", "key", "values"),
    [
        ("", "team@one.test", {"jan"}),
        ("f", "team@one.test", {"!nobody"}),
        ("f", "team@alias.test", {"!nobody"}),
        ("f", "jan@one.test", {"jan"}),
        ("o", "jan@one.test", {"!nobody"}),
        ("a", "j.w@one.test", {"!nobody"}),
        ("a", "@two.test", {"!nobody"}),
        ("@", "@two.test", {"!nobody"}),
        ("@", "j.w@one.test", {"jan"}),
        ("fd@", "jan@alias.test", {"!nobody"}),
        ("f", "nobody@one.test", {None}),
    ],
)
async def test_files_follow_the_switches(
    world: Database, off: str, key: str, values: set[str | None]
) -> None:
    await world.connection.execute("UPDATE mailmaps.settings SET sender_rules_off = $1", off)
    query = "SELECT value FROM mailmaps.smtpd_sender_login_maps WHERE key = $1"
    found = {value for (value,) in await world.connection.fetch(query, key)}
    assert (found - {None} or found) == values


async def test_who_reads_a_long_list_does_not_send_as_it(world: Database) -> None:
    await world.connection.execute(
        """INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
           SELECT 'm' || n, 9000 + n, 1, 'm' || n || '@one.test', 'm' || n, '1'
           FROM generate_series(1, 101) AS n;
           INSERT INTO user_addresses
              SELECT 'm' || n, 'm' || n || '@one.test' FROM generate_series(1, 50) AS n;
           INSERT INTO mailmaps.forwards
              SELECT 'all@one.test', 'm' || n || '@one.test' FROM generate_series(1, 100) AS n"""
    )
    await forward(world, ("every@one.test", "all@one.test"))
    for key in ("all@one.test", "every@one.test", "all@alias.test"):
        found = await of(world, key)
        assert found is not None
        assert len(found) == 100
    await forward(world, ("all@one.test", "m101@one.test"))
    for key in ("all@one.test", "every@one.test", "all@alias.test"):
        assert await of(world, key) == []
