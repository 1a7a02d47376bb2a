"""What tests share: one embedded PostgreSQL for the session, and databases by the dozen.

`database` is a copy of a template with the schema in it, `empty_database` has nothing. Each test has its
own, and a connection to it as the owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from mailmaps.database.migrations import Site, create
from mailmaps.demo.postgres import EmbeddedPostgres

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TEMPLATE = "mailmaps_template"
READER_PASSWORD = "a-reader"
_NUMBER = count()


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
    """The session's server, with the role `mailreader`. Its directory is closed to others (mode 0700)."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        asyncio.run(_execute(server.dsn(), f"CREATE ROLE mailreader LOGIN PASSWORD '{READER_PASSWORD}'"))
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
