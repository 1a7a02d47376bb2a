"""What first-time setup asks of a PostgreSQL server: the database, our roles, and whether they may log in.

A password never goes to the server: a role is made with the verifier that PostgreSQL itself would keep
(SCRAM-SHA-256, RFC 5803), so that no log of statements and no pg_stat_activity has it. Whether a password is
the right one is found out by logging in, as the daemon does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pwd
import re
import secrets
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from mailmaps.config.dsn import place
from mailmaps.config.secrets import Secret
from mailmaps.config.settings import Database
from mailmaps.database.connect import ConnectError, Host, connect_to_first, reason

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Where Debian's PostgreSQL has its sockets (unix_socket_directories), one for each cluster that runs.
SOCKETS = Path("/var/run/postgresql")
_SOCKET = re.compile(r"\.s\.PGSQL\.(\d+)")

# PostgreSQL's own (scram_iterations, and SCRAM_DEFAULT_SALT_LEN in common/scram-common.h).
ITERATIONS = 4096
SALT_BYTES = 16

# There is always one of this name; connecting as a superuser needs some database.
MAINTENANCE = "postgres"

# Names that need no quotes anywhere, neither in SQL nor in a URI nor in pg_hba.conf.
PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

# The words of listen_addresses, and where we find a server that listens there.
LOOPBACKS = {
    "*": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104  # what the server says, not what we bind
    "localhost": "127.0.0.1",
    "127.0.0.1": "127.0.0.1",
    "::": "[::1]",
    "::1": "[::1]",
}


class LocalCluster(NamedTuple):
    """A server on this machine: its socket's folder, its port, and the user it runs as (its superuser)."""

    folder: Path
    port: int
    uid: int

    @property
    def superuser(self) -> str:
        """The name of that user; initdb(1) makes a superuser of the same name."""
        return pwd.getpwuid(self.uid).pw_name


def local_clusters(folder: Path = SOCKETS) -> list[LocalCluster]:
    """The servers that have a socket there, by port."""
    sockets = ((path, _SOCKET.fullmatch(path.name)) for path in folder.glob(".s.PGSQL.*") if path.is_socket())
    found = [LocalCluster(folder, int(match[1]), path.stat().st_uid) for path, match in sockets if match]
    return sorted(found, key=lambda one: one.port)


async def connect_by_socket(cluster: LocalCluster, database: str, seconds: float) -> Connection:
    """Connect as the superuser, whom the server knows by our user (peer). Raises `ConnectError`.

    We are that user for the moment of connect(2) alone, of which the kernel keeps who it was (SO_PEERCRED).
    """
    before = os.geteuid()
    if before == 0:
        os.seteuid(cluster.uid)
    try:
        return await asyncpg.connect(
            host=str(cluster.folder),
            port=cluster.port,
            user=cluster.superuser,
            database=database,
            passfile="/nonexistent",  # ours is root's, which that user may not look at
            timeout=seconds,
            server_settings={"application_name": "mailmaps"},
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        where = f"{cluster.folder}, port {cluster.port}, as {cluster.superuser}"
        raise ConnectError(f"{where}: {reason(error)}") from None
    finally:
        os.seteuid(before)


class Login(Enum):
    """What came of an attempt to log in."""

    WORKS = "works"
    WRONG_PASSWORD = "wrong password"  # noqa: S105  # the name of an outcome
    NOT_ADMITTED = "not admitted"  # pg_hba.conf, NOLOGIN, no CONNECT
    UNREACHABLE = "unreachable"


async def try_login(dsn: str, password: Secret, database: Database) -> tuple[Login, str]:
    """Log in as the daemon would. The text says what the server said, and nothing of the password."""
    host = Host(place(dsn), {"dsn": dsn, "password": password.reveal()})
    try:
        connection = await asyncpg.connect(**host.arguments, timeout=database.connect_timeout)
    except asyncpg.InvalidCatalogNameError:
        return Login.WORKS, ""  # who is told that there is no such database has been let in
    except asyncpg.InvalidPasswordError as error:
        return Login.WRONG_PASSWORD, reason(error)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
        return Login.NOT_ADMITTED, reason(error)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Login.UNREACHABLE, reason(error)
    await connection.close(timeout=database.connect_timeout)
    return Login.WORKS, ""


async def connect_there(dsn: str, name: str, database: Database) -> Connection:
    """Connect as `dsn` says, to the database `name`. Raises `ConnectError`."""
    there = with_place(dsn, name)
    return await connect_to_first([Host(place(there), {"dsn": there})], database, None)


def with_place(dsn: str, name: str, role: str | None = None) -> str:
    """`dsn` for another database; `role` also puts that role, without password, in the place of the user."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    netloc = f"{user}{at}{hosts}" if role is None else f"{role}@{hosts}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{name}"))


def scram_verifier(password: Secret) -> str:
    """What PostgreSQL keeps of a password (RFC 5803). Ours are ASCII, which SASLprep leaves as it is."""
    salt = secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal().encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(one).decode() for one in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt64}${stored64}:{server64}"


@dataclass(frozen=True, slots=True)
class Server:
    """What setup wants to know of a server. `loopback`: the address of this machine that it listens at."""

    port: int
    is_superuser: bool
    loopback: str
    hba_file: str
    roles: frozenset[str]
    databases: frozenset[str]


async def read_server(connection: Connection) -> Server:
    """Ask. `loopback` is empty where it listens at none; `hba_file` where we may not know."""
    superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    words = [word.strip() for word in (await _shown(connection, "listen_addresses")).split(",")]
    loopback = next((LOOPBACKS[word] for word in words if word in LOOPBACKS), "")
    roles = await connection.fetch("SELECT rolname FROM pg_roles")
    databases = await connection.fetch("SELECT datname FROM pg_database WHERE datallowconn")
    return Server(
        int(await _shown(connection, "port")),
        bool(superuser),
        loopback,
        await _shown(connection, "hba_file"),
        frozenset(row["rolname"] for row in roles),
        frozenset(row["datname"] for row in databases),
    )


async def _shown(connection: Connection, setting: str) -> str:
    try:
        return str(await connection.fetchval(f"SHOW {setting}"))
    except asyncpg.InsufficientPrivilegeError:
        return ""


async def foreign_tables(connection: Connection) -> list[str]:
    """Tables and views in a database that are neither PostgreSQL's own nor ours, in order."""
    rows = await connection.fetch(
        r"""SELECT format('%I.%I', n.nspname, c.relname) AS name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
              AND n.nspname NOT IN ('information_schema', 'mailmaps', 'mailpolicy')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
            ORDER BY name"""
    )
    return [row["name"] for row in rows]


async def make_role(connection: Connection, name: str, password: Secret) -> None:
    """A role that may log in and nothing else yet. Raises `ConnectError` with what the server says."""
    await _do(connection, f"CREATE ROLE {name} LOGIN PASSWORD '{scram_verifier(password)}'")


async def set_password(connection: Connection, name: str, password: Secret) -> None:
    """Another password for a role that is there. Raises `ConnectError`."""
    await _do(connection, f"ALTER ROLE {name} PASSWORD '{scram_verifier(password)}'")


async def make_owner(connection: Connection, name: str) -> None:
    """A role that owns tables and cannot log in. Raises `ConnectError`."""
    await _do(connection, f"CREATE ROLE {name} NOLOGIN")


async def make_database(connection: Connection, name: str, owner: str | None) -> None:
    """A database in UTF8, whatever the cluster's own encoding and locale are. Raises `ConnectError`."""
    owned = f" OWNER {owner}" if owner else ""
    await _do(
        connection,
        f"CREATE DATABASE {name}{owned} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
    )


async def become_owner(connection: Connection) -> str:
    """As a superuser, go on as who owns our tables, or as the database's owner while there are none."""
    owner = await connection.fetchval(
        """SELECT coalesce((SELECT nspowner FROM pg_namespace WHERE nspname = 'mailmaps'),
                           datdba)::regrole::text
           FROM pg_database WHERE datname = current_database()"""
    )
    await _do(connection, f"SET ROLE {owner}")
    return str(owner)


async def _do(connection: Connection, statement: str) -> None:
    try:
        await connection.execute(statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        what = " ".join(statement.split()[:3])
        raise ConnectError(f"{what}: {reason(error)}") from None
