"""Logins: where they are looked up, what an account may do, and owners of senders as logins are spelt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from tests.conftest import Connection, Database
from tests.database.site import make_older

from mailmaps.cli.schema import site
from mailmaps.config import parse
from mailmaps.database.checks import database_findings
from mailmaps.database.migrations import Site, upgrade

ROWS = """
INSERT INTO domains (gid, domain) VALUES (1, 'a.test'), (2, 'b.test');
INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, quota, active) VALUES
   ('Jan', 11, 1, 'h-jan', 'jan@a.test', 'a/jan', 7, '1'),
   ('gone', 12, 1, 'h-gone', 'gone@a.test', 'a/gone', 0, '0'),
   ('bare', 13, 1, NULL, 'bare', 'a/bare', 1, '1'), ('twin_b', 14, 1, 'h-b', 'Twins@a.test', 'a/b', 1, '1'),
   ('twin_a', 15, 1, 'h-a', 'twins@a.test', 'a/a', 1, '1'),
   ('info@b.test', 16, 2, 'h-i', 'i@b.test', 'b/i', 1, '1');
INSERT INTO user_addresses VALUES ('Jan', 'Jan@a.test'), ('Jan', 'J.W@a.test'), ('Jan', '@b.test'),
   ('Jan', '"j w"@a.test'), ('gone', 'gone@a.test'), ('gone', 'Info@B.test');
INSERT INTO mailmaps.domain_aliases VALUES ('al.test', 'a.test');
INSERT INTO mailmaps.rights (username, pop3) VALUES ('Jan', false);
"""
LOGINS = {
    ("jan", "username"): "Jan",
    ("jan@a.test", "address"): "Jan",
    ("j.w@a.test", "address"): "Jan",
    ('"j w"@a.test', "address"): "Jan",
    ("jan@al.test", "address"): "Jan",
    ("j.w@al.test", "address"): "Jan",
    ('"j w"@al.test', "address"): "Jan",
    ("gone", "username"): "gone",
    ("gone@a.test", "address"): "gone",
    ("gone@al.test", "address"): "gone",
    ("info@b.test", "address"): "gone",
    ("bare", "username"): "bare",
    ("twin_a", "username"): "twin_a",
    ("twin_b", "username"): "twin_b",
    ("twins@a.test", "address"): "twin_a",
    ("twins@al.test", "address"): "twin_a",
    ("info@b.test", "username"): "info@b.test",
    ("i@b.test", "address"): "info@b.test",
}
RIGHTS = ("imap", "pop3", "smtp", "sieve", "receive")


@pytest_asyncio.fixture
async def world(database: Database) -> Database:
    """The rows above."""
    await database.connection.execute(ROWS)
    return database


async def owners(database: Database, key: str) -> list[str]:
    rows = await database.connection.fetch(
        "SELECT value FROM mailmaps.smtpd_sender_login_maps WHERE key = ANY($1)", [key]
    )
    return sorted(row["value"] for row in rows)


async def test_every_login_of_every_account(world: Database) -> None:
    rows = await world.connection.fetch("SELECT * FROM mailmaps.logins")
    assert {(row["login"], row["by"]): row["username"] for row in rows} == LOGINS
    assert len(rows) == len(LOGINS)
    for row in rows:
        found = await world.connection.fetch(
            "SELECT * FROM mailmaps.logins WHERE login = ANY($1::text[])", [row["login"], "nobody", "@b.test"]
        )
        assert row in found
        assert {one["login"] for one in found} == {row["login"]}


async def test_a_row_has_what_a_login_needs(world: Database) -> None:
    row = await world.connection.fetchrow("SELECT * FROM mailmaps.logins WHERE login = 'j.w@al.test'")
    assert row is not None
    assert dict(row) == {
        "login": "j.w@al.test",
        "by": "address",
        "username": "Jan",
        "password": "h-jan",
        "uid": 11,
        "gid": 1,
        "mailbox": "a/jan",
        "quota": 7,
        "active": True,
    } | dict.fromkeys(RIGHTS, True) | {"pop3": False}


async def test_all_usernames(world: Database) -> None:
    rows = await world.connection.fetch(
        "SELECT DISTINCT username FROM mailmaps.logins WHERE by = 'username' ORDER BY 1"
    )
    assert {row["username"] for row in rows} == {name for (_, by), name in LOGINS.items() if by == "username"}


async def test_active_counts_where_the_settings_honour_it(world: Database) -> None:
    ask = "SELECT active FROM mailmaps.logins WHERE username = $1 AND by = $2 AND login <> 'info@b.test'"
    for by in ("username", "address"):
        await world.connection.execute("UPDATE mailmaps.settings SET honour_active = true")
        assert await world.connection.fetchval(ask, "gone", by) is False
        assert await world.connection.fetchval(ask, "Jan", by) is True
        await world.connection.execute("UPDATE mailmaps.settings SET honour_active = NULL")
        assert await world.connection.fetchval(ask, "gone", by) is True


async def test_receive_off_stops_mail_and_takes_no_address_away(world: Database) -> None:
    connection = world.connection
    await connection.execute(
        """INSERT INTO mailmaps.forwards VALUES ('team@a.test', 'j.w@a.test'), ('team@a.test', 'x@out.test');
           UPDATE mailmaps.rights SET pop3 = true, receive = false"""
    )
    for table in ("virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps", "virtual_alias_maps"):
        for key in ("jan@a.test", "j.w@a.test"):
            rows = await connection.fetch(f"SELECT value FROM mailmaps.{table} WHERE key = '{key}'")
            assert [row["value"] for row in rows] == [None], (table, key)
    rows = await connection.fetch("SELECT value FROM mailmaps.virtual_alias_maps WHERE key = 'team@a.test'")
    assert {row["value"] for row in rows} == {None, "x@out.test"}
    assert await connection.fetchval("SELECT mailmaps.can_receive('jan+x@al.test')") is False
    assert await owners(world, "j.w@al.test") == ["Jan"]
    assert await owners(world, "gone@a.test") == ["!inactive"]
    row = await connection.fetchrow("SELECT active, receive FROM mailmaps.logins WHERE login = 'jan'")
    assert row is not None
    assert tuple(row) == (True, False)


@pytest.mark.parametrize("right", RIGHTS[:-1])
async def test_other_rights_leave_mail_alone(world: Database, right: str) -> None:
    await world.connection.execute(f"UPDATE mailmaps.rights SET {right} = false")
    mailbox = "SELECT value FROM mailmaps.virtual_mailbox_maps WHERE key = 'jan@a.test'"
    assert await world.connection.fetchval(mailbox) == "a/jan/"


async def test_accounts_are_renamed_and_deleted_by_who_knows_nothing_of_rights(world: Database) -> None:
    await world.connection.execute(
        """DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'writer') THEN CREATE ROLE writer;
                 END IF; END $$;
           GRANT SELECT, INSERT, UPDATE, DELETE ON domains, user_accounts, user_addresses TO writer;
           INSERT INTO mailmaps.rights (username, receive) VALUES ('bare', false);
           SET ROLE writer;
           UPDATE user_accounts SET username = 'nude' WHERE username = 'bare'"""
    )
    rights = "SELECT username FROM mailmaps.rights WHERE NOT receive"
    await world.connection.execute("RESET ROLE")
    assert await world.connection.fetchval(rights) == "nude"
    await world.connection.execute(
        "SET ROLE writer; DELETE FROM user_accounts WHERE username = 'nude'; RESET ROLE"
    )
    assert await world.connection.fetchval(rights) is None


async def test_what_is_doubtful_about_logins(world: Database) -> None:
    await world.connection.execute(
        """INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
              VALUES ('JAN', 20, 1, 'upper@a.test', 'm', '1'), ('j.w', 21, 1, 'other@a.test', 'm', '1');
           UPDATE mailmaps.settings SET login_realm = 'A.test', login_addresses = true"""
    )
    rows = await world.connection.fetch(
        "SELECT text FROM mailmaps.doubtful_rows WHERE text ~ 'log' ORDER BY text COLLATE \"C\""
    )
    assert [row["text"] for row in rows] == [
        '"JAN@A.test" is an address of Jan, so JAN cannot log in behind saslauthd with the bare username',
        '"j.w@A.test" is an address of Jan, so j.w cannot log in behind saslauthd with the bare username',
        'username "info@b.test" is an address of gone; who logs in with it is info@b.test: '
        "the username counts",
        "usernames JAN and Jan differ in case alone: only the exact spelling can log in, "
        "and each may send as the other",
    ]


async def test_without_saslauthd_an_owner_is_a_username(world: Database) -> None:
    assert await owners(world, "jan@a.test") == ["Jan"]
    assert await owners(world, "twins@al.test") == ["twin_a", "twin_b"]


async def test_owners_with_the_realm(world: Database) -> None:
    await world.connection.execute("UPDATE mailmaps.settings SET login_realm = 'b.test'")
    assert await owners(world, "j.w@a.test") == ["Jan", "Jan@b.test"]
    assert await owners(world, "@b.test") == ["Jan", "Jan@b.test"]
    assert await owners(world, "i@b.test") == ["info@b.test"], "it has a realm of its own"
    assert await owners(world, "gone@a.test") == ["!inactive"]


async def test_owners_by_address(world: Database) -> None:
    await world.connection.execute("UPDATE mailmaps.settings SET login_addresses = true")
    jan = ["Jan", "j.w@a.test", "j.w@al.test", "jan@a.test", "jan@al.test"]
    assert await owners(world, "@b.test") == jan, "no catch-all, and none with quotes"
    assert await owners(world, "jan@al.test") == jan
    assert await owners(world, "twins@a.test") == ["twin_a", "twin_b", "twins@a.test", "twins@al.test"]
    assert await owners(world, "gone@a.test") == ["!inactive"]


async def test_a_spelling_that_is_another_accounts_name_is_not_listed(world: Database) -> None:
    """Who logs in as info@b.test is that username, whoever has the address; and jan@b.test may be Anna's."""
    await world.connection.execute(
        """UPDATE mailmaps.settings SET login_realm = 'b.test', login_addresses = true;
           UPDATE user_accounts SET active = '1' WHERE username = 'gone';
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
              ('anna', 20, 2, 'JAN@b.test', 'm', '1'), ('info', 21, 2, 'o@b.test', 'm', '1')"""
    )
    assert await owners(world, "gone@a.test") == ["gone", "gone@a.test", "gone@al.test", "gone@b.test"]
    assert await owners(world, "jan@b.test") == ["anna", "anna@b.test", "jan@b.test"]
    assert "Jan@b.test" not in await owners(world, "jan@a.test")
    assert await owners(world, "o@b.test") == ["info", "o@b.test"]
    await world.connection.execute("DELETE FROM user_accounts WHERE username = 'anna'")
    assert "Jan@b.test" in await owners(world, "jan@a.test")


async def test_a_spelling_that_is_ones_own_address_is_listed_once(world: Database) -> None:
    await world.connection.execute(
        "UPDATE mailmaps.settings SET login_realm = 'A.test', login_addresses = true"
    )
    found = await owners(world, "jan@a.test")
    assert [login for login in found if login.lower() == "jan@a.test"] == ["jan@a.test"]


async def test_mailauth_reads_logins_and_mailreader_no_hash(world: Database) -> None:
    async with world.connect(world.auth_dsn) as auth:
        assert await auth.fetchval("SELECT password FROM mailmaps.logins WHERE login = 'jan'") == "h-jan"
        await auth.fetch("SELECT * FROM mailmaps.schema_version, mailmaps.settings")
        for relation in await relations(world.connection):
            if relation not in ("mailmaps.logins", "mailmaps.schema_version", "mailmaps.settings"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await auth.fetch(f"SELECT * FROM {relation}")
        for table in ("mailmaps.rights", "user_accounts", "mailmaps.settings"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await auth.execute(f"DELETE FROM {table}")
    async with world.connect(world.reader_dsn) as reader:
        for relation in await relations(world.connection):
            try:
                rows = await reader.fetch(f"SELECT * FROM {relation}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            assert "h-jan" not in str(rows), relation
        for relation in ("mailmaps.logins", "mailmaps.login_accounts", "user_accounts", "mailmaps.rights"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.fetch(f"SELECT * FROM {relation}")
        assert await reader.fetchval("SELECT count(*) FROM mailmaps.smtpd_sender_login_maps") > 5
        await world.connection.execute("UPDATE mailmaps.settings SET login_addresses = true")
        question = "SELECT count(*) FROM mailmaps.smtpd_sender_login_maps WHERE key = 'jan@a.test'"
        assert await reader.fetchval(question) == 5


async def relations(connection: Connection) -> list[str]:
    rows = await connection.fetch(
        """SELECT format('%I.%I', n.nspname, c.relname) AS name
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname IN ('mailmaps', 'public') AND c.relkind IN ('r', 'v')"""
    )
    return [row["name"] for row in rows]


CHECKED = """
[database]
dsn = "{reader}"
auth_dsn = "{auth}"
[postfix]
recipient_delimiter = "+"
[login]
unix = "/run/mailmaps/login.sock"
[auth]
realm = "a.test"
"""


async def checked(database: Database, *, auth: str | None = None, more: str = "") -> list[str]:
    """What `mailmaps check` holds against logins."""
    auth = database.auth_dsn if auth is None else auth
    settings = parse(CHECKED.format(reader=database.reader_dsn, auth=auth) + more)
    return [
        f"{finding.level.name} {finding.subject}: {finding.text}"
        for finding in await database_findings(settings)
        if finding.subject.startswith(("auth.", "database.auth_dsn", "mailmaps.logins", "logins"))
    ]


async def test_check_says_whether_logins_can_be_asked(world: Database) -> None:
    assert await checked(world) == ["OK auth.source builtin: can be asked"]
    assert await checked(world, auth="") == [
        "ERROR auth.source builtin: permission denied for view logins (42501)"
    ]
    await world.connection.execute("REVOKE USAGE ON SCHEMA mailmaps FROM mailauth")
    assert await checked(world) == [
        "ERROR auth.source builtin: permission denied for schema mailmaps (42501)"
    ]
    nobody = world.postgres.dsn(world.name, "mailnobody", "x")
    (found,) = await checked(world, auth=nobody)
    assert found.startswith("ERROR database.auth_dsn: ")
    assert "mailnobody" in found


async def test_check_looks_for_the_service_file_of_pam(
    world: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmaps.auth.pam.FOLDERS", (tmp_path,))
    asked = "OK auth.source builtin: can be asked"
    more = 'backend = "pam"\n'
    missing = f"ERROR auth.pam_service: there is no {tmp_path}/mail"
    assert await checked(world, more=more) == [missing, asked]
    (tmp_path / "mail").write_text("auth required pam_deny.so\n")
    assert await checked(world, more=more) == ["OK auth.pam_service: PAM has it", asked]


async def test_check_names_a_lookup_role_that_can_read_hashes(world: Database) -> None:
    await world.connection.execute("GRANT SELECT ON mailmaps.logins TO mailreader")
    assert await checked(world) == [
        "ERROR mailmaps.logins: the role mailreader, which only looks up tables, "
        "can read the password hashes",
        "OK auth.source builtin: can be asked",
    ]


async def test_check_compares_how_logins_are_spelt(world: Database) -> None:
    more = '[saslauthd]\nunix = "/run/mailmaps/mux"\n'
    assert await checked(world, more=more) == [
        "ERROR auth.realm: the owners of sender addresses have login_realm '', the settings mean 'a.test'",
        "ERROR auth.names: the owners of sender addresses have login_addresses False, the settings mean True",
        "OK auth.source builtin: can be asked",
    ]
    settings = parse(CHECKED.format(reader=world.reader_dsn, auth=world.auth_dsn) + more)
    await upgrade(world.connection, site(settings), lambda _: None)
    assert await checked(world, more=more) == ["OK auth.source builtin: can be asked"]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            "'a'::text AS login, 'A'::text AS username, NULL::text AS password",
            "OK auth.source {}: can be asked",
        ),
        (
            "'a'::varchar AS login, 'A' AS username, '' AS password, 1 AS uid",
            "OK auth.source {}: can be asked",
        ),
        (
            "'a'::text AS login, 'A'::text AS username",
            "ERROR auth.source {}: public.mine has no column password",
        ),
        (
            "'A'::text AS login, 'A'::text AS username, '' AS password",
            'ERROR auth.source {}: its login "A" is not case-folded, so nobody finds it',
        ),
    ],
)
async def test_check_looks_at_a_view_of_ones_own(world: Database, columns: str, found: str) -> None:
    await world.connection.execute(f"CREATE VIEW mine AS SELECT {columns}; GRANT SELECT ON mine TO mailauth")
    more = 'source = "view:public.mine"\n'
    assert await checked(world, more=more) == [found.format("view:public.mine")]
    await world.connection.execute("DROP VIEW mine")
    assert await checked(world, more=more) == [
        "ERROR auth.source view:public.mine: there is no view public.mine"
    ]


# As PostfixAdmin makes it in PostgreSQL, without its times.
POSTFIXADMIN = """CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL,
   name varchar(255) NOT NULL DEFAULT '', maildir varchar(255) NOT NULL, quota bigint NOT NULL DEFAULT 0,
   active boolean NOT NULL DEFAULT true, domain varchar(255), local_part varchar(255) NOT NULL);
INSERT INTO mailbox VALUES
   ('Ann@ex.test', '{SHA256-CRYPT}$5$x', 'Ann', 'ex.test/ann/', 20480000, true, 'ex.test', 'ann')"""


async def test_the_documented_view_of_postfixadmin_keeps_the_contract(world: Database) -> None:
    text = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
    found = re.search(r"    CREATE VIEW public.mailmaps_logins.*?TO mailauth;", text, re.DOTALL)
    assert found is not None
    await world.connection.execute(f"{POSTFIXADMIN};{found[0]}")
    source = "view:public.mailmaps_logins"
    assert await checked(world, more=f'source = "{source}"\n') == [f"OK auth.source {source}: can be asked"]
    async with world.connect(world.auth_dsn) as auth:
        rows = await auth.fetch(
            "SELECT * FROM mailmaps_logins WHERE login = ANY($1::text[])", ["ann@ex.test"]
        )
    assert [(row["username"], row["mailbox"], row["quota"], row["active"]) for row in rows] == [
        ("Ann@ex.test", "ex.test/ann", 20, True)
    ]


async def test_an_upgrade_from_version_10_keeps_rows_answers_and_views_on_ours(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_older(empty_database, monkeypatch, 10)
    connection = empty_database.connection
    rows = ROWS.partition("INSERT INTO mailmaps.rights")[0]
    await connection.execute(rows + "CREATE VIEW mine AS SELECT * FROM mailmaps.accounts")
    tables = ("virtual_alias_maps", "virtual_mailbox_maps", "virtual_uid_maps", "smtpd_sender_login_maps")
    ask = " UNION ALL ".join(f"SELECT '{table}', key, value FROM mailmaps.{table}" for table in tables)
    before = sorted(map(str, await connection.fetch(ask)))
    await upgrade(connection, Site(), lambda _: None)
    assert sorted(map(str, await connection.fetch(ask))) == before
    assert len(await connection.fetch("SELECT * FROM mine")) == 6
    assert await connection.fetchval("SELECT count(*) FROM mailmaps.logins") == len(LOGINS)


async def told(connection: Connection, *statements: str) -> tuple[set[str] | None, set[str]]:
    """The keys (None: the group) and relations that one transaction notifies."""
    heard: list[str] = []

    def hear(*words: object) -> None:
        heard.append(str(words[-1]))

    await connection.add_listener("mailmaps", hear)
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)
    await connection.fetch("SELECT 1")
    await connection.remove_listener("mailmaps", hear)
    changes = [json.loads(payload) for payload in heard]
    keys = [change.get("keys") for change in changes if change.get("of") == "addresses"]
    named = None if None in keys else {key for some in keys for key in some or ()}
    return named, {change["relation"] for change in changes if "relation" in change}


JAN = {"jan@a.test", "j.w@a.test", '"j w"@a.test', "@b.test", "jan@al.test", "j.w@al.test", '"j w"@al.test'}


async def test_a_change_of_receive_names_the_addresses(world: Database) -> None:
    for statement, named in (
        ("UPDATE mailmaps.rights SET imap = false", set()),
        ("UPDATE mailmaps.rights SET receive = false", {"!jan"} | JAN),
        ("UPDATE mailmaps.rights SET receive = false, smtp = false", set()),
        ("DELETE FROM mailmaps.rights WHERE username = 'nobody'", None),
        ("DELETE FROM mailmaps.rights", {"!jan"} | JAN),
        ("INSERT INTO mailmaps.rights (username, sieve) VALUES ('bare', false)", set()),
        ("INSERT INTO mailmaps.rights (username, receive) VALUES ('gone', false)",
         {"!gone", "gone@a.test", "gone@al.test", "info@b.test"}),
    ):  # fmt: skip
        found, tables = await told(world.connection, statement)
        assert tables == (set() if named is None else {"mailmaps.rights"}), statement
        assert (found or set()) >= (named or set()), statement
        assert bool(found) == bool(named), statement
    assert (await told(world.connection, "TRUNCATE mailmaps.rights"))[0] is None


async def test_an_address_that_comes_or_goes_names_all_keys_where_logins_are_spelt(world: Database) -> None:
    add = "INSERT INTO user_addresses VALUES ('Jan', 'new@b.test')"
    take = "DELETE FROM user_addresses WHERE alias = 'new@b.test'"
    for statement in (add, take):
        assert (await told(world.connection, statement))[0] == {"new@b.test"}
    await world.connection.execute("UPDATE mailmaps.settings SET login_addresses = true")
    for statement in (add, take):
        found, _ = await told(world.connection, statement)
        assert found is not None
        assert found >= {"new@b.test"} | JAN, statement
        assert not any("gone" in key or "twin" in key for key in found), "and of nobody else"


# What changes at other keys than those of the row that is written, with the names that saslauthd passes on.
FAR = [
    "INSERT INTO user_addresses VALUES ('Jan', 'new@b.test')",
    "DELETE FROM user_addresses WHERE alias = 'J.W@a.test'",
    "UPDATE user_addresses SET username = 'twin_b' WHERE alias = 'J.W@a.test'",
    "UPDATE user_accounts SET email = 'new@a.test' WHERE username = 'twin_a'",
    "DELETE FROM user_accounts WHERE username = 'twin_a'",
    "UPDATE user_accounts SET active = '0' WHERE username = 'twin_a'",
    # twin_b gets the address that they share, and with it those of the domain alias.
    "INSERT INTO mailmaps.rights (username, receive) VALUES ('twin_a', false)",
    "DELETE FROM mailmaps.domain_aliases",
    "INSERT INTO mailmaps.domain_aliases VALUES ('al2.test', 'a.test')",
    # An account of his own where a domain alias gave the key to Jan.
    "INSERT INTO user_addresses VALUES ('twin_b', 'jan@al.test')",
    "UPDATE user_accounts SET email = 'j.w@al.test' WHERE username = 'twin_b'",
    # Somebody has the name that an address, or a username with the realm, is.
    "UPDATE user_accounts SET username = 'j.w@a.test' WHERE username = 'twin_b'",
    "UPDATE user_accounts SET username = 'jan@al.test' WHERE username = 'twin_b'",
    "UPDATE user_accounts SET username = 'bare@a.test' WHERE username = 'twin_b'",
    "UPDATE user_accounts SET username = 'i' WHERE username = 'info@b.test'",
    "UPDATE user_accounts SET email = 'bare@a.test' WHERE username = 'twin_b'",
    "INSERT INTO user_addresses VALUES ('twin_b', 'BARE@a.test')",
]


@pytest.mark.parametrize("realm", ["", "A.test", "al.test"])
@pytest.mark.parametrize("statement", FAR)
async def test_what_changes_is_named(world: Database, statement: str, realm: str) -> None:
    """All keys whose owners are others afterwards; `bare` is an account with a key beside its login."""
    connection = world.connection
    await connection.execute("UPDATE mailmaps.settings SET login_realm = $1, login_addresses = true", realm)
    await connection.execute("INSERT INTO user_addresses VALUES ('bare', 'b@b.test'), ('twin_b', 't@b.test')")
    if "SET username" in statement:
        await connection.execute("DELETE FROM user_addresses WHERE username = 'twin_b'")
    await _named(connection, statement)


async def _named(connection: Connection, statement: str) -> None:
    before = await _owners(connection)
    named, _ = await told(connection, statement)
    after = await _owners(connection)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed or "bare@" in statement or "'i'" in statement
    assert named is None or changed <= named, changed - named


async def _owners(connection: Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in await connection.fetch("SELECT key, value FROM mailmaps.smtpd_sender_login_maps"):
        found[key] = sorted([*found.get(key, []), value])
    return found


async def test_an_account_with_the_realm_in_an_alias_domain(world: Database) -> None:
    """bare@al.test becomes an address, by the domain alias, of whom bare@a.test becomes one."""
    connection = world.connection
    await connection.execute(
        """UPDATE mailmaps.settings SET login_realm = 'al.test', login_addresses = true;
           INSERT INTO mailmaps.forwards VALUES ('bare@a.test', 'x@out.test');
           INSERT INTO user_addresses VALUES ('bare', 'b@b.test')"""
    )
    assert "bare@al.test" in await owners(world, "b@b.test"), "a forward is nobody's"
    await _named(connection, "INSERT INTO user_addresses VALUES ('twin_b', 'bare@a.test')")
    assert "bare@al.test" not in await owners(world, "b@b.test")


@pytest.mark.parametrize(
    "first",
    [
        "INSERT INTO mailmaps.rights (username, receive) VALUES ('twin_a', false)",
        "INSERT INTO user_addresses VALUES ('twin_a', 'more@a.test')",
        "DELETE FROM user_addresses WHERE alias = 'old@a.test'",
    ],
)
async def test_two_transactions_at_one_account(world: Database, first: str) -> None:
    """The second moves the account's email, its only key, to one that the first cannot know; whoever is
    notified of the first asks once more, and finds it."""
    await world.connection.execute(
        """UPDATE mailmaps.settings SET login_addresses = true;
           DELETE FROM mailmaps.domain_aliases;  -- with one, such writers wait for each other
           INSERT INTO user_addresses VALUES ('twin_a', 'old@a.test');
           SET lock_timeout = '20s'"""
    )
    async with world.connect() as one, world.connect(world.reader_dsn) as reader:
        transaction = one.transaction()
        await transaction.start()
        await one.execute(first)
        await world.connection.execute(
            "UPDATE user_accounts SET email = 'new@b.test' WHERE username = 'twin_a'"
        )
        heard: list[str] = []
        await reader.add_listener("mailmaps", lambda *words: heard.append(str(words[-1])))
        await transaction.commit()
        await reader.fetch("SELECT 1")
        named = [key for payload in heard for key in json.loads(payload).get("keys", [])]
        assert "new@b.test" not in named
        found = await reader.fetchval("SELECT mailmaps.depending_keys('addresses', $1)", named)
        await reader.reset()
    assert "new@b.test" in found, (named, found)
