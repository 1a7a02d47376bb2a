"""What tests share: one embedded PostgreSQL for the session, and databases by the dozen.

`database` is a copy of a template with the schema in it, `empty_database` has nothing. Each test has its
own, and a connection to it as the owner.

Tests marked `postfix` need Debian's packages and root. Where these are missing the tests are left out with
one line that names the command that helps; under CI=true each of them fails instead, since a part that nobody
runs proves nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import asyncpg
import pytest
import pytest_asyncio
from tests.system.postfix import missing_packages

from mailmaps.database.migrations import Site, create
from mailmaps.demo.postgres import EmbeddedPostgres

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TEMPLATE = "mailmaps_template"
READER_PASSWORD = "a-reader"
AUTH_PASSWORD = "an-authenticator"
WRITER_PASSWORD = "a-writer"
ADMIN_PASSWORD = "an-administrator"
_NUMBER = count()


def _obstacle() -> str:
    """Why the tests with Postfix cannot run here; empty when they can."""
    if packages := missing_packages():
        return f"run `make test-packages` as root (missing: {', '.join(packages)})"
    if os.geteuid() != 0:
        return "run as root (Postfix's master must), the packages of `make test-packages` are here"
    return ""


OBSTACLE = _obstacle()
IN_CI = os.environ.get("CI") == "true"
LEFT_OUT: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run."""
    if not OBSTACLE or IN_CI:
        return
    left_out = [item for item in items if item.get_closest_marker("postfix")]
    LEFT_OUT.extend(item.nodeid for item in left_out)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """In CI, what cannot run is a failure."""
    if OBSTACLE and item.get_closest_marker("postfix"):
        pytest.fail(f"tests with Postfix cannot run: {OBSTACLE}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The one line."""
    if LEFT_OUT:
        line = f"{len(LEFT_OUT)} tests with a real Postfix were left out: {OBSTACLE}"
        terminalreporter.write_line(line, yellow=True)


@dataclass(frozen=True)
class Database:
    """One database; `connection` is the owner's."""

    name: str
    postgres: EmbeddedPostgres
    connection: Connection

    @property
    def dsn(self) -> str:
        """The owner's DSN."""
        return self.postgres.dsn(self.name)

    @property
    def reader_dsn(self) -> str:
        """The DSN of `mailreader`."""
        return self.postgres.dsn(self.name, "mailreader", READER_PASSWORD)

    @property
    def auth_dsn(self) -> str:
        """The DSN of `mailauth`."""
        return self.postgres.dsn(self.name, "mailauth", AUTH_PASSWORD)

    @property
    def write_dsn(self) -> str:
        """The DSN of `mailwriter`."""
        return self.postgres.dsn(self.name, "mailwriter", WRITER_PASSWORD)

    @property
    def admin_dsn(self) -> str:
        """The DSN of `mailadmin`."""
        return self.postgres.dsn(self.name, "mailadmin", ADMIN_PASSWORD)

    @asynccontextmanager
    async def connect(self, dsn: str | None = None) -> AsyncIterator[Connection]:
        """Another connection, by default as the owner."""
        connection = await asyncpg.connect(dsn or self.dsn)
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The session's server, with the roles. Its directory is closed to others (mode 0700)."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        for role, password in (
            ("mailreader", READER_PASSWORD),
            ("mailauth", AUTH_PASSWORD),
            ("mailwriter", WRITER_PASSWORD),
            ("mailadmin", ADMIN_PASSWORD),
        ):
            asyncio.run(_execute(server.dsn(), f"CREATE ROLE {role} LOGIN PASSWORD '{password}'"))
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a database with the schema, made as `mailmaps schema create` makes it."""
    asyncio.run(_execute(postgres.dsn(), f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(_create_schema(postgres.dsn(TEMPLATE)))
    return TEMPLATE


@pytest_asyncio.fixture
async def database(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Database]:
    """A fresh database with the schema; active counts, the recipient delimiter is `+`."""
    async with new_database(postgres, f"TEMPLATE {template}") as fresh:
        yield fresh


@pytest_asyncio.fixture
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A fresh database with nothing in it."""
    async with new_database(postgres) as fresh:
        yield fresh


@asynccontextmanager
async def new_database(postgres: EmbeddedPostgres, options: str = "") -> AsyncIterator[Database]:
    """A database with these options of CREATE DATABASE; gone afterwards."""
    name = f"test_{next(_NUMBER)}"
    await _execute(postgres.dsn(), f"CREATE DATABASE {name} {options}")
    connection = await asyncpg.connect(postgres.dsn(name))
    try:
        yield Database(name, postgres, connection)
    finally:
        await connection.close()
        await _execute(postgres.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _create_schema(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await create(connection, Site(recipient_delimiter="+"), lambda _: None)
    finally:
        await connection.close()
