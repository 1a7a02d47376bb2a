"""Prepares the demo's directory: database, schema, role, rows and settings, all kept between runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mailmaps.config import Settings, parse
from mailmaps.config.section import split_inet
from mailmaps.config.settings import Database
from mailmaps.database import migrations
from mailmaps.database.connect import connect
from mailmaps.database.views import quote_name
from mailmaps.demo.data import give_password, load_accounts, load_small
from mailmaps.demo.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

READER, AUTHENTICATOR, WRITER = "mailreader", "mailauth", "mailwriter"
DELIMITER = "+"


class Site:
    """The demo in `directory`; `accounts` None is the how-to's domain, else that many accounts.

    `port_shift` is added to every default port.
    """

    def __init__(
        self, directory: Path, postgres: EmbeddedPostgres, accounts: int | None, port_shift: int = 0
    ) -> None:
        self._directory = directory.resolve()
        self._postgres = postgres
        self._accounts = accounts
        self._port_shift = port_shift
        self._database = "mail_lxtreme" if accounts is None else f"mail_{accounts}"
        self.config = self._directory / "mailmaps.toml"

    async def prepare(self, advance: Callable[[int], None] = lambda _: None) -> Settings:
        """Make what is missing and return the settings; `advance` is told of accounts loaded."""
        await self._create_role_and_database()
        connection = await self._connect(self._database)
        try:
            await self._create_schema_and_rows(connection, advance)
        finally:
            await connection.close()
        text = self._settings()
        self.config.write_text(text)
        return parse(text, str(self.config))

    async def _connect(self, database: str) -> Connection:
        return await connect(Database(), self._postgres.dsn(database))

    async def _create_role_and_database(self) -> None:
        connection = await self._connect("postgres")
        try:
            for role in (READER, AUTHENTICATOR, WRITER):
                known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
                await connection.execute(
                    f"{'ALTER' if known else 'CREATE'} ROLE {role} LOGIN PASSWORD '{self._password_of(role)}'"
                )
            if not await connection.fetchval(
                "SELECT true FROM pg_database WHERE datname = $1", self._database
            ):
                await connection.execute(f"CREATE DATABASE {quote_name(self._database)}")
        finally:
            await connection.close()

    def _password_of(self, role: str) -> str:
        path = self._password_file(role)
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
        return path.read_text().strip()

    def _password_file(self, role: str) -> Path:
        return self._directory / f"{role}.password"

    async def _create_schema_and_rows(self, connection: Connection, advance: Callable[[int], None]) -> None:
        site = migrations.Site(honour_active=True, recipient_delimiter=DELIMITER)
        fresh = (await migrations.read_status(connection)).version == 0
        step = migrations.create if fresh else migrations.upgrade
        await step(connection, site, lambda _: None)
        await self._load(connection, advance)
        if self._accounts is None:
            await give_password(connection)

    async def _load(self, connection: Connection, advance: Callable[[int], None]) -> None:
        if await connection.fetchval("SELECT EXISTS (SELECT FROM domains)"):
            return
        async with connection.transaction():
            if self._accounts is None:
                await load_small(connection)
            else:
                await load_accounts(connection, self._accounts, advance)
        await connection.execute("ANALYZE")

    def _settings(self) -> str:
        dsn, auth_dsn, write_dsn = (
            self._postgres.dsn(self._database, role) for role in (READER, AUTHENTICATOR, WRITER)
        )
        tables = "".join(
            f'\n[tables.{name}]\ntcp = "{self._shifted(table.tcp)}"\n'
            for name, table in Settings().tables.items()
        )
        return f"""# Written by `mailmaps demo` at every start.
delivery = "lmtp:unix:private/dovecot-lmtp"

[database]
dsn = "{dsn}"
password_file = "{self._password_file(READER)}"
auth_dsn = "{auth_dsn}"
auth_password_file = "{self._password_file(AUTHENTICATOR)}"
write_dsn = "{write_dsn}"
write_password_file = "{self._password_file(WRITER)}"

[mirror]
directory = "{self._directory / "mirrors"}"

[filemaps]
directory = "{self._directory / "files"}"

[control]
unix = "{self._directory / "control.sock"}"

[login]
unix = "{self._directory / "login.sock"}"

[postfix]
virtual_mailbox_base = "{self._directory / "mail"}"
recipient_delimiter = "{DELIMITER}"

[socketmap]
inet = "{self._shifted(Settings().socketmap.inet)}"

[policy]
inet = "{self._shifted(Settings().policy.inet)}"

[limits]
login_recipients_hour = 200
{tables}"""

    def _shifted(self, inet: str) -> str:
        host, port = split_inet(inet)
        return f"{host}:{port + self._port_shift}"
