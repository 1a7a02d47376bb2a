"""Behind a real PgBouncer in transaction mode, where a prepared statement may be on another server."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import pytest
from tests.conftest import Database
from tests.system.daemon import Daemon
from tests.system.postfix import SEARCH_PATH
from tests.system.processes import eventually, free_ports

from mailmaps.client import TcpTableClient
from mailmaps.maps.answer import NOT_FOUND, Found

pytestmark = pytest.mark.postfix
LIMIT = 20.0


@pytest.fixture
def bouncer(database: Database) -> Iterator[str]:
    """The DSN of a PgBouncer with two server connections in front of the database."""
    parts = urlsplit(database.dsn)
    port = free_ports(1)[0]
    with TemporaryDirectory(prefix="mailmaps-pgbouncer-", dir="/tmp") as name:
        folder = Path(name)
        config = folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\nmail = host=127.0.0.1 port={parts.port} dbname={database.name} "
            f"user={parts.username} password={unquote(parts.password or '')}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        folder.chmod(0o755)
        config.chmod(0o644)
        words = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        program = shutil.which("pgbouncer", path=SEARCH_PATH)
        assert program is not None
        process = subprocess.Popen(
            [*words, program, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert eventually(lambda: _listens(port), LIMIT)
            yield f"postgresql://nobody@127.0.0.1:{port}/mail"
        finally:
            process.terminate()
            process.wait(LIMIT)


async def test_every_lookup_is_answered_through_a_transaction_pool(database: Database, bouncer: str) -> None:
    await database.connection.execute(
        """CREATE TABLE plain AS
           SELECT 'u' || n || '@a.test' AS key, 'd' || n AS value FROM generate_series(1, 300) n"""
    )
    settings: dict[str, dict[str, str | float | bool]] = {
        "database": {"dsn": bouncer, "pgbouncer": True, "connections": 8}
    }
    with Daemon(settings, {"virtual_mailbox_maps": "view:public.plain"}) as daemon:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: _ask(daemon, f"u{n}@a.test"), range(1, 401)))
        assert answers == [Found(f"d{n}") for n in range(1, 301)] + [NOT_FOUND] * 100
        errors = [line for line in daemon.log().splitlines() if "ERROR" in line]
        assert len(errors) == 1, errors
        assert "a pooler is in between, which drops notifications: set database.listen_dsn" in errors[0]


async def test_a_cf_file_works_through_a_transaction_pool(
    database: Database, bouncer: str, tmp_path: Path
) -> None:
    """With a parameter and columns that have to be told to travel as text, and one that is written in."""
    await database.connection.execute(
        """CREATE TABLE plain AS
           SELECT n AS id, n % 2 = 0 AS even, date '2020-01-01' + n AS day FROM generate_series(1, 300) n"""
    )
    (tmp_path / "bound.cf").write_text(
        f"hosts = {bouncer}\nquery = SELECT even, id FROM plain WHERE id = '%u'\n"
    )
    (tmp_path / "day.cf").write_text(
        f"hosts = {bouncer}\nquery = SELECT id FROM plain WHERE day = date '%u'\n"
    )
    sources = [f"pgsql:{tmp_path}/bound.cf"], [f"pgsql:{tmp_path}/day.cf"]
    settings: dict[str, dict[str, str | float | bool]] = {"database": {"pgbouncer": True, "connections": 8}}
    tables = dict(zip(("virtual_mailbox_maps", "virtual_uid_maps"), sources, strict=True))
    with Daemon(settings, tables=tables) as daemon:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: _ask(daemon, f"{n}@a.test"), range(1, 401)))
        expected = [Found(f"{'f' if n % 2 else 't'},{n}") for n in range(1, 301)]
        assert answers == expected + [NOT_FOUND] * 100
        assert _ask(daemon, "2020-01-05@a.test", "virtual_uid_maps") == Found("4")
        assert "ERROR" not in daemon.log()


def _ask(daemon: Daemon, key: str, table: str = "virtual_mailbox_maps") -> object:
    with socket.create_connection(("127.0.0.1", daemon.ports[table]), timeout=LIMIT) as sock:
        return TcpTableClient(sock).ask(key)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
