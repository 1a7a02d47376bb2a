"""The rows of the outage tests: some that nobody changes, and what writers change, each their own.

Contract: `SETUP` is SQL for a database with our schema. `KNOWN` are places that are found whatever writers
do, `UNKNOWN` places that never are. `writers()` are sets of rows that depend on nobody else's, so that of
each place alone it is known what was true when: forwards, accounts (with forwards that reach them, and the
keys that a domain alias adds), domains and their aliases, and a table that is truncated and filled again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.system.outages.history import Place
from tests.system.outages.writer import Rows

FIXED_ACCOUNTS = 12
FORWARDS = 8
ACCOUNTS = 4
DOMAINS = 3
BULK = 1500
"""Rows that one statement writes: their keys do not go into one notification (8000 bytes)."""

BULK_WEIGHT = 0.03
"""Each has a whole table read again, and while that is due it is not proven; not all the time, please."""

RELAYED = [
    Place("relay_recipient_maps", f"{name}@relay.test") for name in ("there", "r1", "r2", "qr2", "r30")
]

ADDRESS_TABLES = ("virtual_alias_maps", "virtual_mailbox_maps", "virtual_uid_maps", "smtpd_sender_login_maps")
DOMAIN_TABLES = ("virtual_mailbox_domains", "transport_maps")

SETUP = f"""
INSERT INTO domains (gid, domain) VALUES (6000, 'fixed.test'), (6001, 'catch.test'), (6002, 'w.test'),
   (6003, 'all.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   SELECT 's' || n, 6100 + n, 6000, 's' || n || '@fixed.test', 'fixed.test/s' || n, '1'
   FROM generate_series(0, {FIXED_ACCOUNTS - 1}) n;
INSERT INTO user_addresses (username, alias)
   SELECT 's' || n, a || n || '@fixed.test'
   FROM generate_series(0, {FIXED_ACCOUNTS - 1}) n, (VALUES ('s'), ('also')) t (a);
INSERT INTO mailmaps.forwards (address, target) VALUES
   ('team@fixed.test', 's1@fixed.test'), ('team@fixed.test', 'somebody@elsewhere.test'),
   ('@catch.test', 's2@fixed.test');
INSERT INTO mailmaps.domain_aliases (domain, target)
   VALUES ('alias.test', 'fixed.test'), ('w-alias.test', 'w.test');
INSERT INTO mailmaps.relays (domain) VALUES ('relay.test');
INSERT INTO mailmaps.relay_recipients (address) VALUES ('there@relay.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   SELECT 'u' || n, 6200 + n, 6002, 'u' || n || '@w.test', 'w.test/u' || n, '1'
   FROM generate_series(0, {ACCOUNTS - 1}) n;
INSERT INTO mailmaps.forwards (address, target)
   SELECT 'near' || n || '@w.test', 'u' || n || '@w.test' FROM generate_series(0, {ACCOUNTS - 1}) n;
INSERT INTO mailmaps.forwards (address, target)
   SELECT 'far' || n || '@w.test', 'near' || n || '@w.test' FROM generate_series(0, {ACCOUNTS - 1}) n;
INSERT INTO mailmaps.forwards (address, target)
   SELECT 'into' || n || '@w.test', 'x@d' || n || '.test' FROM generate_series(0, {DOMAINS - 1}) n;
"""

KNOWN: Sequence[Place] = (
    *(Place(table, f"s{n}@fixed.test") for table in ADDRESS_TABLES for n in range(FIXED_ACCOUNTS)),
    *(
        Place(table, f"also{n}@alias.test")
        for table in ("virtual_alias_maps",)
        for n in range(FIXED_ACCOUNTS)
    ),
    Place("virtual_alias_maps", "team@fixed.test"),
    Place("virtual_alias_maps", "anybody@catch.test"),
    Place("virtual_gid_maps", "s0@fixed.test"),
    *(Place(table, name) for table in DOMAIN_TABLES for name in ("fixed.test", "catch.test", "alias.test")),
    Place("relay_domains", "relay.test"),
)

UNKNOWN: Sequence[Place] = (
    *(Place(table, f"nobody{n}@fixed.test") for table in ADDRESS_TABLES for n in range(FIXED_ACCOUNTS)),
    Place("virtual_gid_maps", "nobody0@fixed.test"),
    *(Place(table, name) for table in DOMAIN_TABLES for name in ("elsewhere.test", "no.fixed.test")),
    Place("relay_domains", "elsewhere.test"),
)

TANGLE = (
    "INSERT INTO mailmaps.forwards SELECT 't' || (random() * 9)::int || d, 't' || (random() * 9)::int || d "
    "FROM (VALUES ('@w.test'), ('@all.test')) AS v (d) ON CONFLICT DO NOTHING",
    "DELETE FROM mailmaps.forwards WHERE address = 't' || (random() * 9)::int || '@w.test'",
    "INSERT INTO mailmaps.forwards VALUES ('t' || (random() * 9)::int || '@w.test', "
    "'v' || (random() * 2)::int || '@w.test') ON CONFLICT DO NOTHING",
    "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
    "SELECT 'v' || n, 90000 + n, 6002, 'v' || n || '@w.test', 'w.test/v' || n, '1' "
    "FROM generate_series(0, 2) n ON CONFLICT DO NOTHING",
    "UPDATE user_accounts SET active = CASE active WHEN '1' THEN '0' ELSE '1' END "
    "WHERE username = 'v' || (random() * 2)::int",
    "DELETE FROM user_accounts WHERE username = 'v' || (random() * 2)::int",
    "INSERT INTO mailmaps.domain_aliases VALUES ('tangle.test', 'w.test') ON CONFLICT DO NOTHING",
    "DELETE FROM mailmaps.domain_aliases WHERE domain = 'tangle.test'",
    "INSERT INTO mailmaps.forwards VALUES ('t' || (random() * 9)::int || '@all.test', '@w.test') "
    "ON CONFLICT DO NOTHING",
)
"""Statements about rows that several writers change at once."""

ROWS_OF_THEIR_OWN = [place for place in KNOWN if "catch.test" not in place.key or "@" not in place.key]
"""Known without a catch-all, which counts only while it is known that the address itself is nobody's."""

SENDERS_KNOWN, SENDERS_UNKNOWN = (
    [place for place in places if place.table == "smtpd_sender_login_maps"] for places in (KNOWN, UNKNOWN)
)
"""Who may send as whom: believed for a shorter time."""


def writers(*, entangled: bool = False) -> list[list[Rows]]:
    """The rows of each writer; `entangled` adds some that are everybody's, and of which nothing is known."""
    more = [Rows(TANGLE, [])] * 4 if entangled else []
    return [
        [_forward(n) for n in range(FORWARDS)] + [_catch_all()] + more,
        [_account(n) for n in range(ACCOUNTS)] + more,
        [_domain(n) for n in range(DOMAINS)] + [_domain_alias(n) for n in range(DOMAINS)] + more,
        [_relay_recipients(), _all_relay_recipients(), _bulk(), *more],
    ]


def _aliases(local: str) -> list[Place]:
    """An address of w.test, and the one that its domain alias adds."""
    return [Place("virtual_alias_maps", f"{local}@{domain}") for domain in ("w.test", "w-alias.test")]


def _forward(n: int) -> Rows:
    address = f"f{n}@w.test"
    insert = "INSERT INTO mailmaps.forwards VALUES ('{}', '{}') ON CONFLICT DO NOTHING"
    return Rows(
        [
            insert.format(address, "one@elsewhere.test"),
            insert.format(address, "two@elsewhere.test"),
            "UPDATE mailmaps.forwards SET target = md5(target || random()) || '@elsewhere.test' "
            f"WHERE address = '{address}'",
            f"DELETE FROM mailmaps.forwards WHERE address = '{address}' AND target LIKE 'one%'",
            f"DELETE FROM mailmaps.forwards WHERE address = '{address}'",
        ],
        _aliases(f"f{n}"),
    )


def _catch_all() -> Rows:
    """With it, anybody is somebody there, also for a forward from elsewhere."""
    return Rows(
        [
            "INSERT INTO mailmaps.forwards VALUES ('@all.test', 'all@elsewhere.test') ON CONFLICT DO NOTHING",
            "UPDATE mailmaps.forwards SET target = md5(target || random()) || '@elsewhere.test' "
            "WHERE address = '@all.test'",
            "DELETE FROM mailmaps.forwards WHERE address = '@all.test'",
        ],
        [Place("virtual_alias_maps", "anybody@all.test"), *_aliases("reach")],
    )


def _account(n: int) -> Rows:
    name, email = f"u{n}", f"u{n}@w.test"
    more = f"INSERT INTO user_addresses (username, alias) VALUES ('{name}', 'more{n}@w.test')"
    return Rows(
        [
            f"UPDATE user_accounts SET active = '0' WHERE username = '{name}'",
            f"UPDATE user_accounts SET active = '1' WHERE username = '{name}'",
            f"UPDATE user_accounts SET mailbox = 'w.test/' || random() WHERE username = '{name}'",
            f"UPDATE user_accounts SET uid = uid + 100 WHERE username = '{name}' AND uid < 60000",
            f"{more} ON CONFLICT DO NOTHING",
            f"DELETE FROM user_addresses WHERE alias = 'more{n}@w.test'",
        ],
        [
            *(Place(table, email) for table in ADDRESS_TABLES),
            *(Place(table, f"more{n}@w.test") for table in ADDRESS_TABLES),
            *_aliases(f"near{n}"),
            *_aliases(f"far{n}"),
            *_aliases(f"more{n}"),
            Place("smtpd_sender_login_maps", f"u{n}@w-alias.test"),
        ],
    )


def _domain(n: int) -> Rows:
    """While it is ours, a forward to an unknown user there leads nowhere."""
    return Rows(
        [
            f"INSERT INTO domains (gid, domain) VALUES ({7000 + n}, 'd{n}.test') ON CONFLICT DO NOTHING",
            f"DELETE FROM domains WHERE domain = 'd{n}.test'",
        ],
        [*(Place(table, f"d{n}.test") for table in DOMAIN_TABLES), *_aliases(f"into{n}")],
    )


def _domain_alias(n: int) -> Rows:
    name = f"alias{n}.test"
    return Rows(
        [
            f"INSERT INTO mailmaps.domain_aliases VALUES ('{name}', 'fixed.test') ON CONFLICT DO NOTHING",
            f"DELETE FROM mailmaps.domain_aliases WHERE domain = '{name}'",
        ],
        [
            *(Place(table, name) for table in DOMAIN_TABLES),
            Place("virtual_alias_maps", f"s0@{name}"),
            Place("virtual_alias_maps", f"team@{name}"),
            Place("smtpd_sender_login_maps", f"also1@{name}"),
        ],
    )


def _relay_recipients() -> Rows:
    return Rows(
        [
            "INSERT INTO mailmaps.relay_recipients SELECT 'r' || n || '@relay.test' "
            "FROM generate_series(1, 40) n ON CONFLICT DO NOTHING",
            "DELETE FROM mailmaps.relay_recipients WHERE address LIKE 'r1%'",
            "UPDATE mailmaps.relay_recipients SET address = 'q' || address WHERE address = 'r2@relay.test' "
            "AND NOT EXISTS (SELECT FROM mailmaps.relay_recipients WHERE address = 'qr2@relay.test')",
            "DELETE FROM mailmaps.relay_recipients WHERE address = 'qr2@relay.test'",
        ],
        RELAYED,
    )


def _all_relay_recipients() -> Rows:
    return Rows(["TRUNCATE mailmaps.relay_recipients"], RELAYED, BULK_WEIGHT)


def _bulk() -> Rows:
    return Rows(
        [
            "INSERT INTO mailmaps.forwards SELECT 'bulk' || n || '@w.test', 'x@elsewhere.test' "
            f"FROM generate_series(1, {BULK}) n ON CONFLICT DO NOTHING",
            "DELETE FROM mailmaps.forwards WHERE address LIKE 'bulk%'",
        ],
        [place for n in (1, BULK // 2, BULK) for place in _aliases(f"bulk{n}")],
        BULK_WEIGHT,
    )
