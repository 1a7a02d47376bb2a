"""Two servers in one DSN: the first dies, or hangs, and the second answers; and a standby, promoted in time.

The two independent ones hold different rows, so that an answer tells whose it is. Every key that both know is
found all through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from tests.system.daemon import Daemon
from tests.system.outages import data
from tests.system.outages.asker import Asker
from tests.system.outages.history import Place
from tests.system.outages.server import Server
from tests.system.outages.site import Site, fresh, prepare, proven, says
from tests.system.outages.standby import standby_of

from mailmaps.maps.answer import NOT_FOUND, Found

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

WHERE = Place("virtual_alias_maps", "where@fixed.test")
ONLY_FIRST = Place("virtual_alias_maps", "first@fixed.test")
ONLY_SECOND = Place("virtual_alias_maps", "second@fixed.test")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def other() -> AsyncIterator[Server]:
    with TemporaryDirectory(prefix="mailmaps-postgres-", dir="/tmp") as folder:
        async with Server(Path(folder)) as server:
            await prepare(server)
            yield server


@pytest_asyncio.fixture(loop_scope="module")
async def sites(server: Server, other: Server) -> AsyncIterator[tuple[Site, Site]]:
    async with fresh(server, other) as (first, second):
        for site, name in ((first, "first"), (second, "second")):
            await site.execute(
                f"INSERT INTO mailmaps.forwards VALUES ('where@fixed.test', '{name}@elsewhere.test'), "
                f"('{name}@fixed.test', 'x@elsewhere.test')"
            )
        yield first, second


def both(sites: tuple[Site, Site]) -> str:
    return sites[0].reader_at(*(site.server.postgres.port for site in sites))


@pytest.mark.parametrize("how", ["dies", "hangs"])
@pytest.mark.parametrize("listens", ["by dsn", "by listen_dsn"])
async def test_the_second_host_takes_over(sites: tuple[Site, Site], how: str, listens: str) -> None:
    first, second = sites
    database = {"dsn": both(sites)} | ({"listen_dsn": both(sites)} if listens == "by listen_dsn" else {})
    with Daemon(first.settings(database)) as daemon:
        await proven(daemon)
        assert not await first.differences(daemon)
        asker = Asker(daemon)
        asker.start(lambda: data.KNOWN)
        await (first.server.kill() if how == "dies" else first.server.pause())
        try:
            await says(daemon, WHERE, Found("second@elsewhere.test"))
            await second.agrees(daemon)
            await proven(daemon)
            await says(daemon, ONLY_SECOND, Found("x@elsewhere.test"))
            await says(daemon, ONLY_FIRST, NOT_FOUND)
            await second.execute("DELETE FROM mailmaps.forwards WHERE address = 'second@fixed.test'")
            await says(daemon, ONLY_SECOND, NOT_FOUND)
        finally:
            await (first.server.start() if how == "dies" else first.server.resume())
        # And back, when the second goes.
        await second.server.stop()
        await first.agrees(daemon)
        await second.server.start()
        await proven(daemon)
        await asker.stop()
    assert asker.count().keys() == {"Found"}, asker.count()


async def test_a_standby_answers_and_is_believed_when_it_is_promoted(server: Server) -> None:
    """LISTEN is refused there, so nothing is proven: it is asked, and right. Then it becomes the primary."""
    async with fresh(server) as (site,), standby_of(server) as second:
        copy = Site(second, site.name)
        with Daemon(
            site.settings({"dsn": both((site, copy))}, cache={"ttl": 1.0, "negative_ttl": 1.0})
        ) as daemon:
            await proven(daemon)
            await site.execute("INSERT INTO mailmaps.forwards VALUES ('last@w.test', 'x@elsewhere.test')")
            await says(daemon, Place("virtual_alias_maps", "last@w.test"), Found("x@elsewhere.test"))
            asker = Asker(daemon)
            asker.start(lambda: data.KNOWN)
            await site.server.stop()
            try:
                await copy.agrees(daemon)
                await says(daemon, data.UNKNOWN[0], NOT_FOUND)
                await asyncio.sleep(1.0)
                await copy.execute("SELECT pg_promote()")
                await proven(daemon)
                await copy.execute("INSERT INTO mailmaps.forwards VALUES ('new@w.test', 'x@elsewhere.test')")
                await says(daemon, Place("virtual_alias_maps", "new@w.test"), Found("x@elsewhere.test"))
                await copy.agrees(daemon)
            finally:
                await site.server.start()
            await asker.stop()
        assert asker.count().keys() == {"Found"}, asker.count()
