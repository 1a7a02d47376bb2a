"""iRedMail's site: all the files of its samples/postfix/pgsql, as its main.cf.pgsql uses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.system.sites import Connection, Site, insert
from tests.system.sites.population import (
    CATCH,
    CLOSED,
    DASHED,
    DOMAIN_ALIASES,
    ELSEWHERE,
    MAIN,
    OWN,
    RELAY,
    SECOND,
    Population,
    domain_of,
)

SCHEMA = """
CREATE TABLE domain (
  domain varchar(255) PRIMARY KEY,
  transport varchar(255) NOT NULL DEFAULT 'dovecot',
  backupmx int2 NOT NULL DEFAULT 0,
  active int2 NOT NULL DEFAULT 1
);
CREATE TABLE alias_domain (
  alias_domain varchar(255) PRIMARY KEY,
  target_domain varchar(255) NOT NULL,
  active int2 NOT NULL DEFAULT 1
);
CREATE TABLE forwardings (
  id serial PRIMARY KEY,
  address varchar(255) NOT NULL DEFAULT '',
  forwarding varchar(255) NOT NULL DEFAULT '',
  domain varchar(255) NOT NULL DEFAULT '',
  active int2 NOT NULL DEFAULT 1,
  UNIQUE (address, forwarding)
);
CREATE TABLE mailbox (
  username varchar(255) PRIMARY KEY,
  storagenode varchar(255) NOT NULL DEFAULT '',
  maildir varchar(255) NOT NULL DEFAULT '',
  domain varchar(255) NOT NULL DEFAULT '',
  transport varchar(255) NOT NULL DEFAULT '',
  enablesmtp int2 NOT NULL DEFAULT 1,
  enabledeliver int2 NOT NULL DEFAULT 1,
  active int2 NOT NULL DEFAULT 1
);
CREATE TABLE maillists (
  address varchar(255) PRIMARY KEY,
  domain varchar(255) NOT NULL DEFAULT '',
  transport varchar(255) NOT NULL DEFAULT '',
  active int2 NOT NULL DEFAULT 1
);
CREATE TABLE sender_relayhost (
  account varchar(255) PRIMARY KEY,
  relayhost varchar(255) NOT NULL DEFAULT ''
);
""" + "".join(
    f"""
CREATE TABLE {side}_bcc_domain (
  domain varchar(255) PRIMARY KEY,
  bcc_address varchar(255) NOT NULL DEFAULT '',
  active int2 NOT NULL DEFAULT 1
);
CREATE TABLE {side}_bcc_user (
  username varchar(255) PRIMARY KEY,
  bcc_address varchar(255) NOT NULL DEFAULT '',
  domain varchar(255) NOT NULL DEFAULT '',
  active int2 NOT NULL DEFAULT 1
);
"""
    for side in ("sender", "recipient")
)

_LOGIN = """\
hosts       = PH_SQL_SERVER_ADDRESS:PH_SQL_SERVER_PORT
user        = PH_VMAIL_DB_BIND_USER
password    = PH_VMAIL_DB_BIND_PASSWD
dbname      = PH_VMAIL_DB_NAME
"""


def _bcc_of_user(side: str) -> str:
    table = f"{side}_bcc_user"
    return (
        f"SELECT {table}.bcc_address FROM {table},domain WHERE {table}.username='%s' AND {table}.domain='%d' "
        f"AND {table}.domain=domain.domain AND {table}.active=1 AND domain.backupmx=0 AND domain.active=1"
    )


def _bcc_of_domain(side: str) -> str:
    table = f"{side}_bcc_domain"
    return (
        f"SELECT {table}.bcc_address FROM {table}, domain WHERE {table}.domain='%d' "
        f"AND {table}.domain=domain.domain AND domain.active=1"
    )


_QUERIES = {
    "virtual_alias_maps": "SELECT forwardings.forwarding FROM forwardings,domain WHERE "
    "forwardings.address='%s' AND forwardings.domain=domain.domain AND forwardings.active=1 "
    "AND domain.backupmx=0 AND domain.active=1",
    "domain_alias_maps": "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE "
    "alias_domain.alias_domain='%d' AND forwardings.address=('%u' || '@' || alias_domain.target_domain) "
    "AND alias_domain.target_domain=domain.domain AND forwardings.active=1 AND alias_domain.active=1 "
    "AND domain.backupmx=0",
    "catchall_maps": "SELECT forwardings.forwarding FROM forwardings,domain WHERE forwardings.address='%d' "
    "AND '%u' NOT LIKE '%%+%%' AND forwardings.address=domain.domain AND forwardings.active=1 "
    "AND domain.active=1 AND domain.backupmx=0",
    "domain_alias_catchall_maps": "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE "
    "alias_domain.alias_domain='%d' AND forwardings.address=alias_domain.target_domain "
    "AND alias_domain.target_domain=domain.domain AND forwardings.active=1 AND alias_domain.active=1",
    "virtual_mailbox_maps": "SELECT (mailbox.storagenode || '/' || mailbox.maildir || '/Maildir/') FROM "
    "mailbox,domain WHERE mailbox.username='%s' AND mailbox.active=1 AND mailbox.enabledeliver=1 "
    "AND domain.domain = mailbox.domain AND domain.active=1",
    "virtual_mailbox_domains": "(SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 "
    "LIMIT 1) UNION (SELECT alias_domain.alias_domain FROM alias_domain,domain WHERE "
    "alias_domain.alias_domain='%s' AND alias_domain.active=1 AND "
    "alias_domain.target_domain=domain.domain AND domain.active=1 AND domain.backupmx=0 LIMIT 1)",
    "relay_domains": "SELECT domain FROM domain WHERE domain='%s' AND backupmx=1 AND active=1 LIMIT 1",
    "transport_maps_user": "SELECT mailbox.transport FROM mailbox,domain WHERE mailbox.username='%s' "
    "AND mailbox.domain='%d' AND mailbox.domain=domain.domain AND mailbox.transport<>'' "
    "AND mailbox.active=1 AND mailbox.enabledeliver=1 AND domain.backupmx=0 AND domain.active=1",
    "transport_maps_maillist": "SELECT maillists.transport FROM maillists,domain WHERE "
    "maillists.address='%s' AND maillists.active=1 AND maillists.domain = domain.domain AND domain.active=1",
    "transport_maps_domain": "SELECT transport FROM domain WHERE domain='%s' AND active=1 LIMIT 1",
    "sender_login_maps": "SELECT mailbox.username FROM mailbox,domain WHERE mailbox.username='%s' "
    "AND mailbox.domain='%d' AND mailbox.domain=domain.domain AND mailbox.enablesmtp=1 "
    "AND mailbox.active=1 AND domain.backupmx=0 AND domain.active=1",
    "sender_bcc_maps_user": _bcc_of_user("sender"),
    "sender_bcc_maps_domain": _bcc_of_domain("sender"),
    "recipient_bcc_maps_user": _bcc_of_user("recipient"),
    "recipient_bcc_maps_domain": _bcc_of_domain("recipient"),
    "sender_dependent_relayhost_maps": "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1",
}

LIST = f"news@{MAIN}"
COPIED = "copied.test"
"""A domain whose every message is copied to somebody."""
WATCHED = "watched.test"
"""A domain some of whose people are."""

COPIED_BOXES = tuple(f"{user}@{domain}" for domain in (COPIED, WATCHED) for user in ("ann", "bob", "eve"))


async def _fill(connection: Connection, population: Population, ports: Mapping[str, int]) -> None:
    await connection.execute(SCHEMA)
    await _fill_domains(connection, ports)
    await _fill_people(connection, population, ports)
    await _fill_copies(connection)
    relay = f"[127.0.0.1]:{ports['relayhost']}"
    accounts = [(f"ann@{MAIN}", relay), (f"@{SECOND}", relay), (f"bob@{SECOND}", "DUNNO")]
    await insert(connection, "sender_relayhost", "account, relayhost", accounts)


async def _fill_domains(connection: Connection, ports: Mapping[str, int]) -> None:
    """Alias domains have no row in `domain`, as iRedAdmin makes them."""
    virtual = f"lmtp:inet:127.0.0.1:{ports['virtual']}"
    domains = [
        (MAIN, virtual, 0, 1),
        (SECOND, f"lmtp:inet:127.0.0.1:{ports['second']}", 0, 1),
        (CATCH, virtual, 0, 1),
        (COPIED, virtual, 0, 1),
        (WATCHED, virtual, 0, 1),
        (DASHED, "", 0, 1),
        (RELAY, f"smtp:[127.0.0.1]:{ports['smtp']}", 1, 1),
        (CLOSED, virtual, 0, 0),
        ("münchen.test", virtual, 0, 1),
        ("m\xc3\xbcnchen.test", virtual, 0, 1),
    ]
    await insert(connection, "domain", "domain, transport, backupmx, active", domains)
    await insert(connection, "domain", "domain", [(OWN,)])
    pairs = [(alias, target, 1) for alias, target in DOMAIN_ALIASES.items()]
    pairs += [("asleep.test", MAIN, 0), ("of-closed.test", CLOSED, 1)]
    await insert(connection, "alias_domain", "alias_domain, target_domain, active", pairs)


async def _fill_people(connection: Connection, population: Population, ports: Mapping[str, int]) -> None:
    """A forwarding a target; a mailbox forwards to itself; a catch-all stands under the bare domain."""
    second = f"lmtp:inet:127.0.0.1:{ports['second']}"
    transports = {f"eve@{MAIN}": second, f"moved@{SECOND}": f"dovecot:[127.0.0.1]:{ports['dovecot']}"}
    boxes = [*population.mailboxes, *COPIED_BOXES]
    rows = [(box, transports.get(box, ""), 1, 1, 1) for box in (*boxes, *population.unaliased)]
    rows += [(box, "", 1, 1, 0) for box in population.inactive_mailboxes]
    rows += [(f"read.only@{MAIN}", "", 0, 1, 1), (f"full@{MAIN}", second, 1, 0, 1)]
    await insert(
        connection,
        "mailbox",
        "username, transport, enablesmtp, enabledeliver, active, storagenode, maildir, domain",
        [(*row, "vmail1", row[0], domain_of(row[0])) for row in rows],
    )
    aliases = {box: (box,) for box in boxes} | population.aliases | {LIST: (LIST,)}
    forwardings = [*_forwardings(aliases.items(), 1), *_forwardings(population.inactive_aliases, 0)]
    await insert(connection, "forwardings", "address, forwarding, domain, active", forwardings)
    lists = [
        (LIST, MAIN, f"mlmmj:[127.0.0.1]:{ports['mlmmj']}", 1),
        (f"unset@{MAIN}", MAIN, "", 1),
        (f"old.news@{MAIN}", MAIN, second, 0),
    ]
    await insert(connection, "maillists", "address, domain, transport, active", lists)


def _forwardings(
    aliases: Iterable[tuple[str, tuple[str, ...]]], active: int
) -> list[tuple[str, str, str, int]]:
    return [
        (address.removeprefix("@"), target, domain_of(address), active)
        for address, targets in aliases
        for target in targets
    ]


async def _fill_copies(connection: Connection) -> None:
    for side in ("sender", "recipient"):
        archive = f"{side}-archive@{ELSEWHERE}"
        domains = [(COPIED, archive, 1), (DASHED, f"eve@{MAIN}", 0)]
        await insert(connection, f"{side}_bcc_domain", "domain, bcc_address, active", domains)
        users = [
            (f"bob@{COPIED}", f"{side}-watcher@{SECOND}", COPIED, 1),
            (f"bob@{WATCHED}", f"team@{MAIN}", WATCHED, 1),
            (f"eve@{WATCHED}", archive, WATCHED, 0),
            (f"ann+tag@{WATCHED}", f"bob@{MAIN}", WATCHED, 1),
        ]
        await insert(connection, f"{side}_bcc_user", "username, bcc_address, domain, active", users)


SITE = Site(
    name="iredmail",
    files={f"{name}.cf": f"{_LOGIN}query       = {query}\n" for name, query in _QUERIES.items()},
    tables={
        "transport_maps": [
            "transport_maps_user.cf",
            "transport_maps_maillist.cf",
            "transport_maps_domain.cf",
        ],
        "sender_dependent_relayhost_maps": ["sender_dependent_relayhost_maps.cf"],
        "smtpd_sender_login_maps": ["sender_login_maps.cf"],
        "virtual_mailbox_domains": ["virtual_mailbox_domains.cf"],
        "relay_domains": ["$mydestination", "relay_domains.cf"],
        "virtual_mailbox_maps": ["virtual_mailbox_maps.cf"],
        "virtual_alias_maps": [
            "virtual_alias_maps.cf",
            "domain_alias_maps.cf",
            "catchall_maps.cf",
            "domain_alias_catchall_maps.cf",
        ],
        "sender_bcc_maps": ["sender_bcc_maps_user.cf", "sender_bcc_maps_domain.cf"],
        "recipient_bcc_maps": ["recipient_bcc_maps_user.cf", "recipient_bcc_maps_domain.cf"],
    },
    fill=_fill,
    main_cf={
        "virtual_alias_domains": "",
        "smtpd_reject_unlisted_sender": "yes",
        "smtpd_sender_restrictions": "reject_unlisted_sender, reject_sender_login_mismatch",
    },
    known=(
        LIST,
        f"old.news@{MAIN}",
        f"unset@{MAIN}",
        f"full@{MAIN}",
        f"read.only@{MAIN}",
        f"sub@sub.{RELAY}",
        "ann@asleep.test",
        "ann@of-closed.test",
        *COPIED_BOXES,
    ),
    senders=(
        (f"ann@{MAIN}", f"ann@{MAIN}"),
        (f"ann@{MAIN}", f"Ann+tag@{MAIN}"),
        (f"ann@{SECOND}", f"ann@{SECOND}"),
        (f"ann@{SECOND}", f"ann+tag@{SECOND}"),
        (f"bob@{SECOND}", f"bob@{SECOND}"),
        (f"bob@{SECOND}", f"bob-tag@{SECOND}"),
        (f"bob@{WATCHED}", f"bob+tag@{WATCHED}"),
        (f"ann@{WATCHED}", f"ann+tag@{WATCHED}"),
        (f"bob@{COPIED}", f"bob@{COPIED}"),
        (f"ann@{COPIED}", f"ann+x@{COPIED}"),
    ),
    copied_domains=frozenset({COPIED, WATCHED}),
)
