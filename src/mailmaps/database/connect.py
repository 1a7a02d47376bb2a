"""Opens one connection, walking the hosts of a DSN itself.

asyncpg gives a first host that hangs the whole time limit; here each host has a limit of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from mailmaps.config.dsn import check_dsn, each_host, place
from mailmaps.config.secrets import (
    Secret,
    admin_database_password,
    auth_database_password,
    database_password,
    write_database_password,
)
from mailmaps.config.settings import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


# A lookup is one statement asked for ever with other keys. Planning it anew each time, as PostgreSQL
# prefers for a view of many branches, takes 8 ms, running it 0.3 ms (virtual_alias_maps, 100,000
# accounts); compiling it (jit) never pays.
LOOKUP_SETTINGS = {"plan_cache_mode": "force_generic_plan", "jit": "off"}

# The site's own queries are planned with the value at hand, as Postfix had it done: `address LIKE '%s'` needs
# that for an index, and rows that nobody ordered (LIMIT 1 among them) then come in the order they came in.
CF_SETTINGS = {"plan_cache_mode": "force_custom_plan", "jit": "off"}


# What PostgreSQL says against a statement, and what asyncpg raises on a connection that has just gone
# (InternalClientError comes when the server's goodbye crosses our query).
Refused = asyncpg.PostgresError
BREAKS = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_going(connection: Connection, error: Refused) -> bool:
    """Whether it is the connection or the server that ends, not the statement that is refused."""
    return connection.is_closed() or str(error.sqlstate).startswith("57P")


class ConnectError(Exception):
    """No host of the DSN gave us a connection; the text says why and holds no password.

    `unreachable`: nobody was there, or the server said that it is starting or stopping. False where a
    server that works refused us (password, rights, connection limit): others may be writing to it.
    """

    def __init__(self, text: str, *, unreachable: bool = False) -> None:
        super().__init__(_cut(text, LONGEST_FAILURES))
        self.unreachable = unreachable


async def connect(database: Database, dsn: str | None = None, *, for_lookups: bool = False) -> Connection:
    """Connect to the first host that answers. Raises `ConnectError`, `SettingsError`.

    `dsn` replaces `database.dsn`; the password of the settings then does not apply to it.
    `for_lookups` adds `LOOKUP_SETTINGS`, except behind PgBouncer, which refuses settings.
    """
    return await connect_to_first(_hosts(database, dsn), database, LOOKUP_SETTINGS if for_lookups else None)


class AuthDatabase(Database):
    """The database that logins are looked up in, as the role that may read password hashes."""


def auth_database(database: Database) -> Database:
    """Where and as whom logins are looked up: `auth_dsn` with its own password, or all as it is."""
    if not database.auth_dsn:
        return database
    values = dict(database) | {"dsn": database.auth_dsn, "password_file": database.auth_password_file}
    return AuthDatabase(**values)


class WriteDatabase(Database):
    """The database that is written to: counts of what was sent, and what commands change."""


def write_database(database: Database) -> Database:
    """Where and as whom is written: `write_dsn` with its own password."""
    values = dict(database) | {"dsn": database.write_dsn, "password_file": database.write_password_file}
    return WriteDatabase(**values)


class AdminDatabase(Database):
    """The database that domains, accounts and addresses are written to by commands."""


def admin_database(database: Database) -> Database:
    """Where and as whom commands write: `admin_dsn` with its own password."""
    values = dict(database) | {"dsn": database.admin_dsn, "password_file": database.admin_password_file}
    return AdminDatabase(**values)


def find_password(database: Database) -> Secret | None:
    """The password that goes with `database.dsn`. Raises `SettingsError` for an unreadable file."""
    if isinstance(database, WriteDatabase):
        return write_database_password(database.password_file)
    if isinstance(database, AdminDatabase):
        return admin_database_password(database.password_file)
    find = auth_database_password if isinstance(database, AuthDatabase) else database_password
    return find(database.password_file)


def _hosts(database: Database, dsn: str | None = None) -> list[Host]:
    password = find_password(database) if dsn is None else None
    options = {} if password is None else {"password": password.reveal()}
    hosts = each_host(_checked(database.dsn if dsn is None else dsn))
    return [Host(place(one), {"dsn": one, **options}) for one in hosts]


# A crash of PostgreSQL may cost what was counted in the last tenth of a second, and a count need not wait for
# a disk.
WRITING_SETTINGS = {"synchronous_commit": "off", "jit": "off"}


async def connect_to_write(database: Database) -> Connection:
    """Connect to a `write_database`. Raises `ConnectError`, `SettingsError`."""
    return await connect_to_first(_hosts(database), database, WRITING_SETTINGS)


# What is told to be written is written. A statement waits for somebody's lock for so long (ms), and no limit
# of the role's cuts a long import or list short.
ADMIN_SETTINGS = {"synchronous_commit": "on", "jit": "off", "statement_timeout": "0", "lock_timeout": "20000"}


async def connect_to_administer(database: Database) -> Connection:
    """Connect to an `admin_database`. Raises `ConnectError`, `SettingsError`."""
    return await connect_to_first(_hosts(database), database, ADMIN_SETTINGS)


# For reading a whole view: no time limit, but a locked one must not keep the others waiting; room to sort a
# million rows in memory.
READING_SETTINGS = LOOKUP_SETTINGS | {"statement_timeout": "0", "lock_timeout": "3000", "work_mem": "256MB"}


async def connect_to_listen(database: Database, settings: Mapping[str, str]) -> Connection:
    """Connect to where changes are notified, with these server settings.

    Raises `ConnectError`, `SettingsError`.
    """
    if database.listen_dsn:
        database = database.model_copy(
            update={"dsn": database.listen_dsn, "listen_dsn": "", "pgbouncer": False}
        )
    return await connect_to_first(_hosts(database), database, settings)


class Host(NamedTuple):
    """One server: its name for messages, and the arguments of asyncpg.connect() that lead to it."""

    name: str
    arguments: dict[str, Any]


async def connect_to_first(
    hosts: list[Host], database: Database, lookup_settings: Mapping[str, str] | None
) -> Connection:
    """Connect to the first of `hosts` that answers, each within its own limit. Raises `ConnectError`.

    `lookup_settings` are those of a connection for lookups, which also gets a statement_timeout; None for
    others.
    """
    options: dict[str, Any] = {"timeout": database.connect_timeout}
    if database.pgbouncer:
        options["statement_cache_size"] = 0  # prepared statements belong to a server we may not get again
    server_settings = {"application_name": "mailmaps"}
    if lookup_settings is not None and not database.pgbouncer:
        # A little before our own deadline: the server then ends the query and the connection survives.
        server_settings["statement_timeout"] = str(int(database.lookup_deadline * 900))
        server_settings |= lookup_settings
    failures: list[str] = []
    unreachable = True
    for host in hosts:
        try:
            return await asyncpg.connect(server_settings=server_settings, **options | host.arguments)
        except _FAILURES as error:
            failures.append(f"{host.name}: {reason(error)}")
            unreachable = unreachable and _means_unreachable(error)
    raise ConnectError("; ".join(failures), unreachable=unreachable)


def _means_unreachable(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(("57P", "08"))  # shutting down or starting; connection lost
    return isinstance(error, (OSError, TimeoutError)) and not isinstance(error, ssl.SSLError)


# TargetServerAttributeNotMatched (a standby where a primary is wanted) is an InternalClientError.
_FAILURES = (
    OSError,
    TimeoutError,
    ValueError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def _checked(dsn: str) -> str:
    try:
        return check_dsn(dsn)
    except ValueError as error:
        raise ConnectError(f"the DSN: {error}") from None


# Characters of an error that are shown. A view's error may quote its input at any length, and a reply of
# tcp_table(5) over 4096 bytes costs Postfix ten seconds.
LONGEST_REASON = 200

# The same for the reasons of all hosts of a DSN together.
LONGEST_FAILURES = 600


def reason(error: BaseException) -> str:
    """A short reason on one line, and none that could quote a DSN or a row.

    PostgreSQL's message names things; its DETAIL, which quotes rows, is left out. What the library says
    of a DSN it cannot use is left out too.
    """
    if isinstance(error, asyncpg.PostgresError):
        text = f"{_one_line(str(error.args[0] if error.args else 'error'))} ({error.sqlstate})"
    elif isinstance(error, ssl.SSLError):  # a ValueError as well, when a certificate fails
        text = f"TLS: {_one_line(error.reason or str(error))}"
    elif isinstance(error, ValueError):
        text = "the DSN or the password file does not suit the server"
    elif isinstance(error, TimeoutError):
        text = "no answer in time"
    else:
        text = _one_line(str(error)) or type(error).__name__
    return text


def _one_line(text: str) -> str:
    line = text.partition("\n")[0]
    return _cut("".join(char if char.isprintable() else "?" for char in line), LONGEST_REASON)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + "..."
