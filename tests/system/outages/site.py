"""A database with our schema and the rows of `data`, and a daemon on it, as the outage tests want them.

Contract: `Site` is one database on one `Server`, asked by `mailreader`, who may do nothing but read;
`prepare` makes on a server the template that all its sites are copies of. `settings` are the defaults but for
shorter deadlines: no ttl (30 s) and no comparison (an hour) brings a change in time, a notification does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from tests.system.daemon import TABLES, Daemon, Value
from tests.system.outages import data, truth
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.server import Connection, Server
from tests.system.processes import eventually_async

from mailmaps.database.migrations import Site as SchemaSite
from mailmaps.database.migrations import create
from mailmaps.maps.answer import Answer

TEMPLATE = "template_of_outages"
READER_PASSWORD = "a-reader-of-outages"
LIMIT = 40.0
"""Seconds within which what must come about has come about; nothing measures how fast."""

_NUMBER = count()


async def prepare(server: Server) -> None:
    """Make role and template."""
    await server.execute(f"CREATE ROLE mailreader LOGIN PASSWORD '{READER_PASSWORD}'")
    await server.execute(f"CREATE DATABASE {TEMPLATE}")
    async with server.connect(server.postgres.dsn(TEMPLATE)) as connection:
        await create(connection, SchemaSite(honour_active=True, recipient_delimiter="+"), lambda _: None)
        await connection.execute(data.SETUP)
        await connection.execute("ANALYZE")
        await connection.execute("CHECKPOINT")


@dataclass(frozen=True)
class Site:
    """One database; `owner` is its owner's DSN, `reader` the daemon's."""

    server: Server
    name: str

    @property
    def owner(self) -> str:
        return self.server.postgres.dsn(self.name)

    @property
    def reader(self) -> str:
        return self.server.postgres.dsn(self.name, "mailreader", READER_PASSWORD)

    def reader_at(self, *ports: int) -> str:
        """The reader's DSN with these ports of 127.0.0.1 as its hosts."""
        parts = urlsplit(self.reader)
        login = parts.netloc.rpartition("@")[0]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://{login}@{hosts}/{self.name}"

    async def execute(self, statements: str) -> None:
        await self.server.execute(statements, self.owner)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """The owner's connection."""
        async with self.server.connect(self.owner) as connection:
            yield connection

    def settings(
        self, database: Mapping[str, Value] | None = None, **sections: Mapping[str, Value]
    ) -> dict[str, Mapping[str, Value] | Value]:
        """For `Daemon`; `database` and `sections` over what these tests want."""
        wanted: dict[str, Mapping[str, Value] | Value] = {
            "database": {
                "dsn": self.reader,
                "connections": 2,
                "lookup_deadline": 1.5,
                "connect_timeout": 1.5,
                "honour_active": True,
                **(database or {}),
            },
            "postfix": {"recipient_delimiter": "+"},
        }
        return wanted | sections

    async def terminate_daemon(self) -> int:
        """End every backend of the daemon's; how many there were."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'mailmaps' AND datname = $1"
        )
        async with self.server.connect() as connection:
            return int(await connection.fetchval(query, self.name))

    async def differences(self, daemon: Daemon) -> list[str]:
        """What the daemon answers otherwise than the views, by tcp; nobody may write meanwhile."""
        async with self.connect() as connection:
            return await truth.differences(daemon, connection, absent_places())

    async def agrees(self, daemon: Daemon) -> None:
        """Wait until every view and the daemon say the same. Raises `AssertionError`."""
        found: list[str] = []

        async def same() -> bool:
            found[:] = await self.differences(daemon)
            return not found

        if not await eventually_async(same, LIMIT, every=0.2):
            raise AssertionError("\n".join([f"{len(found)} differences, such as", *found[:20], daemon.log()]))


def absent_places() -> list[Place]:
    """Every place that a test speaks of, whether there are rows for it or not."""
    written = [place for rows in data.writers() for some in rows for place in some.places]
    return [*data.KNOWN, *data.UNKNOWN, *dict.fromkeys(written)]


async def says(daemon: Daemon, place: Place, wanted: Callable[[Answer], bool] | Answer) -> None:
    """Wait until the daemon says what is wanted. Raises `AssertionError`."""
    last: list[Answer] = []

    async def said() -> bool:
        last[:] = [await ask(daemon, place)]
        return wanted(last[0]) if callable(wanted) else last[0] == wanted

    if not await eventually_async(said, LIMIT, every=0.05):
        raise AssertionError(f"{place} still says {last}\n{daemon.log()}")


@asynccontextmanager
async def fresh(*servers: Server) -> AsyncIterator[tuple[Site, ...]]:
    """A database of one name on each of the servers."""
    name = f"outage_{next(_NUMBER)}"
    for server in servers:
        await server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield tuple(Site(server, name) for server in servers)
    finally:
        for server in servers:
            try:
                await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            except (OSError, asyncpg.PostgresError):
                await server.restart()  # the test that failed has left it in trouble


async def proven(daemon: Daemon, *, but: Sequence[str] = ()) -> None:
    """Wait until every mirror is proven current, but those of some tables. Raises `AssertionError`."""
    wanted = {f"mailmaps.{table}" for table in TABLES if table not in but}

    async def so() -> bool:
        return {view for view, state in (await mirrors(daemon)).items() if state["proven"]} >= wanted

    if not await eventually_async(so, LIMIT, every=0.1):
        raise AssertionError(f"not proven: {await mirrors(daemon)}\n{daemon.log()}")


async def mirrors(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """What `mailmaps status` tells of each mirror, by its view."""
    told = await asyncio.to_thread(daemon.status)
    found: dict[str, dict[str, Any]] = told["mirrors"]
    return found


async def hears(daemon: Daemon, wanted: bool) -> None:
    """Wait until changes are heard of, or are not. Raises `AssertionError`."""

    async def so() -> bool:
        told = await asyncio.to_thread(daemon.status)
        return (told["changes"]["tables"]["trouble"] is None) is wanted

    if not await eventually_async(so, LIMIT, every=0.05):
        raise AssertionError(f"{await asyncio.to_thread(daemon.status)}\n{daemon.log()}")
