"""Whether every change of a view is notified, as a role with rights on nothing can see it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.conftest import Connection, Database

from mailmaps.config import parse
from mailmaps.database.watches import watch
from mailmaps.database.watching import UNSTEADY, Watch, read_relations, read_watches
from mailmaps.maps.tables import DEFAULT_TABLES

BUILTIN = [f"mailmaps.{table}" for table in DEFAULT_TABLES]

SITE = """
CREATE TABLE mailbox (username text, maildir text, ends timestamptz);
CREATE TABLE alias (address text, goto text) PARTITION BY LIST (address);
CREATE TABLE alias_rest PARTITION OF alias DEFAULT PARTITION BY HASH (address);
CREATE TABLE alias_one PARTITION OF alias_rest FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE old_mailbox () INHERITS (mailbox);
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Odd Table" (a text, b text);
CREATE VIEW boxes AS SELECT username AS key, maildir AS value FROM mailbox;
CREATE VIEW aliases AS SELECT a.address AS key, b.value FROM alias a JOIN boxes b ON b.key = a.goto;
CREATE VIEW odd AS SELECT a AS key, b AS value FROM "Odd Schema"."Odd Table";
CREATE FUNCTION careless(x text) RETURNS text LANGUAGE sql AS $$ SELECT x $$;
CREATE FUNCTION looking(x text) RETURNS text STABLE LANGUAGE plpgsql
   AS $$ BEGIN RETURN (SELECT goto FROM alias WHERE address = x); END $$;
CREATE FUNCTION pure(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN lower(x); END $$;
CREATE FUNCTION dated(x text) RETURNS boolean IMMUTABLE RETURN x::timestamptz > now();
CREATE VIEW folded AS SELECT pure(lower(username)) AS key, maildir AS value FROM mailbox;
CREATE MATERIALIZED VIEW copied AS SELECT username AS key, maildir AS value FROM mailbox;
CREATE VIEW of_copied AS SELECT key, value FROM copied;
CREATE VIEW of_roles AS SELECT rolname::text AS key, 'x'::text AS value FROM pg_roles;
CREATE VIEW of_catalog AS SELECT relname::text AS key, username AS value FROM pg_class, mailbox;
CREATE SEQUENCE numbers;
CREATE VIEW of_sequence AS SELECT last_value::text AS key, 'x'::text AS value FROM numbers;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE far (key text, value text) SERVER elsewhere;
CREATE VIEW of_far AS SELECT key, value FROM far;
CREATE VIEW by_now AS SELECT username AS key, maildir AS value FROM mailbox WHERE ends > now();
CREATE VIEW on_by_now AS SELECT key, value FROM by_now;
CREATE VIEW by_date AS SELECT username AS key, maildir AS value FROM mailbox WHERE ends > CURRENT_DATE;
CREATE VIEW by_chance AS SELECT username AS key, random()::text AS value FROM mailbox;
CREATE VIEW by_sample AS SELECT username AS key, maildir AS value FROM mailbox TABLESAMPLE SYSTEM (10);
CREATE VIEW by_careless AS SELECT username AS key, careless(maildir) AS value FROM mailbox;
CREATE VIEW by_dated AS SELECT username AS key, maildir AS value FROM mailbox WHERE dated(username);
CREATE VIEW by_looking AS SELECT username AS key, looking(maildir) AS value FROM mailbox;
CREATE VIEW by_constant AS SELECT username AS key, maildir AS value FROM mailbox WHERE ends > '2020-01-01';
"""
EVENTS = "INSERT OR UPDATE OR DELETE OR TRUNCATE"


@pytest_asyncio.fixture
async def site(empty_database: Database) -> AsyncIterator[Database]:
    """Somebody's own database, nothing of it watched."""
    await empty_database.connection.execute(SITE)
    yield empty_database
    await empty_database.connection.execute("DROP SERVER elsewhere CASCADE")


async def put_triggers(database: Database, *views: str) -> list[str]:
    """What `mailmaps schema watch` does for these views."""
    sources = "".join(f'[tables.t{i}]\nparameter = "check_sender_access"\nsources = ["view:{view}"]\n'
                      for i, view in enumerate(views))  # fmt: skip
    return await watch(database.connection, parse(sources), lambda _: None)


async def seen(database: Database, *views: str) -> dict[str, Watch]:
    """As `mailreader` sees it."""
    async with database.connect(database.reader_dsn) as reader:
        return await read_watches(reader, views)


async def one(database: Database, view: str) -> Watch:
    return (await seen(database, view))[view]


async def test_the_builtin_views_are_watched(database: Database) -> None:
    watches = await seen(database, *BUILTIN)
    assert {view: found.problem for view, found in watches.items()} == dict.fromkeys(BUILTIN, "")
    assert watches["mailmaps.relay_recipient_maps"].relations == {"mailmaps.relay_recipients"}
    assert watches["mailmaps.virtual_mailbox_maps"].relations == {
        "public.user_accounts",
        "public.user_addresses",
        "mailmaps.rights",
        "mailmaps.settings",
    }


async def test_a_builtin_view_without_its_triggers_wants_the_upgrade(database: Database) -> None:
    await database.connection.execute(
        "ALTER TABLE user_accounts DISABLE TRIGGER mailmaps_watch_truncate;"
        "DROP TRIGGER mailmaps_watch_update ON user_addresses"
    )
    found = await one(database, "mailmaps.virtual_uid_maps")
    assert found.problem == (
        "public.user_accounts, public.user_addresses: not all changes are notified; "
        "run `mailmaps schema upgrade`"
    )
    assert (await one(database, "mailmaps.relay_domains")).problem == ""


async def test_triggers_without_keys_do_not_do_for_a_builtin_view(database: Database) -> None:
    await database.connection.execute("DROP TRIGGER mailmaps_watch_update ON mailmaps.relays")
    await database.connection.execute(
        "CREATE VIEW own AS SELECT domain AS key, transport AS value FROM mailmaps.relays"
    )
    assert await put_triggers(database, "public.own") == []
    watches = await seen(database, "public.own", "mailmaps.relay_domains")
    assert watches["public.own"].problem == ""
    assert "mailmaps schema upgrade" in watches["mailmaps.relay_domains"].problem


async def test_a_schema_from_before_wants_the_upgrade(database: Database) -> None:
    await database.connection.execute(
        "DO $$ BEGIN EXECUTE (SELECT string_agg(format('DROP FUNCTION %s CASCADE;', oid::regprocedure), '') "
        "FROM pg_proc WHERE proname LIKE 'notify\\_%'); END $$"
    )
    assert all(
        "`mailmaps schema upgrade`" in found.problem for found in (await seen(database, *BUILTIN)).values()
    )


async def test_a_view_has_the_tables_under_it(site: Database) -> None:
    watches = await seen(site, "public.boxes", "public.aliases", "public.odd", "public.mailbox")
    boxes = {"public.mailbox", "public.old_mailbox"}
    assert watches["public.boxes"].relations == watches["public.mailbox"].relations == boxes
    assert watches["public.aliases"].relations == boxes | {
        "public.alias",
        "public.alias_rest",
        "public.alias_one",
    }
    assert watches["public.odd"].relations == {"Odd Schema.Odd Table"}
    assert watches["public.odd"].problem == (
        "Odd Schema.Odd Table: not all changes are notified; run `mailmaps schema watch`"
    )


async def test_watched_tables_leave_no_problem(site: Database) -> None:
    views = ["public.aliases", "public.odd", "public.folded", "public.by_constant"]
    assert await put_triggers(site, *views) == []
    assert {view: found.problem for view, found in (await seen(site, *views)).items()} == dict.fromkeys(
        views, ""
    )


async def test_a_new_partition_is_noticed(site: Database) -> None:
    await put_triggers(site, "public.aliases")
    before = await one(site, "public.aliases")
    await site.connection.execute("CREATE TABLE alias_two PARTITION OF alias FOR VALUES IN ('x')")
    after = await one(site, "public.aliases")
    assert after.problem.startswith("public.alias_two: not all changes are notified")
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        ("nothing", "there is no such view"),
        ("of_copied", "public.copied is a materialized view, and REFRESH is not notified"),
        ("copied", "public.copied is a materialized view, and REFRESH is not notified"),
        ("of_far", "public.far is a foreign table, and its changes elsewhere are not notified"),
        ("of_roles", "pg_roles is the system's own, and its changes are not notified"),
        ("of_catalog", "pg_class is the system's own, and its changes are not notified"),
        ("of_sequence", "public.numbers is a sequence, and its changes are not notified"),
        ("by_now", f"{UNSTEADY} (it calls pg_catalog.now)"),
        ("on_by_now", f"{UNSTEADY} (it calls pg_catalog.now)"),
        ("by_date", f"{UNSTEADY} (it has the time or a sample in it)"),
        ("by_sample", f"{UNSTEADY} (it has the time or a sample in it)"),
        ("by_chance", f"{UNSTEADY} (it calls pg_catalog.random)"),
        ("by_careless", f"{UNSTEADY} (it calls public.careless)"),
        ("by_dated", f"{UNSTEADY} (it calls public.dated)"),
        ("by_looking", "it calls public.looking, which is not IMMUTABLE: what that reads cannot be seen"),
    ],
)
async def test_what_cannot_be_watched_is_named(site: Database, view: str, problem: str) -> None:
    await put_triggers(site, f"public.{view}")
    found = (await one(site, f"public.{view}")).problem
    assert (
        found.replace("pg_catalog.pg_roles", "pg_roles").replace("pg_catalog.pg_class", "pg_class") == problem
    )


async def test_a_subscribers_table_is_named(site: Database) -> None:
    await put_triggers(site, "public.boxes")
    await site.connection.execute(
        """CREATE SUBSCRIPTION far CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p
              WITH (connect = false, slot_name = NONE)"""
    )
    try:
        # As if the publisher had named the table.
        await site.connection.execute(
            "SET allow_system_table_mods = on;"
            "INSERT INTO pg_subscription_rel SELECT oid, 'mailbox'::regclass, 'r', NULL FROM pg_subscription"
        )
        found = await one(site, "public.boxes")
    finally:
        await site.connection.execute("DROP SUBSCRIPTION far")
    problem = "public.mailbox is filled by logical replication, which fires no statement triggers"
    assert found.problem == problem


CHANGED = [
    "ALTER TABLE mailbox DISABLE TRIGGER mailmaps_watch_update",
    "ALTER TABLE mailbox DISABLE TRIGGER ALL; ALTER TABLE mailbox ENABLE TRIGGER ALL",
    "CREATE OR REPLACE VIEW boxes AS SELECT username AS key, lower(maildir) AS value FROM mailbox",
    "ALTER TABLE mailbox ADD COLUMN more text DEFAULT random()::text",
    "CREATE OR REPLACE FUNCTION pure(x text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT upper(x) $$",
    "CREATE TABLE older () INHERITS (mailbox)",
    "DROP VIEW folded; CREATE VIEW folded AS SELECT pure(lower(username)) AS key, '' AS value FROM mailbox",
]


@pytest.mark.parametrize("change", CHANGED)
async def test_the_fingerprint_follows_what_defines_the_rows(site: Database, change: str) -> None:
    views = ["public.boxes", "public.folded"]
    await put_triggers(site, *views)
    before = await seen(site, *views)
    await site.connection.execute("INSERT INTO mailbox VALUES ('a', 'b')")
    await site.connection.execute("VACUUM ANALYZE mailbox")
    assert await seen(site, *views) == before, "rows are no matter of it"
    await site.connection.execute(change)
    after = await seen(site, *views)
    assert [view for view in views if after[view].fingerprint != before[view].fingerprint]


@pytest.mark.parametrize(
    ("how", "problem"),
    [("ENABLE", "x"), ("ENABLE ALWAYS", ""), ("ENABLE REPLICA", "x"), ("DISABLE", "x")],
)
async def test_enabled_is_enabled(site: Database, how: str, problem: str) -> None:
    await put_triggers(site, "public.boxes")
    await site.connection.execute(f"ALTER TABLE mailbox {how} TRIGGER mailmaps_watch_delete")
    expected = (
        "public.mailbox: triggers of ours are not enabled always; run `mailmaps schema watch`"
        if problem
        else ""
    )
    assert (await one(site, "public.boxes")).problem == expected


async def test_a_trigger_that_does_not_see_all_does_not_count(site: Database) -> None:
    await put_triggers(site, "public.odd", "public.boxes")
    await site.connection.execute(
        """DROP TRIGGER mailmaps_watch_update ON mailbox;
           CREATE TRIGGER mailmaps_watch_update AFTER UPDATE OF maildir ON mailbox
              FOR EACH STATEMENT EXECUTE FUNCTION mailmaps_changes.relation_changed()"""
    )
    assert (await one(site, "public.boxes")).problem.startswith("public.mailbox: not all changes")


async def relations(connection: Connection, *names: str) -> dict[str, Watch]:
    return await read_relations(connection, names)


async def test_relations_by_name(site: Database) -> None:
    await put_triggers(site, "public.boxes")
    await site.connection.execute("CREATE SCHEMA mailreader; GRANT USAGE ON SCHEMA mailreader TO mailreader")
    await site.connection.execute("CREATE TABLE mailreader.alias (address text)")
    async with site.connect(site.reader_dsn) as reader:
        found = await relations(reader, "mailbox", "public.alias", "alias", "boxes", "no.table", "none")
    assert found["mailbox"] == Watch(
        frozenset({"public.mailbox", "public.old_mailbox"}), "", found["mailbox"].fingerprint
    )
    assert found["boxes"].relations == found["mailbox"].relations
    assert found["public.alias"].relations == {"public.alias", "public.alias_rest", "public.alias_one"}
    assert found["alias"].relations == {"mailreader.alias"}, "along the search_path"
    assert found["no.table"] == found["none"] == Watch(frozenset(), "there is no such table", "")
    assert "mailmaps schema watch" in found["public.alias"].problem


async def test_no_names_no_rows(site: Database) -> None:
    assert await seen(site) == {}
