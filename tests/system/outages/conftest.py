"""One server a module, which its tests may trouble as they like; a fresh database and a daemon for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest_asyncio
from tests.system.daemon import Daemon
from tests.system.outages.server import Server
from tests.system.outages.site import Site, fresh, prepare, proven


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[Server]:
    """With the role `mailreader` and the template of all sites."""
    with TemporaryDirectory(prefix="mailmaps-postgres-", dir="/tmp") as folder:
        async with Server(Path(folder)) as server:
            await prepare(server)
            yield server


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server) -> AsyncIterator[Site]:
    """A fresh database."""
    async with fresh(server) as (site,):
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def daemon(site: Site) -> AsyncIterator[Daemon]:
    """A daemon on it, all of whose mirrors are proven current."""
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        yield daemon
