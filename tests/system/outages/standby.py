"""A hot standby of a server: a copy that follows it, answers queries, refuses LISTEN, and can be promoted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.outages.server import Server

from mailmaps.demo import launcher

COPY_LIMIT = 60.0


@asynccontextmanager
async def standby_of(server: Server) -> AsyncIterator[Server]:
    """Made from what `server` is now, and started; the same roles and passwords hold there."""
    with TemporaryDirectory(prefix="mailmaps-standby-", dir="/tmp") as name:
        folder = Path(name)
        original = server.postgres.directory
        # -R: standby.signal and primary_conninfo, so that it follows.
        words = [str(launcher.programs() / "pg_basebackup"), "-D", str(folder / "data"), "-R", "-c", "fast"]
        words += ["-d", server.postgres.dsn()]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=COPY_LIMIT, capture_output=True)
        shutil.copy(original / "password", folder / "password")
        owner = (original / "data").stat()
        for path in ((folder / "data"), *(folder / "data").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        async with Server(folder) as standby:
            yield standby
