"""What must be known of a database before the schema touches it: everything wrong with it, by name.

It only reads. Duplicates are looked for here with the daemon's own case folding, because the database
has no `mailmaps.fold` yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from mailmaps.maps.address import fold

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# split_part(..., -1), string_to_table and standard SQL function bodies came with 14.
OLDEST_SERVER = 140000

# The how-to's relations in `public` with the columns that it names.
HOWTO: dict[str, tuple[str, ...]] = {
    "domains": ("gid", "domain", "transport"),
    "user_accounts": ("username", "uid", "gid", "password", "email", "mailbox", "quota", "active"),
    "user_addresses": ("username", "alias"),
    "postfix_mailboxes": ("address", "mailbox"),
    "postfix_aliases": ("address", "alias"),
}

# `active` as the views read it (schema/0007_receive.sql).
INACTIVE = """active COLLATE "C" NOT IN ('1', 't', 'T', 'y', 'Y')"""


class State(Enum):
    """What a database holds."""

    EMPTY = "no tables of ours"
    HOWTO = "the how-to's tables"
    INSTALLED = "the schema of mailmaps"


class SchemaError(Exception):
    """Nothing was done, or nothing more; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


async def read_state(connection: Connection) -> State:
    """Tell what the database holds. Raises `SchemaError` for half a how-to."""
    if await connection.fetchval("SELECT to_regclass('mailmaps.schema_version') IS NOT NULL"):
        return State.INSTALLED
    found = await _columns(connection)
    if not found:
        return State.EMPTY
    missing = [
        f"public.{relation} has no column {column}" if relation in found else f"public.{relation} is missing"
        for relation, columns in HOWTO.items()
        for column in columns
        if column not in found.get(relation, ())
    ]
    if missing:
        raise SchemaError(["these are not the how-to's tables:", *dict.fromkeys(missing)])
    return State.HOWTO


async def server_problems(connection: Connection) -> list[str]:
    """Say what the server or the database's encoding lacks."""
    problems = []
    if int(await connection.fetchval("SHOW server_version_num")) < OLDEST_SERVER:
        problems.append("PostgreSQL 14 or newer is needed")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        problems.append(
            f"the database's encoding is {encoding}, it must be UTF8: "
            "CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8', and load a dump into it"
        )
    return problems


async def howto_problems(connection: Connection) -> list[str]:
    """Name every row of a how-to database that the new indexes and constraints would refuse."""
    domains = await connection.fetch("SELECT domain FROM public.domains")
    aliases = await connection.fetch("SELECT alias FROM public.user_addresses")
    usernames = await connection.fetch(
        r"""SELECT username FROM public.user_accounts
            WHERE username COLLATE "C" ~ '^!|[[:space:],]|^$' ORDER BY username COLLATE "C" """
    )
    return [
        *_case_duplicates("domains.domain", (row["domain"] for row in domains)),
        *_case_duplicates("user_addresses.alias", (row["alias"] for row in aliases)),
        *(
            f'user_accounts.username "{row["username"]}" is empty, begins with ! or holds a blank or comma: '
            "smtpd_sender_login_maps cannot name it"
            for row in usernames
        ),
    ]


async def inactive_yet_served(connection: Connection) -> list[str]:
    """Usernames that `active` calls inactive and that have addresses all the same, in order."""
    rows = await connection.fetch(
        f"""SELECT username FROM public.user_accounts a
            WHERE {INACTIVE}
              AND EXISTS (SELECT FROM public.user_addresses u WHERE u.username = a.username)
            ORDER BY username COLLATE "C" """  # noqa: S608  # a constant of ours
    )
    return [row["username"] for row in rows]


async def _columns(connection: Connection) -> dict[str, set[str]]:
    rows = await connection.fetch(
        """SELECT c.relname, a.attname
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY ($1::text[])
             AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped""",
        list(HOWTO),
    )
    found: dict[str, set[str]] = defaultdict(set)
    for relation, column in rows:
        found[relation].add(column)
    return found


def _case_duplicates(column: str, values: Iterable[str]) -> list[str]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for value in values:
        spellings[fold(value)].append(value)
    return [
        f"{column}: " + " and ".join(f'"{one}"' for one in sorted(same)) + " are the same to Postfix"
        for _, same in sorted(spellings.items())
        if len(same) > 1
    ]
