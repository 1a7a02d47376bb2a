"""Opens one connection, walking the hosts of a DSN itself.

asyncpg gives a first host that hangs the whole time limit; here each host has a limit of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from mailmaps.config.secrets import database_password

if TYPE_CHECKING:
    from mailmaps.config.settings import Database

    Connection = asyncpg.Connection[asyncpg.Record]


# A lookup is one statement asked for ever with other keys. Planning it anew each time, as PostgreSQL
# prefers for a view of many branches, takes 8 ms, running it 0.3 ms (virtual_alias_maps, 100,000
# accounts); compiling it (jit) never pays.
LOOKUP_SETTINGS = {"plan_cache_mode": "force_generic_plan", "jit": "off"}


class ConnectError(Exception):
    """No host of the DSN could be reached; the text says why and holds no password."""


def each_host(dsn: str) -> list[str]:
    """Split a DSN with several hosts (libpq, "Specifying Multiple Hosts") into one DSN a host."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=user + at + host)) for host in hosts.split(",")]


async def connect(database: Database, dsn: str | None = None, *, for_lookups: bool = False) -> Connection:
    """Connect to the first host that answers. Raises `ConnectError`, `SettingsError`.

    `dsn` replaces `database.dsn`; the password of the settings then does not apply to it.
    `for_lookups` adds `LOOKUP_SETTINGS`, except behind PgBouncer, which refuses settings.
    """
    password = database_password(database.password_file) if dsn is None else None
    options: dict[str, Any] = {"timeout": database.connect_timeout}
    if password is not None:
        options["password"] = password.reveal()
    if database.pgbouncer:
        options["statement_cache_size"] = 0  # prepared statements belong to a server we may not get again
    server_settings = {"application_name": "mailmaps"}
    if for_lookups and not database.pgbouncer:
        server_settings |= LOOKUP_SETTINGS
        server_settings["statement_timeout"] = str(int(database.lookup_deadline * 1000))
    failures: list[str] = []
    for one in each_host(database.dsn if dsn is None else dsn):
        try:
            return await asyncpg.connect(one, server_settings=server_settings, **options)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            failures.append(f"{_place(one)}: {reason(error)}")
    raise ConnectError("; ".join(failures))


def reason(error: BaseException) -> str:
    """A short reason without values: PostgreSQL's DETAIL may quote rows, its message names things."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0] if error.args else 'error'} ({error.sqlstate})"
    if isinstance(error, asyncio.TimeoutError) and not error.args:
        return "no answer in time"
    return str(error) or type(error).__name__


def _place(dsn: str) -> str:
    """Host and port of a DSN, for messages."""
    return urlsplit(dsn).netloc.rpartition("@")[2] or "the default host"
