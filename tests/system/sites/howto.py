"""The how-to's site ("Dovecot, Postfix with PAM authentication"): its views and its five files.

The files have the old keys (`table`, `select_field`, `where_field`) instead of a query. `uids.cf` and
`gids.cf` are left out: only virtual(8) reads them, which takes no network table.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.system.sites import Connection, Site, insert
from tests.system.sites.population import (
    ALIAS,
    CATCH,
    CATCH_ALIAS,
    DASHED,
    DOMAIN_ALIASES,
    ELSEWHERE,
    MAIN,
    OWN,
    SECOND,
    VIRTUAL,
    Population,
)

SCHEMA = """
CREATE TABLE domains (
  gid integer UNIQUE NOT NULL,
  domain varchar(128) NOT NULL,
  transport varchar(64) NOT NULL DEFAULT 'virtual:',
  PRIMARY KEY (gid)
);
CREATE TABLE user_accounts (
  username varchar(12) UNIQUE NOT NULL,
  uid integer NOT NULL,
  gid integer REFERENCES domains (gid),
  email varchar(128) NOT NULL,
  mailbox varchar(128) NOT NULL,
  active char(1) NOT NULL DEFAULT '0',
  PRIMARY KEY (uid, gid)
);
CREATE TABLE user_addresses (
  username varchar(12) REFERENCES user_accounts (username),
  alias varchar(128) UNIQUE NOT NULL,
  PRIMARY KEY (username, alias)
);
CREATE VIEW postfix_mailboxes AS
  SELECT alias AS address, mailbox||'/' AS mailbox
  FROM user_accounts RIGHT JOIN user_addresses ON user_accounts.username = user_addresses.username;
CREATE VIEW postfix_aliases AS
  SELECT email AS address, alias
  FROM user_accounts RIGHT JOIN user_addresses ON user_accounts.username = user_addresses.username;
"""

_LOGIN = """\
hosts = localhost
user = mailreader
password = secret
dbname = mail_lxtreme
"""

FILES = {
    "transport.cf": f"""\
# domain transport information
{_LOGIN}table = domains
select_field = transport
where_field = domain
""",
    "virtual.cf": f"""\
# email address (real+virtual) information
{_LOGIN}table = postfix_aliases
select_field = address
where_field = alias
""",
    "mailboxes.cf": f"""\
# user information
{_LOGIN}table = postfix_mailboxes
select_field = mailbox
where_field = address
""",
}

MORE_ALIASES = {
    f"@{ALIAS}": f"@{MAIN}",
    f"@{CATCH_ALIAS}": f"@{CATCH}",
    f"whole@{MAIN}": f"@{SECOND}",
    f"afar@{MAIN}": f"@{ELSEWHERE}",
    f"grow@{MAIN}": f"grow+x@{MAIN}",
    f"nothing@{MAIN}": ", ,",
    f"group@{MAIN}": f"group: ann@{MAIN}, bob@{MAIN};",
    f"percent@{MAIN}": f"user%{SECOND}",
    f"bang@{MAIN}": f"{SECOND}!user",
    f"literal@{MAIN}": "ann@[127.0.0.1]",
    # virtual_alias_domains is $virtual_alias_maps unless it is set: this makes a domain of aliases alone.
    "only.test": "a domain",
    "ann@only.test": f"ann@{MAIN}",
}
"""What one row of the how-to can hold and the others' rows do not."""


async def _fill(connection: Connection, population: Population, ports: Mapping[str, int]) -> None:
    await connection.execute(SCHEMA)
    sink = {name: f"lmtp:inet:127.0.0.1:{port}" for name, port in ports.items()}
    transports = {
        **dict.fromkeys((*VIRTUAL, *DOMAIN_ALIASES), sink["virtual"]),
        SECOND: sink["second"],
        DASHED: f":inet:127.0.0.1:{ports['second']}",
        # Rows below are no domains: Postfix finds them in transport_maps only.
        f"moved@{MAIN}": sink["second"],
        f"bob@{SECOND}": sink["other"],
        f".{MAIN}": sink["other"],
        "*": sink["star"],
    }
    transports.pop(OWN)
    rows = [(gid, *row) for gid, row in enumerate(transports.items(), 5001)]
    await insert(connection, "domains", "gid, domain, transport", rows)
    await insert(connection, "domains", "gid, domain", [(5000, OWN)])
    await _fill_accounts(connection, population)


async def _fill_accounts(connection: Connection, population: Population) -> None:
    """An account has one email and any number of addresses; here each address has an account of its own."""
    aliases = {address: ", ".join(targets) for address, targets in population.aliases.items()} | MORE_ALIASES
    boxes = (*population.mailboxes, *population.unaliased)
    mine = {address: address for address in boxes if address not in aliases}
    asleep = {address: address for address in population.inactive_mailboxes if address not in aliases}
    accounts, addresses = [], []
    for uid, (address, email) in enumerate({**asleep, **mine, **aliases}.items(), 5001):
        active = "0" if address in asleep else "1"
        accounts.append((f"u{uid}", uid, 5001, email, f"box/{uid}", active))
        addresses.append((f"u{uid}", address))
    await insert(connection, "user_accounts", "username, uid, gid, email, mailbox, active", accounts)
    await insert(connection, "user_addresses", "username, alias", addresses)


SITE = Site(
    name="howto",
    files=FILES,
    tables={
        "transport_maps": ["transport.cf"],
        "virtual_alias_maps": ["virtual.cf"],
        "virtual_mailbox_domains": ["transport.cf"],
        "virtual_mailbox_maps": ["mailboxes.cf"],
    },
    fill=_fill,
    known=tuple(MORE_ALIASES),
)
