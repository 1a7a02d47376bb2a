"""A site with our own schema, and views of its own beside it: all that `mailmaps filemaps` can list.

The `.cf` files ask the views by `pgsql:`, one exact key a query, as a site without mailmaps would have to:

    SELECT value FROM mailmaps.virtual_alias_maps WHERE key = '%s'

They do it by functions: Debian 12's Postfix speaks LATIN1 to PostgreSQL, and so it asks, and is told, what a
current one would be; and the server plans such a query once a connection and not for every key.

Left out is what files and daemon answer otherwise on purpose: a key that answers nothing where another row
would answer in its place (test_indistinguishable.py has these).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.system.sites import Connection, Site, insert
from tests.system.sites.population import (
    ALIAS,
    BEYOND_LATIN1,
    CATCH,
    CATCH_ALIAS,
    DASHED,
    DOMAIN_ALIASES,
    ELSEWHERE,
    MAIN,
    OWN,
    RELAY,
    SECOND,
    Population,
    domain_of,
    population,
)

from mailmaps.config import parse
from mailmaps.database import migrations, watches

COPIED = "copied.test"
"""A domain whose messages are copied to somebody."""
WHOLE = "whole.test"
"""Its addresses are those of `SECOND`, by a catch-all."""
ANOTHER_CATCH = "all.test"
"""Its catch-all is an address of an account."""
BACKUP = "backup.test"
OLD = "old.test"
"""Rewritten to `MAIN`."""

OURS = (
    "transport_maps",
    "virtual_mailbox_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "smtpd_sender_login_maps",
    "relay_domains",
    "relay_recipient_maps",
)

ROWS: Mapping[str, Mapping[str, str]] = {
    "canonical_maps": {
        f"old@{MAIN}": f"ann@{MAIN}",
        f"old+exact@{MAIN}": f"bob@{MAIN}",
        f"old-exact@{MAIN}": f"bob@{SECOND}",
        f"@{OLD}": f"@{MAIN}",
        f"ann@{OLD}": f"eve@{MAIN}",
        f'"old one"@{MAIN}': f'"jan van"@{MAIN}',
        "webmaster": f"ann@{MAIN}",
        "webmaster+ext": f"bob@{MAIN}",
        f"älter@{MAIN}": f"müller@{MAIN}",
    },
    "sender_dependent_relayhost_maps": {
        f"ann@{MAIN}": "[127.0.0.1]:{relayhost}",
        f"@{SECOND}": "[127.0.0.1]:{relayhost}",
        f"bob@{SECOND}": "DUNNO",
        f"bob+tag@{SECOND}": "[127.0.0.1]:{default}",
    },
    "recipient_bcc_maps": {
        f"bob@{COPIED}": f"bcc-watcher@{SECOND}",
        f"ann+tag@{COPIED}": f"bob@{MAIN}",
        f"@{COPIED}": f"archive@{SECOND}",
    },
    "check_recipient_access": {
        f"blocked@{MAIN}": "REJECT blocked",
        f"blocked+x@{MAIN}": "REJECT blocked with an extension",
        f"blocked-y@{MAIN}": "OK",
        f"slow@{MAIN}": "DEFER later",
        "blocked@": "REJECT blocked everywhere",
        f"sub.{RELAY}": "REJECT a domain below",
        f".{BACKUP}": "REJECT dotted",
        "blocked.test": "REJECT a domain",
        "test": "DUNNO",
    },
}
"""Of the views of its own, by parameter; `{name}` is the port of a sink."""

SCHEMA = """
CREATE SCHEMA extra;
CREATE TABLE extra.rows (parameter text, key text, value text);
"""

FUNCTION = """
CREATE FUNCTION extra.{table}(asked text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
   is_latin1 CONSTANT boolean := pg_client_encoding() = 'LATIN1';
BEGIN
   IF is_latin1 THEN
      asked := convert_from(convert_to(asked, 'LATIN1'), 'UTF8');
   END IF;
   RETURN QUERY
      SELECT CASE WHEN is_latin1 THEN convert_from(convert_to(value, 'UTF8'), 'LATIN1') ELSE value END
      FROM {view} WHERE key = asked ORDER BY value COLLATE "C";
EXCEPTION WHEN character_not_in_repertoire THEN
   RETURN;
END
$function$;
"""

FILE = """\
hosts = localhost
user = mailreader
password = secret
dbname = mail
query = SELECT extra.{table}('%s')
"""

LOGINS = {
    f"ann@{MAIN}": "ann@main",
    f"bob@{MAIN}": "bob@main",
    f"ann@{SECOND}": "ann@second",
    f"bob@{SECOND}": "bob@second",
    f"ann@{COPIED}": "ann@copied",
}
"""Usernames have at most 12 characters; all others are numbers."""

MORE_ADDRESSES = {
    f"ann.too@{MAIN}": "ann@main",
    f"ann@{WHOLE}": "ann@main",
    f"@{ANOTHER_CATCH}": "bob@second",
    f"Mixed.Case@{SECOND}": "bob@second",
    f"bob@{ALIAS}": "ann@second",
    f"bob+listed@{MAIN}": "ann@second",
}

MORE_FORWARDS = (
    (f"@{WHOLE}", f"@{SECOND}"),
    (f"copied@{MAIN}", f"bob@{COPIED}"),
    (f"ann.too@{MAIN}", f"bob@{MAIN}"),
    (f"half@{MAIN}", f"asleep@{MAIN}"),
    (f"half@{MAIN}", f"eve@{MAIN}"),
    (f"half@{ALIAS}", f"bob@{SECOND}"),
    (f"list@{SECOND}", f"owner-list+x@{MAIN}"),
    (f"via.catch@{MAIN}", f"who+ever@{CATCH_ALIAS}"),
    (f"canonical@{MAIN}", f"old+x@{MAIN}"),
    (f"only.inactive@{MAIN}", f"asleep@{MAIN}"),
)

RELAY_RECIPIENTS = (
    f"x@{RELAY}",
    f"ann@{RELAY}",
    f"Ann.Bee@{RELAY}",
    f'"jan van"@{RELAY}',
    f"deep@sub.{RELAY}",
    f"@{BACKUP}",
)


async def _fill(connection: Connection, _: Population, ports: Mapping[str, int]) -> None:
    people = population(beyond_latin1=True)
    await migrations.create(connection, migrations.Site(honour_active=True), lambda _: None)
    await connection.execute(SCHEMA)
    for parameter, rows in ROWS.items():
        await connection.execute(
            f"CREATE VIEW extra.{parameter} AS SELECT key, value FROM extra.rows "
            f"WHERE parameter = '{parameter}'"
        )
        made = [(parameter, key, value.format(**ports)) for key, value in rows.items()]
        await insert(connection, "extra.rows", "parameter, key, value", made)
    settings = parse("".join(f'[tables.{table}]\nsources = ["view:extra.{table}"]\n' for table in ROWS))
    assert await watches.watch(connection, settings, lambda _: None) == []
    for table, view in VIEWS.items():
        await connection.execute(FUNCTION.format(table=table, view=view))
    await _fill_domains(connection, ports)
    await _fill_people(connection, people)


async def _fill_domains(connection: Connection, ports: Mapping[str, int]) -> None:
    virtual = f"lmtp:inet:127.0.0.1:{ports['virtual']}"
    others = (MAIN, CATCH, COPIED, WHOLE, ANOTHER_CATCH, "münchen.test", "m\xc3\xbcnchen.test", "пример.test")
    domains = [
        (OWN, "virtual:"),
        *((domain, virtual) for domain in others),
        (SECOND, f"lmtp:inet:127.0.0.1:{ports['second']}"),
        (DASHED.upper(), f":inet:127.0.0.1:{ports['second']}"),
    ]
    rows = [(gid, *row) for gid, row in enumerate(domains, 5001)]
    await insert(connection, "domains", "gid, domain, transport", rows)
    await insert(connection, "mailmaps.domain_aliases", "domain, target", list(DOMAIN_ALIASES.items()))
    relays = [
        (RELAY, f"smtp:[127.0.0.1]:{ports['smtp']}"),
        (f".{RELAY}", f"lmtp:inet:127.0.0.1:{ports['other']}"),
        (BACKUP, f"relay:[127.0.0.1]:{ports['relay']}"),
    ]
    await insert(connection, "mailmaps.relays", "domain, transport", relays)
    await insert(
        connection, "mailmaps.relay_recipients", "address", [(address,) for address in RELAY_RECIPIENTS]
    )


async def _fill_people(connection: Connection, people: Population) -> None:
    """Every other account has its address as its email alone, which user_addresses does not list."""
    boxes = dict.fromkeys((*people.mailboxes, *people.unaliased, *COPIED_BOXES), "1")
    boxes |= {box: "0" for box in people.inactive_mailboxes if domain_of(box) != CATCH}
    rows = [
        (LOGINS.get(box, f"u{uid}"), uid, 5001 + uid % 3, box, f"box/{uid}", active)
        for uid, (box, active) in enumerate(boxes.items(), 5001)
    ]
    rows += [
        ("twin1", 9001, 5001, f"twin@{MAIN}", "box/twin1", "0"),
        ("twin2", 9002, 5001, f"twin@{MAIN}", "box/twin2", "1"),
        ("goes", 9003, 5001, f"someone@{ELSEWHERE}", "box/goes", "1"),
    ]
    await insert(connection, "user_accounts", "username, uid, gid, email, mailbox, active", rows)
    listed = [(row[0], row[3]) for row in rows[::2] if row[3] != f"twin@{MAIN}"]
    listed += [("goes", f"goes@{MAIN}"), *((user, address) for address, user in MORE_ADDRESSES.items())]
    aliases = {**people.aliases, f"closed@{MAIN}": (f"asleep@{MAIN}",)}
    problems = await _problems(connection, {*aliases, *(one for some in aliases.values() for one in some)})
    # Spellings that forwards refuse, and the how-to's tables do not. One without a domain means nothing.
    had = {address for _, address in listed}
    listed += [("bob@main", address) for address in aliases if "@" in address and address in problems - had]
    await insert(connection, "user_addresses", "username, alias", listed)
    forwards = [(address, one) for address, targets in aliases.items() for one in targets]
    forwards = [row for row in forwards if problems.isdisjoint(row)]
    # A mailbox that forwards to itself is one with a copy for itself.
    rows_of_forwards = list(dict.fromkeys((*forwards, *MORE_FORWARDS)))
    await insert(connection, "mailmaps.forwards", "address, target", rows_of_forwards)


async def _problems(connection: Connection, addresses: Iterable[str]) -> set[str]:
    rows = await connection.fetch(
        "SELECT one FROM unnest($1::text[]) one WHERE mailmaps.address_problem(one) IS NOT NULL",
        list(addresses),
    )
    return {row["one"] for row in rows}


async def _adapt(connection: Connection, delimiter: str, owner_request_special: bool) -> None:
    told = migrations.Site(True, delimiter, owner_request_special)
    await migrations.upgrade(connection, told, lambda _: None)


COPIED_BOXES = tuple(f"{user}@{COPIED}" for user in ("ann", "bob", "eve"))

VIEWS = {table: f"mailmaps.{table}" for table in OURS} | {table: f"extra.{table}" for table in ROWS}

SITE = Site(
    name="ours",
    files={f"{table}.cf": FILE.format(table=table) for table in VIEWS},
    tables={table: [f"{table}.cf"] for table in VIEWS},
    fill=_fill,
    main_cf={
        "virtual_alias_domains": "",
        "smtpd_reject_unlisted_sender": "yes",
        "smtpd_sender_restrictions": "reject_unlisted_sender, reject_sender_login_mismatch",
        "smtpd_recipient_restrictions": "check_recipient_access $check_recipient_access",
    },
    known=(
        *BEYOND_LATIN1,
        *COPIED_BOXES,
        *MORE_ADDRESSES,
        *dict(MORE_FORWARDS),
        *RELAY_RECIPIENTS,
        f"any@{BACKUP}",
        f"any@sub.{BACKUP}",
        f"any@{ANOTHER_CATCH}",
        f"bob@{WHOLE}",
        f"twin@{MAIN}",
        f"goes@{MAIN}",
        f"old@{MAIN}",
        f"old+exact@{MAIN}",
        f"old-exact@{MAIN}",
        f'"old one"@{MAIN}',
        f"älter@{MAIN}",
        f"ann@{OLD}",
        f"bob@{OLD}",
        f"blocked@{MAIN}",
        f"blocked@{SECOND}",
        f"blocked+x@{MAIN}",
        f"blocked-y@{MAIN}",
        f"slow@{MAIN}",
        "x@blocked.test",
        "x@sub.blocked.test",
    ),
    senders=(
        ("ann@main", f"ann@{MAIN}"),
        ("ann@main", f"Ann+tag@{MAIN}"),
        ("bob@main", f"bob-x@{MAIN}"),
        ("ann@second", f"ann@{SECOND}"),
        ("bob@second", f"bob@{SECOND}"),
        ("bob@second", f"BOB+tag@{SECOND}"),
        ("ann@copied", f"ann+x@{COPIED}"),
    ),
    copied_domains=frozenset({COPIED}),
    views={table: ["builtin"] for table in OURS} | {table: [f"view:extra.{table}"] for table in ROWS},
    adapt=_adapt,
)
