"""At 100,000 accounts every question is answered by index, whatever plan the server keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import Connection, Database

from mailmaps.maps.tables import DEFAULT_TABLES

ACCOUNTS = 100_000
BIG = {"user_accounts", "user_addresses", "domain_alias_keys", "forwards", "relay_recipients",
       "domains", "domain_aliases", "relays"}  # fmt: skip
LOAD = f"""
INSERT INTO domains SELECT i, 'dom' || i || '.test' FROM generate_series(1, 1000) i;
INSERT INTO domains SELECT i, 'other' || i || '.test' FROM generate_series(1001, 20000) i;
INSERT INTO mailmaps.domain_aliases SELECT 'alias' || i || '.test', 'dom' || i || '.test'
   FROM generate_series(1, 200) i;
INSERT INTO mailmaps.domain_aliases SELECT 'empty' || i || '.test', 'other' || i || '.test'
   FROM generate_series(1001, 20000) i;
INSERT INTO mailmaps.relays SELECT 'relay' || i || '.test', 'smtp:' FROM generate_series(1, 20000) i;
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   SELECT 'u' || i, i, 1 + i % 1000, 'user' || i || '@dom' || 1 + i % 1000 || '.test', 'm' || i,
          CASE WHEN i % 50 = 0 THEN '0' ELSE '1' END
   FROM generate_series(1, {ACCOUNTS}) i;
INSERT INTO user_addresses SELECT username, email FROM user_accounts;
INSERT INTO user_addresses SELECT username, 'Alias.' || email FROM user_accounts;
INSERT INTO mailmaps.forwards
   SELECT 'fwd' || i || '@dom' || 1 + i % 1000 || '.test',
          CASE i % 2 WHEN 0 THEN 'out' || i || '@else.test'
                     ELSE 'user' || i || '@dom' || 1 + i % 1000 || '.test' END
   FROM generate_series(1, 50000) i;
INSERT INTO mailmaps.relay_recipients SELECT 'r' || i || '@relay.test' FROM generate_series(1, 50000) i;
ANALYZE;
"""
FEW = ["alias.user7+x@dom8.test", "alias.user7@dom8.test", "user7@dom8.test", "@dom8.test", "fwd1@dom2.test",
       "user7@alias8.test", "r5@relay.test", "dom8.test", "u7", "nobody@dom8.test", ".test"]  # fmt: skip
MANY = [f"user{i}@dom{1 + i % 1000}.test" for i in range(1, 301)]

# Held connections keep the generic plan, made for any number of keys (docs/schema.md); a plan for many
# given keys may well read a table whole.
PLANS = (("force_generic_plan", FEW), ("force_generic_plan", MANY), ("force_custom_plan", FEW))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def scans(connection: Connection, table: str, keys: list[str], mode: str) -> set[str]:
    """The big tables that the plan would read whole."""
    await connection.execute(f"SET plan_cache_mode = {mode}")
    question = "SELECT key::text, value::text FROM mailmaps.{} WHERE key = ANY ($1)"
    if table == "logins":
        question = "SELECT * FROM mailmaps.{} WHERE login = ANY ($1::text[])"
    await connection.execute(f"PREPARE ask (text[]) AS {question.format(table)}")
    words = ", ".join(f"'{key}'" for key in keys)
    plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE ask (ARRAY[{words}])"))
    await connection.execute("DEALLOCATE ask")
    return {node["Relation Name"] for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"} & BIG


async def test_no_question_reads_a_big_table(database: Database) -> None:
    connection = database.connection
    await connection.execute(LOAD)
    assert await connection.fetchval("SELECT count(*) FROM mailmaps.domain_alias_keys") == 50_000
    found = {
        (table, mode, len(keys)): read
        for table in (*DEFAULT_TABLES, "sender_rights", "logins")
        for mode, keys in PLANS
        if (read := await scans(connection, table, keys, mode))
    }
    assert found == {}
    for question in (
        "SELECT uid FROM user_accounts WHERE email = 'user7@dom8.test'",
        "SELECT gid FROM user_accounts WHERE mailmaps.fold(email) COLLATE \"C\" = 'user7@dom8.test'",
        "SELECT mailbox FROM postfix_mailboxes WHERE address = 'user7@dom8.test'",
        "SELECT address FROM postfix_aliases WHERE alias = 'user7@dom8.test'",
    ):
        plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {question}"))
        assert {n["Relation Name"] for n in nodes(plan[0]["Plan"]) if n["Node Type"] == "Seq Scan"} == set()


async def test_a_login_reads_a_handful_of_rows(database: Database) -> None:
    """By PostgreSQL's own count, in the transaction; so does the owner of an address as logins are spelt."""
    await database.connection.execute(LOAD.replace(str(ACCOUNTS), "20000"))
    await database.connection.execute(
        """SET plan_cache_mode = force_generic_plan;
           UPDATE mailmaps.settings SET login_realm = 'dom8.test', login_addresses = true"""
    )
    read = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
              WHERE relname = ANY ($1)"""
    for question, rows in (
        ("SELECT * FROM mailmaps.logins WHERE login = ANY ($1::text[])", 3),
        ("SELECT * FROM mailmaps.smtpd_sender_login_maps WHERE key = ANY ($1::text[])", 2 * 6),
    ):
        async with database.connection.transaction():
            found = await database.connection.fetch(
                question, ["u7", "user7@dom8.test", "alias.user7@alias8.test"]
            )
            assert len(found) == rows, found
            assert await database.connection.fetchval(read, sorted(BIG)) < 200, question


async def test_a_reading_is_complete(database: Database) -> None:
    """The whole listing of every view agrees with its parts, by count."""
    await database.connection.execute(LOAD.replace(str(ACCOUNTS), "2000").replace("50000", "1000"))
    counts = {
        table: await database.connection.fetchval(f"SELECT count(DISTINCT key) FROM mailmaps.{table}")
        for table in DEFAULT_TABLES
    }
    assert counts["virtual_mailbox_maps"] == counts["virtual_uid_maps"] == counts["virtual_gid_maps"] == 4000
    assert counts["relay_recipient_maps"] == 1000
    assert counts["virtual_mailbox_domains"] == 1200 + 2 * 19_000
    assert counts["transport_maps"] == counts["virtual_mailbox_domains"] + 20_000
    assert counts["relay_domains"] == 20_000
    assert counts["smtpd_sender_login_maps"] == 4000 + 1000 + 800 + 200
    assert counts["virtual_alias_maps"] == 4000 + 1000 + 800 + 200


@pytest.mark.parametrize("table", [*DEFAULT_TABLES, "sender_rights"])
async def test_an_empty_schema_answers_nothing(database: Database, table: str) -> None:
    assert await database.connection.fetch(f"SELECT key, value FROM mailmaps.{table}") == []
