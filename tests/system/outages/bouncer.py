"""A real PgBouncer in transaction mode in front of a database, as some sites have it.

Contract: `async with bouncer(site) as dsn` gives the reader's DSN through it; it has two server connections,
so that a client rarely has the one it had. Gone afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.outages.site import LIMIT, READER_PASSWORD, Site
from tests.system.postfix import SEARCH_PATH
from tests.system.processes import eventually_async, free_ports


@asynccontextmanager
async def bouncer(site: Site, *, ignores: Sequence[str] = ()) -> AsyncIterator[str]:
    """Started and listening; `ignores` are settings of sessions that it takes and drops."""
    port = free_ports(1)[0]
    with TemporaryDirectory(prefix="mailmaps-pgbouncer-", dir="/tmp") as name:
        process = _start(Path(name), site, port, ignores)
        try:
            assert await eventually_async(lambda: _listens(port), LIMIT)
            yield site.reader_at(port)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, LIMIT)


def _start(folder: Path, site: Site, port: int, ignores: Sequence[str]) -> subprocess.Popen[bytes]:
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{site.name} = host=127.0.0.1 port={site.server.postgres.port} "
        f"user=mailreader password='{READER_PASSWORD}'\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        f"ignore_startup_parameters = {', '.join(ignores)}\n"
    )
    folder.chmod(0o755)
    config.chmod(0o644)
    program = shutil.which("pgbouncer", path=SEARCH_PATH)
    assert program is not None
    words = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", program, str(config)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
