"""PostfixAdmin's site: the files of its DOCUMENTS/POSTFIX_CONF.txt.

That text is written for MySQL and says what PostgreSQL needs: `active='t'` for `active='1'` and
`'%u' || '@' || x` for `CONCAT('%u', '@', x)`. This is done here and nothing else; with transport support,
hence its optional query for the domains.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.system.sites import Connection, Site, insert
from tests.system.sites.population import (
    CATCH,
    CLOSED,
    DASHED,
    DOMAIN_ALIASES,
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
  transport varchar(255) DEFAULT NULL,
  backupmx boolean NOT NULL DEFAULT false,
  active boolean NOT NULL DEFAULT true
);
CREATE TABLE alias (
  address varchar(255) PRIMARY KEY,
  goto text NOT NULL,
  domain varchar(255) NOT NULL,
  active boolean NOT NULL DEFAULT true
);
CREATE TABLE mailbox (
  username varchar(255) PRIMARY KEY,
  maildir varchar(255) NOT NULL DEFAULT '',
  quota bigint NOT NULL DEFAULT 0,
  domain varchar(255) NOT NULL,
  active boolean NOT NULL DEFAULT true
);
CREATE TABLE alias_domain (
  alias_domain varchar(255) NOT NULL REFERENCES domain (domain),
  target_domain varchar(255) NOT NULL REFERENCES domain (domain),
  active boolean NOT NULL DEFAULT true,
  PRIMARY KEY (alias_domain)
);
"""

_LOGIN = """\
user = postfix
password = password
hosts = localhost
dbname = postfix
"""

_OF_ALIAS_DOMAIN = "FROM alias,alias_domain WHERE alias_domain.alias_domain = '%d' and alias.address ="

_QUERIES = {
    "mailbox_maps": "query = SELECT username FROM mailbox WHERE username = '%s' AND active = 't'",
    "virtual_alias_maps": "query = SELECT goto FROM alias WHERE address='%s' AND active = 't'",
    "virtual_alias_domain_maps": f"query = SELECT goto {_OF_ALIAS_DOMAIN} '%u' || '@' || "
    "alias_domain.target_domain AND alias.active='t' AND alias_domain.active='t'",
    "virtual_alias_domain_catchall_maps": f"query  = SELECT goto {_OF_ALIAS_DOMAIN} '@' || "
    "alias_domain.target_domain AND alias.active='t' AND alias_domain.active='t'",
    "virtual_domains_maps": "query           = SELECT domain FROM domain WHERE domain='%s' AND active = 't' "
    "AND NOT (transport LIKE 'smtp%%' OR transport LIKE 'relay%%')",
    "virtual_mailbox_maps": "query           = SELECT maildir FROM mailbox WHERE username='%s' "
    "AND active = 't'\n#expansion_limit = 100",
    "virtual_alias_domain_mailbox_maps": "query = SELECT maildir FROM mailbox,alias_domain WHERE "
    "alias_domain.alias_domain = '%d' and mailbox.username = '%u' || '@' || alias_domain.target_domain "
    "AND mailbox.active='t' AND alias_domain.active='t'",
    "relay_domains": "query = SELECT domain FROM domain WHERE domain='%s' AND active = 't' "
    "AND (transport LIKE 'smtp%%' OR transport LIKE 'relay%%')",
    "transport_maps": "#query = SELECT transport FROM domain WHERE domain='%s' AND active = 't' "
    "AND transport != 'virtual'\nquery = SELECT REPLACE(transport, 'virtual', ':') AS transport "
    "FROM domain WHERE domain='%s' AND active = 't'",
}

BACKUP = "backup.test"
UNROUTED = "unrouted.test"
"""Without a transport (NULL), as rows from before transport support are."""


async def _fill(connection: Connection, population: Population, ports: Mapping[str, int]) -> None:
    await connection.execute(SCHEMA)
    domains = [
        (MAIN, "virtual", False, True),
        (SECOND, f"lmtp:inet:127.0.0.1:{ports['second']}", False, True),
        (CATCH, "virtual", False, True),
        (DASHED, f":inet:127.0.0.1:{ports['second']}", False, True),
        (UNROUTED, None, False, True),
        (OWN, "dovecot", False, True),
        (RELAY, f"smtp:[127.0.0.1]:{ports['smtp']}", False, True),
        (BACKUP, f"relay:[127.0.0.1]:{ports['relay']}", True, True),
        (CLOSED, "virtual", False, False),
        *((alias, "virtual", False, True) for alias in DOMAIN_ALIASES),
        ("asleep.test", "virtual", False, True),
        ("münchen.test", "virtual", False, True),
        ("m\xc3\xbcnchen.test", "virtual", False, True),
    ]
    await insert(connection, "domain", "domain, transport, backupmx, active", domains)
    aliases = {box: (box,) for box in population.mailboxes} | population.aliases
    rows = [(address, ",".join(targets), True) for address, targets in aliases.items()]
    rows += [(address, ",".join(targets), False) for address, targets in population.inactive_aliases]
    await insert(
        connection, "alias", "address, goto, active, domain", [(*row, domain_of(row[0])) for row in rows]
    )
    active = (*population.mailboxes, *population.unaliased)
    boxes = [(box, f"{domain_of(box)}/{box}/", True) for box in active]
    boxes += [(box, f"{domain_of(box)}/{box}/", False) for box in population.inactive_mailboxes]
    await insert(
        connection,
        "mailbox",
        "username, maildir, active, domain",
        [(*row, domain_of(row[0])) for row in boxes],
    )
    pairs = [(alias, target, True) for alias, target in DOMAIN_ALIASES.items()]
    pairs.append(("asleep.test", MAIN, False))
    await insert(connection, "alias_domain", "alias_domain, target_domain, active", pairs)


SITE = Site(
    name="postfixadmin",
    files={f"{name}.cf": f"{_LOGIN}{query}\n" for name, query in _QUERIES.items()},
    tables={
        "virtual_mailbox_domains": ["virtual_domains_maps.cf"],
        "virtual_alias_maps": [
            "virtual_alias_maps.cf",
            "virtual_alias_domain_maps.cf",
            "virtual_alias_domain_catchall_maps.cf",
        ],
        "virtual_mailbox_maps": ["virtual_mailbox_maps.cf", "virtual_alias_domain_mailbox_maps.cf"],
        "relay_domains": ["relay_domains.cf"],
        "transport_maps": ["transport_maps.cf"],
        "smtpd_sender_login_maps": ["mailbox_maps.cf"],
    },
    fill=_fill,
    main_cf={"smtpd_sender_restrictions": "reject_sender_login_mismatch"},
    known=(f"x@{BACKUP}", f"x@{UNROUTED}", f"x@sub.{BACKUP}", "ann@asleep.test", "postmaster@asleep.test"),
    senders=(
        (f"ann@{MAIN}", f"ann@{MAIN}"),
        (f"ann@{MAIN}", f"ann+tag@{MAIN}"),
        (f"Bob@{MAIN}", f"BOB-x@{MAIN}"),
    ),
)
