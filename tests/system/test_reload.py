"""Reload of the real daemon: answers change, none fails meanwhile, and what is broken is not taken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests import cf_site
from tests.conftest import Database, new_database
from tests.system.daemon import Daemon
from tests.system.processes import eventually_async, free_ports

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

TABLE = "virtual_alias_maps"
LIMIT = 30.0  # seconds within which a condition must come about


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with new_database(postgres) as database:
        yield database


@pytest.fixture
def file(tmp_path: Path, database: Database) -> Path:
    file = tmp_path / "a.cf"
    put(file, database, "SELECT 'one'")
    return file


@pytest.fixture
def daemon(file: Path, database: Database) -> Iterator[Daemon]:
    settings = {"cache": {"ttl": 300.0, "negative_ttl": 300.0}, "database": {"lookup_deadline": 4.0}}
    with Daemon(settings, tables={TABLE: [f"pgsql:{file}"]}) as daemon:
        yield daemon


def put(file: Path, database: Database, query: str) -> None:
    file.write_text(f"{cf_site.login(database.dsn)}query = {query}\n")


def command(daemon: Daemon, name: str) -> dict[str, object]:
    """What the control socket answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(LIMIT)
        client.connect(str(daemon.folder / "control.sock"))
        client.sendall(json.dumps({"command": name}).encode() + b"\n")
        reply: dict[str, object] = json.loads(client.makefile().readline())
        return reply


def _in(line: bytes, replies: list[bytes]) -> bool:
    return line in replies


def _logged(daemon: Daemon, text: str) -> bool:
    return text in daemon.log()


async def ask(daemon: Daemon, key: str = "a@one.test") -> str:
    return await asyncio.to_thread(daemon.ask, TABLE, key)


async def test_sighup_changes_the_answers_and_none_fails(
    daemon: Daemon, file: Path, database: Database
) -> None:
    assert await ask(daemon) == "200 one"
    replies: list[bytes] = []

    async def client(number: int) -> None:
        """Ask over one connection, over and over, a key that nobody remembers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports[TABLE])
        try:
            for count in range(1_000_000):
                writer.write(f"get k{number}.{count}@one.test\n".encode())
                replies.append(await reader.readline())
        finally:
            writer.close()

    clients = [asyncio.ensure_future(client(number)) for number in range(4)]
    for query, answer in (("SELECT 'two'", "two"), ("SELECT 'three' WHERE '%s' <> ''", "three")):
        put(file, database, query)
        os.kill(daemon.pid, signal.SIGHUP)
        line = f"200 {answer}\n".encode()
        assert await eventually_async(partial(_in, line, replies), LIMIT)
        assert await ask(daemon) == f"200 {answer}", "what was remembered is forgotten"
    for task in clients:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*clients)
    assert set(replies) == {b"200 one\n", b"200 two\n", b"200 three\n"}


async def test_a_broken_file_changes_nothing(daemon: Daemon, file: Path, database: Database) -> None:
    for query, why in (
        ("SELECT %s", f"{file}:5: query: a placeholder outside quotes"),
        ("SELECT nope FROM nowhere WHERE k = '%s'", f"{file}:5: query: relation"),
        ("SELECT '%s'\nexpansion_limit = many", f"{file}:6: expansion_limit"),
    ):
        put(file, database, query)
        os.kill(daemon.pid, signal.SIGHUP)
        assert await eventually_async(partial(_logged, daemon, f'not reloaded reason="{why}'), LIMIT), (
            daemon.log()
        )
        assert await ask(daemon) == "200 one"
        assert await ask(daemon, f"{len(why)}@one.test") == "200 one", "asked anew, not remembered"
    await asyncio.to_thread(file.unlink)
    reply = await asyncio.to_thread(command, daemon, "reload")
    assert reply["problems"] == [f"{file}: No such file or directory"]
    assert await ask(daemon, "new@one.test") == "200 one"


async def test_the_control_socket_reloads_and_says_what_is_wrong(
    daemon: Daemon, file: Path, database: Database
) -> None:
    assert await asyncio.to_thread(command, daemon, "reload") == {"problems": [], "warnings": []}
    put(file, database, "SELECT '%z'\nresult_format = %y")
    reply = await asyncio.to_thread(command, daemon, "reload")
    problems = reply["problems"]
    assert isinstance(problems, list)
    assert [problem.split(": ")[0] for problem in problems] == [f"{file}:5", f"{file}:6"]
    put(file, database, "SELECT 'four'")
    assert await asyncio.to_thread(command, daemon, "reload") == {"problems": [], "warnings": []}
    assert await ask(daemon) == "200 four"


async def test_a_reload_while_the_database_is_away_keeps_the_old(
    daemon: Daemon, file: Path, database: Database
) -> None:
    text = "hosts = 127.0.0.1:1\ndbname = x\nquery = SELECT 'never'\n"
    await asyncio.to_thread(file.write_text, text)
    reply = await asyncio.to_thread(command, daemon, "reload")
    assert str(file) in str(reply["problems"])
    assert await ask(daemon) == "200 one"


async def test_settings_that_cannot_be_read_keep_the_old(daemon: Daemon) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(text + "\n[nonsense]\n")
    reply = await asyncio.to_thread(command, daemon, "reload")
    assert "nonsense" in str(reply["problems"])
    assert await ask(daemon) == "200 one"


async def test_reloads_leave_no_connections_behind(daemon: Daemon, database: Database) -> None:
    for _ in range(3):
        await asyncio.to_thread(command, daemon, "reload")

    async def few() -> bool:
        return await connections(database) <= 4

    assert await eventually_async(few, LIMIT), "lookup_deadline and a second later the old ones are gone"


async def test_a_storm_of_signals_is_two_reloads(daemon: Daemon, database: Database) -> None:
    """However many there are, no more than two sets of connections are there at once."""
    most = 0
    for _ in range(60):
        os.kill(daemon.pid, signal.SIGHUP)
        await asyncio.sleep(0.03)
        most = max(most, await connections(database))
        assert (await ask(daemon)).startswith("200 ")
    assert most <= 8

    async def few() -> bool:
        return await connections(database) <= 4

    assert await eventually_async(few, LIMIT)
    assert "not reloaded" not in daemon.log()


async def test_who_hangs_up_does_not_stop_the_reload(daemon: Daemon, file: Path, database: Database) -> None:
    put(file, database, "SELECT 'five'")
    for _ in range(4):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(daemon.folder / "control.sock"))
            client.sendall(b'{"command": "reload"}\n')
            await asyncio.sleep(0.01)

    async def reloaded() -> bool:
        return await ask(daemon) == "200 five" and await connections(database) <= 4

    assert await eventually_async(reloaded, LIMIT)
    assert "destroyed" not in daemon.log()


async def test_what_takes_a_restart_is_said(daemon: Daemon, file: Path) -> None:
    port = free_ports(1)[0]
    table = f'\n[tables.more]\nparameter = "{TABLE}"\nsources = ["pgsql:{file}"]\ntcp = "127.0.0.1:{port}"\n'
    settings = daemon.config.read_text() + table
    await asyncio.to_thread(daemon.config.write_text, settings)
    for _ in range(2):  # as long as it is so
        done = await asyncio.to_thread(daemon.run, "reload")
        assert done.returncode == 0
        assert f"tables.more.tcp = 127.0.0.1:{port}: after a restart; until then nothing" in done.stdout


async def test_status_shows_no_password_of_a_uri(daemon: Daemon, file: Path, database: Database) -> None:
    parts = urlsplit(database.dsn)
    assert parts.password is not None
    bare = f"postgresql://{parts.username}@{parts.hostname}:{parts.port}{parts.path}"
    text = f"hosts = {database.dsn}, {bare}?password={parts.password}\nquery = SELECT 'six'\n"
    await asyncio.to_thread(file.write_text, text)
    assert await asyncio.to_thread(command, daemon, "reload") == {"problems": [], "warnings": []}
    status = json.dumps(await asyncio.to_thread(command, daemon, "status"))
    assert f"{parts.hostname}:{parts.port}" in status
    assert parts.password not in status + daemon.log()


async def connections(database: Database) -> int:
    return int(
        await database.connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mailmaps' AND datname = $1",
            database.name,
        )
    )


async def test_the_level_of_the_log_is_reloaded_too(daemon: Daemon) -> None:
    assert daemon.run("reload").returncode == 0
    assert await eventually_async(lambda: daemon.log().count("reloading: reloaded") == 1, LIMIT)
    text = daemon.config.read_text()
    daemon.config.write_text(text + '\n[log]\nlevel = "error"\n')
    assert daemon.run("reload").returncode == 0
    daemon.config.write_text(text)
    assert daemon.run("reload").returncode == 0
    assert await eventually_async(lambda: daemon.log().count("reloading: reloaded") == 2, LIMIT), daemon.log()
