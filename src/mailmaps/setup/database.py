"""The database of a new site: looked at whole, then made, or nothing is done.

`look` finds out what is there and what stands in the way; `make` does what is missing and changes nothing
that works, so that it can be run again after whatever cut it off. What belongs to somebody else stops it: a
role whose password we do not know, a database with other tables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailmaps.config.secrets import Secret
from mailmaps.config.settings import Database
from mailmaps.database import cluster, migrations
from mailmaps.database.cluster import Login, Server
from mailmaps.database.migrations import Site
from mailmaps.database.preflight import SchemaError, State, server_problems
from mailmaps.setup.roles import OWNER, ROLES, Passwords, Role

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

Report = Callable[[str], None]

# Opens a connection to the database of that name as who may make databases and roles. Raises `ConnectError`.
Opener = Callable[[str], Awaitable["Connection"]]


@dataclass(slots=True)
class Found:
    """What is there. `problems`: why nothing may be done. `passwords`: those of roles that keep theirs."""

    server: Server
    dsns: dict[str, str]
    problems: list[str] = field(default_factory=list)
    passwords: dict[str, Secret] = field(default_factory=dict)
    to_set: list[Role] = field(default_factory=list)


class Setup:
    """One run. `dsn` is where the daemon finds the server, with any user and database in it ("": here)."""

    def __init__(self, opener: Opener, name: str, dsn: str, passwords: Passwords, *, renew: bool) -> None:
        self._open = opener
        self._name = name
        self._dsn = dsn
        self._passwords = passwords
        self._renew = renew
        # Limits of time as a new site has them.
        self._limits = Database()

    async def look(self) -> Found:
        """Change nothing. Raises `ConnectError`, `OSError`."""
        connection = await self._open(cluster.MAINTENANCE)
        try:
            server = await cluster.read_server(connection)
        finally:
            await connection.close(timeout=self._limits.connect_timeout)
        base = self._dsn or f"postgresql://{server.loopback}:{server.port}/"
        found = Found(server, {role.name: cluster.with_place(base, self._name, role.name) for role in ROLES})
        if not self._dsn and not server.loopback:
            found.problems.append(
                "PostgreSQL listens at no address of this machine's own: set listen_addresses = 'localhost' "
                "in postgresql.conf, and restart it"
            )
            return found
        for role in ROLES:
            await self._look_at_role(role, found)
        if self._name in server.databases:
            await self._look_at_database(found)
        return found

    async def _look_at_role(self, role: Role, found: Found) -> None:
        try:
            password = self._passwords.read(role)
        except ValueError as error:
            found.problems.append(str(error))
            return
        file = self._passwords.file(role)
        if role.name not in found.server.roles or self._renew:
            found.to_set.append(role)
            if password is not None and not self._renew:
                found.passwords[role.name] = password  # of a run that was cut off before the role was made
            return
        if password is None:
            found.problems.append(_unknown(role, f"the role {role.name} is there already, and {file} is not"))
            return
        login, why = await cluster.try_login(found.dsns[role.name], password, self._limits)
        if login is Login.WRONG_PASSWORD:
            found.problems.append(_unknown(role, f"{file} is not the password of {role.name} ({why})"))
        found.passwords[role.name] = password

    async def _look_at_database(self, found: Found) -> None:
        connection = await self._open(self._name)
        try:
            found.problems += await server_problems(connection)
            status = await migrations.read_status(connection)
            if status.state is State.HOWTO:
                found.problems.append(
                    f"the database {self._name} holds the how-to's tables. docs/schema.md (step by step) "
                    "brings them up to date with `mailmaps schema upgrade`, and asks what `active` means; "
                    "then run this again"
                )
            foreign = await cluster.foreign_tables(connection) if status.state is State.EMPTY else []
            if foreign:
                some = ", ".join(foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
                found.problems.append(
                    f"the database {self._name} holds tables that are not ours ({some}): take another with "
                    "--database NAME, or keep your tables (docs/migrating.md)"
                )
        except SchemaError as error:
            found.problems += error.problems
        finally:
            await connection.close(timeout=self._limits.connect_timeout)

    async def make(self, found: Found, site: Site, report: Report) -> None:
        """Roles, database, schema, rights. Raises `ConnectError`, `OSError`, `SchemaError`."""
        connection = await self._open(cluster.MAINTENANCE)
        try:
            for role in found.to_set:
                await self._set(connection, role, found, report)
            if self._name not in found.server.databases:
                owner = OWNER if found.server.is_superuser else None
                if owner and owner not in found.server.roles:
                    await cluster.make_owner(connection, owner)
                await cluster.make_database(connection, self._name, owner)
                report(f"made the database {self._name} (UTF8)")
        finally:
            await connection.close(timeout=self._limits.connect_timeout)
        connection = await self._open(self._name)
        try:
            if found.server.is_superuser:
                await cluster.become_owner(connection)
            status = await migrations.read_status(connection)
            step = migrations.create if status.state is State.EMPTY else migrations.upgrade
            await step(connection, site, report)
        finally:
            await connection.close(timeout=self._limits.connect_timeout)

    async def _set(self, connection: Connection, role: Role, found: Found, report: Report) -> None:
        password = found.passwords.get(role.name)
        if password is None:
            password = found.passwords[role.name] = self._passwords.make(role)
        file = self._passwords.file(role)
        if role.name in found.server.roles:
            await cluster.set_password(connection, role.name, password)
            report(f"gave the role {role.name} a new password, {file}")
        else:
            await cluster.make_role(connection, role.name, password)
            report(f"made the role {role.name}, who {role.purpose}; its password is in {file}")

    async def logins(self, found: Found) -> list[str]:
        """Why a role cannot log in, as the daemon would; nothing when all can."""
        refused: list[Role] = []
        problems = []
        for role in ROLES:
            login, why = await cluster.try_login(
                found.dsns[role.name], found.passwords[role.name], self._limits
            )
            if login is not Login.WORKS:
                problems.append(f"{role.name} cannot log in: {why}")
                refused.append(role)
        if refused:
            problems.append(self._remedy(refused, found.server))
        return problems

    def _remedy(self, refused: list[Role], server: Server) -> str:
        names = ",".join(role.name for role in refused)
        where = "127.0.0.1/32" if server.loopback == "127.0.0.1" else "::1/128"
        address = where if not self._dsn else "ADDRESS-OF-THIS-MACHINE/32"
        return (
            f"put this line into {server.hba_file or 'pg_hba.conf'}, above other lines that these roles "
            f"match, have PostgreSQL read it (`systemctl reload postgresql`), and run this again:\n"
            f"    host  {self._name}  {names}  {address}  scram-sha-256"
        )


# Foreign tables that are named.
SHOWN = 3


def _unknown(role: Role, what: str) -> str:
    return (
        f"{what}. Write its password into the file, as the first line (mode 0600), or give all four roles "
        f"new passwords with --new-passwords, when nothing else logs in as {role.name}"
    )
