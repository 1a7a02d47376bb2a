"""The demo's mail domains: the how-to's own rows, a few that show more, or any number of accounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mailmaps.auth import passwords

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# The INSERT statements of the how-to "Dovecot, Postfix with PAM authentication", text for text.
HOWTO = """
INSERT INTO domains ( gid, domain )
     VALUES ( 5001, 'lxtreme.nl' );
INSERT INTO user_accounts ( username, uid, gid, password,
                           email, mailbox, active )
     VALUES ( 'jawi_lx', 5001, 5001, 'my_crypted_pw',
	         'janwillem.janssen@lxtreme.nl',
              'lxtreme.nl/janwillem.janssen', '1' );
INSERT INTO user_accounts ( username, uid, gid, password,
                           email, mailbox, active )
     VALUES ( 'info_lx', 5002, 5001, 'an_crypted_pw',
              'info@lxtreme.nl',
              'lxtreme.nl/info', '1' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'jawi_lx', 'janwillem.janssen@lxtreme.nl' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'jawi_lx', 'j.w.janssen@lxtreme.nl' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'jawi_lx', 'postmaster@lxtreme.nl' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'jawi_lx', 'hostmaster@lxtreme.nl' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'jawi_lx', 'webmaster@lxtreme.nl' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'info_lx', 'info@lxtreme.nl' );
"""

# What the how-to's tables cannot say: two targets, an outside target, a catch-all, a domain alias;
# and what they can: a second domain, an account that is not active.
MORE = """
INSERT INTO domains ( gid, domain ) VALUES ( 5002, 'second.example' );
INSERT INTO user_accounts ( username, uid, gid, password, email, mailbox, active )
     VALUES ( 'anna', 5003, 5002, 'a_crypted_pw', 'anna@second.example', 'second.example/anna', '1' ),
            ( 'gone', 5004, 5002, 'a_crypted_pw', 'gone@second.example', 'second.example/gone', '0' );
INSERT INTO user_addresses ( username, alias )
     VALUES ( 'anna', 'anna@second.example' ), ( 'gone', 'gone@second.example' );
INSERT INTO mailmaps.forwards ( address, target )
     VALUES ( 'team@lxtreme.nl', 'janwillem.janssen@lxtreme.nl' ),
            ( 'team@lxtreme.nl', 'anna@second.example' ),
            ( 'press@lxtreme.nl', 'agency@outside.example' ),
            ( '@second.example', 'anna@second.example' );
INSERT INTO mailmaps.domain_aliases ( domain, target ) VALUES ( 'lxtreme.example', 'lxtreme.nl' );
"""

# Who logs in, and with what.
LOGIN, LOGIN_PASSWORD = "anna", "annas secret"

# What a person may try, each with what it shows.
EXAMPLES = (
    ("j.w.janssen+Lists@lxtreme.nl", "an alias; the extension is put back in its case"),
    ("team@lxtreme.nl", "two targets"),
    ("press@lxtreme.nl", "an outside target"),
    ("anybody@second.example", "a catch-all"),
    ("gone@second.example", "an inactive account: not found, in spite of the catch-all"),
    ("info@lxtreme.example", "a domain alias"),
)

CHUNK = 10_000  # rows a COPY, one step of the progress bar
BIG_DOMAIN = "demo.example"
BIG_EXAMPLES = (
    (f"first.last0+Lists@{BIG_DOMAIN}", "an alias; the extension is put back in its case"),
    (f"user0@{BIG_DOMAIN}", "a mailbox's own address"),
    (f"nobody@{BIG_DOMAIN}", "not found"),
)
FIRST_ID = 5001


async def load_small(connection: Connection) -> None:
    """Insert the how-to's rows and the others."""
    await connection.execute(HOWTO + MORE)


async def give_password(connection: Connection) -> None:
    """Let `LOGIN` log in; the how-to's own rows have no hash that could be one."""
    await connection.execute(
        "UPDATE user_accounts SET password = $1 WHERE username = $2 AND password = 'a_crypted_pw'",
        passwords.make(LOGIN_PASSWORD.encode(), passwords.default_scheme()),
        LOGIN,
    )


async def load_accounts(connection: Connection, count: int, advance: Callable[[int], None]) -> None:
    """Insert `count` accounts with two addresses each; `advance` is told how many more are in."""
    await connection.execute(f"INSERT INTO domains (gid, domain) VALUES ({FIRST_ID}, '{BIG_DOMAIN}')")  # noqa: S608
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        await connection.copy_records_to_table(
            "user_accounts",
            columns=["username", "uid", "gid", "password", "email", "mailbox", "active"],
            records=_accounts(numbers),
        )
        await connection.copy_records_to_table(
            "user_addresses", columns=["username", "alias"], records=_addresses(numbers)
        )
        advance(len(numbers))


def _accounts(numbers: range) -> Iterator[tuple[str, int, int, str, str, str, str]]:
    for n in numbers:
        email = f"user{n}@{BIG_DOMAIN}"
        yield f"user{n}", FIRST_ID + n, FIRST_ID, "a_crypted_pw", email, f"{BIG_DOMAIN}/user{n}", "1"


def _addresses(numbers: range) -> Iterator[tuple[str, str]]:
    for n in numbers:
        yield f"user{n}", f"user{n}@{BIG_DOMAIN}"
        yield f"user{n}", f"first.last{n}@{BIG_DOMAIN}"
