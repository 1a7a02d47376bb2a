"""The databases behind the files of `test_postmap.py`: the schemas that real queries are written for, cut
down to what the queries name."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conftest import Connection
from tests.system.postmap_keys import DOMAINS, ODD_LOCALS, USERS

POSTFIXADMIN = """
CREATE TABLE domain (domain varchar(255), transport varchar(255), backupmx boolean, active boolean);
CREATE TABLE alias (address varchar(255), goto text, domain varchar(255), active boolean);
CREATE TABLE mailbox (username varchar(255), maildir varchar(255), quota bigint, domain varchar(255),
  active boolean);
CREATE TABLE alias_domain (alias_domain varchar(255), target_domain varchar(255), active boolean);
"""

IREDMAIL = """
CREATE TABLE domain (domain varchar(255), transport varchar(255), backupmx int2, active int2);
CREATE TABLE alias_domain (alias_domain varchar(255), target_domain varchar(255), active int2);
CREATE TABLE forwardings (address varchar(255), forwarding varchar(255), domain varchar(255), active int2);
CREATE TABLE mailbox (username varchar(255), storagenode varchar(255), maildir varchar(255),
  domain varchar(255), transport varchar(255), enablesmtp int2, active int2);
CREATE TABLE recipient_bcc_user (username varchar(255), bcc_address varchar(255), domain varchar(255),
  active int2);
CREATE TABLE sender_relayhost (account varchar(255), relayhost varchar(255));
"""

MAILCOW = """
CREATE TABLE domain (domain varchar(255), active int2);
CREATE TABLE alias (id serial, address varchar(255), goto text, domain varchar(255), active int2);
CREATE TABLE alias_domain (alias_domain varchar(255), target_domain varchar(255), active int2);
CREATE TABLE mailbox (username varchar(255), prefix varchar(100), domain varchar(255), active int2);
CREATE TABLE sender_acl (logged_in_as varchar(255), send_as varchar(255));
CREATE FUNCTION route(text) RETURNS text STABLE LANGUAGE sql
  AS $$ SELECT goto FROM alias WHERE address = $1 LIMIT 1 $$;
CREATE FUNCTION several(text, OUT a text, OUT b text) RETURNS SETOF record STABLE LANGUAGE sql
  AS $$ SELECT goto, address::text FROM alias WHERE address LIKE '%' || $1 || '%' ORDER BY id LIMIT 3 $$;
CREATE FUNCTION nothing(text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION no_value(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION over(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'text ' || $1 $$;
CREATE FUNCTION over(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'int ' || $1 $$;
CREATE FUNCTION over(inet) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'inet ' || $1 $$;
CREATE FUNCTION narrow(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'int ' || $1 $$;
"""


def _addresses() -> Iterator[tuple[str, str, int]]:
    """Addresses with rows: address, domain, and a number."""
    for domain in DOMAINS:
        if domain != "alias.test":
            yield from ((f"user{number}@{domain}", domain, number) for number in range(USERS))
    yield from ((f"{local.lower()}@one.test", "one.test", number) for number, local in enumerate(ODD_LOCALS))
    yield from ((f"{local.lower()}", "one.test", number) for number, local in enumerate(ODD_LOCALS))
    # Stored by somebody whose client speaks LATIN1 as Postfix 3.7 does, and by somebody whose does not.
    yield from ((address, "one.test", 5) for address in ("Ã¼@one.test", "ü@one.test", "用户@例え.test"))


async def fill_postfixadmin(connection: Connection) -> None:
    await connection.execute(POSTFIXADMIN)
    transports = ("virtual", "smtp:[10.0.0.1]", "relay:x", "", None, "virtual")
    await connection.executemany(
        "INSERT INTO domain VALUES ($1, $2, $3, $4)",
        [
            (domain, transport, domain == "relay.test", domain != "off.test")
            for domain, transport in zip(DOMAINS, transports, strict=True)
        ],
    )
    for address, domain, number in _addresses():
        goto = (address, "a@x.test,b@y.test", "", None, f"{number}@x.test", "Ünïcode@x.test", "€@x.test")
        alias = goto[number % len(goto)]
        await connection.execute(
            "INSERT INTO alias VALUES ($1, $2, $3, $4)", address, alias, domain, number % 9 > 0
        )
        await connection.execute(
            "INSERT INTO mailbox VALUES ($1, $2, $3, $4, $5)",
            *(address, f"{domain}/{number}/", number * 10**9, domain, number % 7 > 0),
        )
    await connection.execute("INSERT INTO alias VALUES ('@two.test', 'all@two.test', 'two.test', true)")
    await connection.execute("INSERT INTO alias_domain VALUES ('alias.test', 'two.test', true)")


async def fill_iredmail(connection: Connection) -> None:
    await connection.execute(IREDMAIL)
    for domain in DOMAINS:
        backup, active = int(domain == "relay.test"), int(domain != "off.test")
        row = (domain, "dovecot", backup, active)
        await connection.execute("INSERT INTO domain VALUES ($1, $2, $3, $4)", *row)
    for address, domain, number in _addresses():
        for target in range(number % 4):
            forwarding = (address, f"target{target}@x.test", domain, int(number % 9 > 0))
            await connection.execute("INSERT INTO forwardings VALUES ($1, $2, $3, $4)", *forwarding)
        await connection.execute(
            "INSERT INTO mailbox VALUES ($1, 'vmail1', $2, $3, $4, $5, 1)",
            *(address, f"{domain}/u/{number}", domain, "lmtp:x" if number % 5 else "", number % 2),
        )
        await connection.execute(
            "INSERT INTO recipient_bcc_user VALUES ($1, 'bcc@x.test', $2, 1)", address, domain
        )
    await connection.execute("INSERT INTO forwardings VALUES ('two.test', 'all@two.test', 'two.test', 1)")
    await connection.execute("INSERT INTO alias_domain VALUES ('alias.test', 'two.test', 1)")
    await connection.execute(
        "INSERT INTO sender_relayhost VALUES ('user1@one.test', '[r]:25'), ('@two.test', '[s]')"
    )


async def fill_mailcow(connection: Connection) -> None:
    await connection.execute(MAILCOW)
    await connection.executemany("INSERT INTO domain VALUES ($1, 1)", [(domain,) for domain in DOMAINS])
    for address, domain, number in _addresses():
        goto = (address, "a@x.test,b@y.test", None, "@", "x@", "@x.test", "no at", f"{number}@a.b.c.test")
        row = (address, goto[number % len(goto)], domain, number % 3)
        await connection.execute("INSERT INTO alias VALUES (DEFAULT, $1, $2, $3, $4)", *row)
        await connection.execute("INSERT INTO mailbox VALUES ($1, '/vmail/', $2, 1)", address, domain)
    await connection.execute("INSERT INTO alias_domain VALUES ('alias.test', 'two.test', 1)")
    await connection.execute("INSERT INTO sender_acl VALUES ('user3@one.test', '@two.test'), ('boss', '*')")
