"""PostgreSQL that is there for others and refuses us: the password, the connection, the rights.

Others go on writing, so "not found" from what is held must not outlive its proof, while what was found once
is found still (`cache.max_stale`). Everything comes right by itself when we are let in again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest
from tests.system.daemon import Daemon
from tests.system.outages import data
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.observed import Observed
from tests.system.outages.site import READER_PASSWORD, Site, proven, says

from mailmaps.maps.answer import NOT_FOUND, Found, NotFound, Unavailable

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

REFUSED = 8.0
"""Seconds: longer than an answer may be behind (`observed.PATIENCE`)."""

OTHERS = "others"


@asynccontextmanager
async def by_a_new_password(site: Site) -> AsyncIterator[str]:
    await site.execute("ALTER ROLE mailreader PASSWORD 'another'")
    await site.terminate_daemon()
    yield "password authentication failed"
    await site.execute(f"ALTER ROLE mailreader PASSWORD '{READER_PASSWORD}'")


@asynccontextmanager
async def by_the_limit_of_the_role(site: Site) -> AsyncIterator[str]:
    await site.execute("ALTER ROLE mailreader CONNECTION LIMIT 0")
    await site.terminate_daemon()
    yield "too many connections for role"
    await site.execute("ALTER ROLE mailreader CONNECTION LIMIT -1")


@asynccontextmanager
async def by_the_limit_of_the_server(site: Site) -> AsyncIterator[str]:
    """Others take every connection that is not kept for superusers (as whom the writers are there)."""
    await site.execute(f"CREATE ROLE {OTHERS} LOGIN PASSWORD 'x'; ALTER ROLE mailreader CONNECTION LIMIT 0")
    await site.terminate_daemon()
    dsn = site.server.postgres.dsn(site.name, OTHERS, "x")
    async with AsyncExitStack() as stack:
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                stack.callback((await asyncpg.connect(dsn)).terminate)
        await site.execute("ALTER ROLE mailreader CONNECTION LIMIT -1")
        yield "remaining connection slots"
    await site.execute(f"DROP ROLE {OTHERS}")


@asynccontextmanager
async def by_the_database(site: Site) -> AsyncIterator[str]:
    await site.execute(f"REVOKE CONNECT ON DATABASE {site.name} FROM PUBLIC")
    await site.terminate_daemon()
    yield "permission denied for database"
    await site.execute(f"GRANT CONNECT ON DATABASE {site.name} TO PUBLIC")


@pytest.mark.parametrize(
    "how",
    [by_a_new_password, by_the_limit_of_the_role, by_the_limit_of_the_server, by_the_database],
)
async def test_the_server_refuses_us(
    site: Site, daemon: Daemon, how: Callable[[Site], AbstractAsyncContextManager[str]]
) -> None:
    async with Observed(site, daemon) as seen:
        await asyncio.sleep(1.0)
        with seen.trouble(Found):
            async with how(site) as why:
                await says(daemon, data.UNKNOWN[0], lambda answer: isinstance(answer, Unavailable))
                await site.execute("INSERT INTO mailmaps.forwards VALUES ('made@w.test', 'x@elsewhere.test')")
                await asyncio.sleep(REFUSED)
                for place in data.UNKNOWN:
                    await says(daemon, place, lambda answer: isinstance(answer, Unavailable))
                assert why in daemon.log()
        await seen.recovered()
    assert {type(answer) for answer in seen.answers(data.ROWS_OF_THEIR_OWN, since=0.0)} == {Found}
    assert NotFound not in {type(answer) for answer in seen.answers(data.KNOWN, since=0.0)}
    await says(daemon, Place("virtual_alias_maps", "made@w.test"), Found("x@elsewhere.test"))


async def test_only_listening_is_refused(site: Site, daemon: Daemon) -> None:
    """The connections that are open go on answering what is not held."""
    listens = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE datname = $1 AND application_name = 'mailmaps' AND query LIKE '%pg_notify%'"
    )
    await proven(daemon)
    async with site.connect() as connection:
        while not (listening := await connection.fetchrow(listens, site.name)):
            await asyncio.sleep(0.01)  # it is asking something else
        await connection.execute("ALTER ROLE mailreader CONNECTION LIMIT 0")
        await connection.execute(f"SELECT pg_terminate_backend({listening['pid']})")
        await asyncio.sleep(REFUSED)
        for place in data.UNKNOWN:
            assert await ask(daemon, place) == NOT_FOUND
        await connection.execute("ALTER ROLE mailreader CONNECTION LIMIT -1")
    await proven(daemon)


async def test_a_view_that_we_may_not_read(site: Site, daemon: Daemon) -> None:
    """It concerns that table alone."""
    table = "virtual_uid_maps"
    known = [place for place in data.KNOWN if place.table == table]
    others = [place for place in data.KNOWN if place.table != table]
    async with Observed(site, daemon) as seen:
        with seen.trouble(Found):
            await site.execute(f"REVOKE SELECT ON mailmaps.{table} FROM mailreader")
            await site.terminate_daemon()
            await says(daemon, Place(table, "nobody@fixed.test"), lambda one: isinstance(one, Unavailable))
            await proven(daemon, but=[table])
            await says(daemon, Place("virtual_gid_maps", "nobody@fixed.test"), NOT_FOUND)
            await asyncio.sleep(REFUSED)
            await site.execute(f"GRANT SELECT ON mailmaps.{table} TO mailreader")
        await seen.recovered()
    assert {type(answer) for answer in seen.answers(known, since=0.0)} == {Found}
    assert {type(answer) for answer in seen.answers(others, since=0.0)} == {Found}
    assert NotFound not in {type(answer) for answer in seen.answers(data.KNOWN, since=0.0)}
