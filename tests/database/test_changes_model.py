"""A mirror that re-reads only what is notified stays equal to the views, whatever is written.

Random transactions over a tiny world, in a real PostgreSQL; after each commit the keys and groups that came
are read again `WHERE key = ANY`, and nothing else, and the mirror must equal all views, sender_rights too.

A longer run by hand: EXAMPLES=3000 pytest tests/database/test_changes_model.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import defaultdict
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.tables import DEFAULT_TABLES

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))

GROUPS = {
    "domains": {"virtual_mailbox_domains", "transport_maps", "relay_domains"},
    "relay_recipients": {"relay_recipient_maps"},
    "addresses": {
        "virtual_alias_maps",
        "virtual_mailbox_maps",
        "virtual_uid_maps",
        "virtual_gid_maps",
        "smtpd_sender_login_maps",
        "sender_rights",
    },
}
DOMAINS = ("a.test", "b.test", "c.test")
LOCALS = ("x", "x", "x+e", "y", '"p q"', '"p q+e"', '"x+ e"', "y-e+f", "owner-x")
ADDRESSES = [f"{local}@{domain}" for domain in DOMAINS for local in LOCALS]
CATCH_ALLS = [f"@{domain}" for domain in DOMAINS]
# Behind saslauthd `x` may log in as x@a.test, which others have as address or username.
USERNAMES = ("u0", "u1", "x", "X", "x@a.test", "x@d.test")
# login_realm, login_addresses
SPELLINGS = {
    "plain": ("", False),
    "realm": ("a.test", False),
    "spelt": ("A.test", True),
    "alias": ("d.test", True),
}

domains = st.sampled_from([*DOMAINS, "c.test", "C.test", ".sub.test"])
alias_domains = st.sampled_from([*DOMAINS, "d.test", "out.test"])
EITHER = [*ADDRESSES, *CATCH_ALLS * 3]
addresses = st.sampled_from(EITHER)
targets = st.sampled_from([*EITHER, *EITHER, "x@out.test", "@out.test", "x@d.test", "x+e@d.test"])
# The how-to's tables take what is no address too.
EMAILS = ["x@a.test", "X@b.test", "x@c.test", "y@a.test", "x+e@b.test", "x@out.test", "@a.test", "nobody"]
emails = st.sampled_from(EMAILS)
listed = st.sampled_from([*EITHER, *EMAILS * 3])
usernames = st.sampled_from(USERNAMES)
active = st.sampled_from(["1", "1", "0"])
# One row of those that are there, modulo their number.
places = st.integers(0, 19)

Statement = tuple[str, tuple[Any, ...]]


def statement(sql: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Statement]:
    """`[TABLE]` stands for one of its rows, whose number is $1."""
    return st.tuples(st.just(re.sub(r"\[([\w.]+)\]", _row, sql)), st.tuples(*arguments))


def _row(match: re.Match[str]) -> str:
    table = match[1]
    return (
        f"{table}.ctid = (SELECT r.ctid FROM {table} AS r ORDER BY r::text "
        f"LIMIT 1 OFFSET $1::int % greatest(1, (SELECT count(*) FROM {table})))"
    )


insert_account = statement(
    "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
    "VALUES ($1, $2, 100, $3, 'm', $4)",
    usernames,
    st.integers(1, 6),
    emails,
    active,
)
insert_listed = statement("INSERT INTO user_addresses VALUES ($1, $2)", usernames, listed)
insert_forward = statement("INSERT INTO mailmaps.forwards VALUES ($1, $2)", addresses, targets)
insert_alias = statement("INSERT INTO mailmaps.domain_aliases VALUES ($1, $2)", alias_domains, domains)
insert_domain = statement("INSERT INTO domains (gid, domain) VALUES ($1, $2)", st.integers(1, 6), domains)

ACCOUNTS = [
    insert_account,
    statement("DELETE FROM user_accounts WHERE [user_accounts]", places),
    statement("UPDATE user_accounts SET email = $2 WHERE [user_accounts]", places, emails),
    statement("UPDATE user_accounts SET email = $2 WHERE [user_accounts]", places, emails),
    *[statement("UPDATE user_accounts SET active = $2 WHERE [user_accounts]", places, active)] * 3,
    statement("UPDATE user_accounts SET mailbox = mailbox || $2::text WHERE [user_accounts]", places, active),
    statement("UPDATE user_accounts SET active = $1, password = 'x'", active),
    statement(
        """WITH moved AS (UPDATE user_accounts SET username = $2 WHERE username = $1)
           UPDATE user_addresses SET username = $2 WHERE username = $1""",
        usernames,
        usernames,
    ),
]
LISTED = [
    *[insert_listed] * 3,
    *[statement("DELETE FROM user_addresses WHERE [user_addresses]", places)] * 2,
    statement("UPDATE user_addresses SET username = $2 WHERE [user_addresses]", places, usernames),
    statement("UPDATE user_addresses SET alias = $2 WHERE [user_addresses]", places, listed),
]
RIGHTS = [
    *[statement("INSERT INTO mailmaps.rights (username, receive) VALUES ($1, $2)", usernames, st.booleans())]
    * 2,
    statement("UPDATE mailmaps.rights SET receive = NOT receive WHERE [mailmaps.rights]", places),
    statement("UPDATE mailmaps.rights SET username = $2 WHERE [mailmaps.rights]", places, usernames),
    statement("UPDATE mailmaps.rights SET imap = NOT imap"),
    statement("DELETE FROM mailmaps.rights WHERE [mailmaps.rights]", places),
]
FORWARDS = [
    *[insert_forward] * 4,
    *[statement("DELETE FROM mailmaps.forwards WHERE [mailmaps.forwards]", places)] * 3,
    statement("UPDATE mailmaps.forwards SET target = $2 WHERE [mailmaps.forwards]", places, targets),
    statement("UPDATE mailmaps.forwards SET address = $2 WHERE [mailmaps.forwards]", places, addresses),
]
ALL_DOMAINS = [
    *[insert_domain] * 2,
    *[insert_alias] * 2,
    statement("DELETE FROM domains WHERE [domains]", places),
    statement("UPDATE domains SET domain = $2 WHERE [domains]", places, domains),
    statement("UPDATE domains SET transport = $2 WHERE [domains]", places, st.sampled_from(["", "smtp:"])),
    statement("DELETE FROM mailmaps.domain_aliases WHERE [mailmaps.domain_aliases]", places),
    statement(
        "UPDATE mailmaps.domain_aliases SET target = $2 WHERE [mailmaps.domain_aliases]", places, domains
    ),
    statement("UPDATE mailmaps.domain_aliases SET domain = $1", alias_domains),
]
OTHERS = [
    statement("INSERT INTO mailmaps.relays VALUES ($1)", alias_domains),
    statement("UPDATE mailmaps.relays SET transport = transport || 'x'"),
    statement("DELETE FROM mailmaps.relays WHERE [mailmaps.relays]", places),
    statement("INSERT INTO mailmaps.relay_recipients VALUES ($1)", targets),
    statement("DELETE FROM mailmaps.relay_recipients WHERE [mailmaps.relay_recipients]", places),
    statement(
        "UPDATE mailmaps.settings SET recipient_delimiter = $1", st.sampled_from(["+", "-", "+-", "", "é"])
    ),
    statement("UPDATE mailmaps.settings SET honour_active = NOT honour_active"),
    statement("UPDATE mailmaps.settings SET login_addresses = NOT login_addresses"),
    statement("UPDATE mailmaps.settings SET login_realm = $1", st.sampled_from(["", "b.test"])),
    statement("TRUNCATE mailmaps.rights"),
    statement("TRUNCATE mailmaps.forwards"),
    statement("TRUNCATE user_addresses"),
    statement("TRUNCATE mailmaps.domain_aliases, mailmaps.relays, mailmaps.relay_recipients"),
    statement("TRUNCATE domains CASCADE"),
]
# (st.one_of would forget the weights.)
statements = st.sampled_from(
    [*ACCOUNTS * 6, *LISTED * 6, *RIGHTS * 4, *FORWARDS * 6, *ALL_DOMAINS * 4, *OTHERS]
).flatmap(lambda chosen: chosen)
transactions = st.lists(statements, min_size=1, max_size=3)
# A world to begin with: written by statements too, of which some are refused.
worlds = st.tuples(
    st.lists(insert_account, min_size=2, max_size=4),
    st.lists(insert_listed, min_size=1, max_size=6),
    st.lists(insert_forward, min_size=2, max_size=12),
    st.lists(insert_alias, max_size=2),
).map(lambda parts: [one for part in parts for one in part])

START = """
TRUNCATE domains, user_accounts, user_addresses, mailmaps.forwards, mailmaps.domain_aliases,
   mailmaps.domain_alias_keys, mailmaps.relays, mailmaps.relay_recipients, mailmaps.rights;
UPDATE mailmaps.settings SET recipient_delimiter = '+', honour_active = true, login_realm = '{realm}',
   login_addresses = {addresses};
INSERT INTO domains (gid, domain) VALUES (1, 'a.test'), (2, 'b.test'), (100, 'base.test');
"""
EVERYTHING = " UNION ALL ".join(
    f"SELECT '{table}', key, value FROM mailmaps.{table}" for table in (*DEFAULT_TABLES, "sender_rights")
)
PARTS = {
    group: " UNION ALL ".join(
        f"SELECT '{table}', key, value FROM mailmaps.{table} WHERE key = ANY ($1)" for table in tables
    )
    for group, tables in GROUPS.items()
}

Rows = dict[tuple[str, str], list[str]]


class Mirror:
    """All these views, kept by notifications alone."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], start: str) -> None:
        self.connection = connection
        self._start = start
        self.rows: Rows = {}
        self.heard: list[str] = []

    async def start(self) -> None:
        await self.connection.execute(self._start)
        self.rows = await self.read(EVERYTHING)
        self.heard.clear()

    async def read(self, query: str, *arguments: object) -> Rows:
        rows: Rows = defaultdict(list)
        for table, key, value in await self.connection.fetch(query, *arguments):
            rows[table, key].append(str(value))
        return {place: sorted(values) for place, values in rows.items()}

    async def run(self, transaction: list[Statement]) -> None:
        """One transaction; a statement that is refused is taken back alone."""
        async with self.connection.transaction():
            for sql, arguments in transaction:
                try:
                    async with self.connection.transaction():
                        await self.connection.execute(sql, *arguments)
                except asyncpg.IntegrityConstraintViolationError:
                    continue

    async def follow(self) -> None:
        """Read what was notified."""
        heard, self.heard = self.heard, []
        for change in map(json.loads, heard):
            if group := change.get("of"):
                keys = change.get("keys")
                if keys is None:
                    keys = list({key for table, key in self.rows if table in GROUPS[group]})
                    whole = await self.read(EVERYTHING)
                    keys += [key for table, key in whole if table in GROUPS[group]]
                fresh = await self.read(PARTS[group], keys)
                for table in GROUPS[group]:
                    for key in keys:
                        self.rows.pop((table, key), None)
                self.rows |= fresh


@pytest.mark.parametrize("limit", [500, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_notified_is_all_that_changed(
    postgres: EmbeddedPostgres, template: str, spelling: str, limit: int
) -> None:
    name = f"changes_model_{spelling}_{limit}"
    realm, addresses = SPELLINGS[spelling]
    start = START.format(realm=realm, addresses=addresses)
    with asyncio.Runner() as runner:
        mirror = runner.run(_open(postgres, template, name, limit, start))

        async def follow(sequence: list[list[Statement]]) -> None:
            await mirror.start()
            for transaction in sequence:
                await mirror.run(transaction)
                heard = list(mirror.heard)
                await mirror.follow()
                views = await mirror.read(EVERYTHING)
                stale = {
                    place
                    for place in views.keys() | mirror.rows.keys()
                    if views.get(place) != mirror.rows.get(place)
                }
                assert not stale, f"{stale} after {transaction}; heard {heard}"

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(worlds, st.lists(transactions, min_size=5, max_size=20))
        def keep(world: list[Statement], sequence: list[list[Statement]]) -> None:
            runner.run(follow([world, *sequence]))

        try:
            keep()
        finally:
            runner.run(_close(postgres, mirror, name))


async def _open(postgres: EmbeddedPostgres, template: str, name: str, limit: int, start: str) -> Mirror:
    admin = await asyncpg.connect(postgres.dsn())
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    await admin.close()
    connection = await asyncpg.connect(
        postgres.dsn(name), server_settings={"plan_cache_mode": "force_generic_plan", "jit": "off"}
    )
    await connection.execute(
        f"CREATE OR REPLACE FUNCTION mailmaps.most_keys() RETURNS integer IMMUTABLE RETURN {limit}"
    )
    mirror = Mirror(connection, start)
    await connection.add_listener("mailmaps", lambda _, __, ___, payload: mirror.heard.append(str(payload)))
    return mirror


async def _close(postgres: EmbeddedPostgres, mirror: Mirror, name: str) -> None:
    await mirror.connection.close()
    admin = await asyncpg.connect(postgres.dsn())
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
