"""Under a service manager: sockets that are handed over, restarts that nobody notices, what systemd is told.

The rule under test: a restart refuses no connection, loses no question and answers none wrongly.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from tests.system import restart_clients
from tests.system.daemon import Daemon
from tests.system.processes import eventually
from tests.system.service_manager import ServiceManager

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres

TABLE = "virtual_alias_maps"
RESTARTS = 5
LIMIT = 30.0  # seconds within which a condition must come about
WATCHDOG = 1.5  # seconds

# Lines that the daemon sends by itself, again and again.
FED = "WATCHDOG=1"


@pytest.fixture(scope="module")
def server(mail_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server, with a table of one row."""
    asyncio.run(_insert(mail_postgres.dsn()))
    return mail_postgres


async def _insert(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE steady (key text, value text)")
    await connection.execute("INSERT INTO steady VALUES ('known@a.test', 'd@x.test')")
    await connection.close()


@pytest.fixture
def manager() -> Iterator[ServiceManager]:
    with ServiceManager(WATCHDOG) as manager:
        yield manager


def daemon_of(manager: ServiceManager, server: EmbeddedPostgres, **sections: dict[str, str]) -> Daemon:
    """A daemon with a table, a held control socket and TCP endpoints that are held too."""
    daemon = Daemon(
        {
            "database": {"dsn": server.dsn(), "lookup_deadline": 1.0, "connect_timeout": 1.0},
            "senders": {"mode": "off"},
            **sections,
        },
        tables={TABLE: ["view:public.steady"]},
        wrapper=manager.wrapper,
    )
    manager.listen_inet(*daemon.ports.values())
    manager.listen_unix(daemon.folder / "control.sock")
    return daemon


def ends_with(daemon: Daemon) -> str:
    """What a daemon says that does not start. The sockets that are held take connections meanwhile."""
    try:
        with suppress(RuntimeError):
            daemon.start()
        assert eventually(lambda: "Error: " in daemon.log(), LIMIT)
        return daemon.log()
    finally:
        daemon.close()


def one_end() -> socket.socket:
    """Of a connection."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def count(manager: ServiceManager, line: str) -> int:
    return manager.told.count(line)


async def test_a_restart_refuses_no_connection_and_loses_no_question(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    daemon = daemon_of(manager, server)
    ports = daemon.ports
    clients = [
        make(forgets=forgets)
        for make in (
            partial(restart_clients.tcp_table, ports[TABLE], "known@a.test", "d@x.test"),
            partial(restart_clients.socketmap, ports["socketmap"], TABLE, "known@a.test", "d@x.test"),
            partial(restart_clients.policy, ports["policy"]),
        )
        for forgets in (False, True)
        for _ in range(4)
    ]
    try:
        await asyncio.to_thread(daemon.start)
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        for restart in range(RESTARTS):
            told = partial(manager.has_been_told, "READY=1", restart + 1)
            assert await asyncio.to_thread(told), daemon.log()
            await asyncio.sleep(0.5)
            assert await asyncio.to_thread(daemon.stop) == 0
            await asyncio.to_thread(daemon.start)
        assert await asyncio.to_thread(manager.has_been_told, "READY=1", RESTARTS + 1)
        await asyncio.sleep(0.5)
        for client in clients:
            client.stop = True
        await asyncio.gather(*tasks)
    finally:
        daemon.close()
    seen = sum((client.seen for client in clients), Counter())
    assert seen["right"] > len(clients) * RESTARTS
    assert seen["asked again"] > 0, "connections were closed in between"
    assert {word: seen[word] for word in ("refused", "lost", "wrong")} == {
        "refused": 0,
        "lost": 0,
        "wrong": 0,
    }
    assert count(manager, "STOPPING=1") == RESTARTS


def test_what_waits_in_the_queue_is_answered_by_the_next(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told("READY=1"), daemon.log()
        assert daemon.stop() == 0
        with socket.create_connection(("127.0.0.1", daemon.ports[TABLE]), timeout=LIMIT) as client:
            client.sendall(b"get known@a.test\n")
            daemon.start()
            assert client.recv(100) == b"200 d@x.test\n"


def test_what_is_not_handed_over_is_bound_by_ourselves_and_what_is_unknown_sent_away(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    daemon = daemon_of(manager, server)
    manager.sockets.pop(0).close()
    manager.names.pop(0)
    other = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    other.bind(("127.0.0.1", 0))
    manager.hold(other, "other")
    with daemon:
        assert manager.has_been_told("READY=1"), daemon.log()
        assert daemon.ask(TABLE, "known@a.test") == "200 d@x.test"
        with socket.create_connection(other.getsockname(), timeout=LIMIT) as client:
            assert client.recv(100) == b""
        assert f"127.0.0.1:{other.getsockname()[1]} (FileDescriptorName=other)" in daemon.log()


def test_programs_that_the_daemon_starts_inherit_nothing(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told("READY=1"), daemon.log()
        flags = [
            int(line.split()[1], 8)
            for path in Path(f"/proc/{daemon.pid}/fdinfo").iterdir()
            if 3 <= int(path.name) < 3 + len(manager.sockets)
            for line in path.read_text().splitlines()
            if line.startswith("flags:")
        ]
        assert len(flags) == len(manager.sockets)
        assert all(flag & os.O_CLOEXEC and flag & os.O_NONBLOCK for flag in flags)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "is a datagram socket"),
        (one_end, "a connection, not a socket that listens"),
    ],
)
def test_a_socket_of_a_wrong_type_is_named(
    manager: ServiceManager, server: EmbeddedPostgres, make: Callable[[], socket.socket], why: str
) -> None:
    sock = make()
    daemon = daemon_of(manager, server)
    manager.sockets.append(sock)
    manager.names.append("odd")
    assert re.search(rf"FileDescriptorName=odd\), handed over by systemd: .*{why}", ends_with(daemon))


def test_a_wildcard_in_the_way_is_named(manager: ServiceManager, server: EmbeddedPostgres) -> None:
    daemon = daemon_of(manager, server)
    manager.sockets.pop(0).close()
    manager.names.pop(0)
    manager.listen_inet(daemon.ports[TABLE], host="0.0.0.0")  # noqa: S104
    assert re.search("systemd listens on 0.0.0.0:.*name the same address in both", ends_with(daemon))


def test_a_reload_is_told_from_its_begin_to_its_end(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told("READY=1"), daemon.log()
        os.kill(daemon.pid, signal.SIGHUP)
        assert manager.has_been_told("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in manager.told)
        assert manager.has_been_told("READY=1", 2)
        daemon.config.write_text("nonsense")
        os.kill(daemon.pid, signal.SIGHUP)
        assert manager.has_been_told("READY=1", 3)
        status = [line for line in manager.told if line.startswith("STATUS=")][-1]
        assert status.startswith("STATUS=not reloaded, the settings before stay in use: ")
        assert daemon.ask(TABLE, "known@a.test") == "200 d@x.test"


def test_the_watchdog_is_fed_while_the_database_hangs_and_while_it_is_away(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told(FED), daemon.log()
        for stop, go_on in ((server.pause, server.resume), (server.stop, server.start)):
            stop()
            try:
                assert manager.has_been_told(FED, count(manager, FED) + 6)
            finally:
                go_on()
        assert "systemd is not told that we live" not in daemon.log()


def test_a_daemon_that_does_not_run_feeds_nobody(manager: ServiceManager, server: EmbeddedPostgres) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told(FED), daemon.log()
        os.kill(daemon.pid, signal.SIGSTOP)
        before = count(manager, FED)
        assert not manager.has_been_told(FED, before + 2, 3 * WATCHDOG)
        os.kill(daemon.pid, signal.SIGCONT)
        assert manager.has_been_told(FED, before + 3)


def test_the_watchdog_is_fed_at_the_descriptor_limit(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    with daemon_of(manager, server) as daemon:
        assert manager.has_been_told(FED), daemon.log()
        highest = max(int(one.name) for one in Path(f"/proc/{daemon.pid}/fd").iterdir())
        subprocess.run(["prlimit", f"--pid={daemon.pid}", f"--nofile={highest + 1}:"], check=True)
        clients = [
            socket.create_connection(("127.0.0.1", daemon.ports[TABLE]), timeout=LIMIT) for _ in range(30)
        ]
        assert eventually(lambda: "accepting pauses" in daemon.log(), LIMIT)
        assert manager.has_been_told(FED, count(manager, FED) + 6)
        assert "systemd is not told that we live" not in daemon.log()
        for client in clients:
            client.close()


@pytest.mark.parametrize("only", ["control", "login", "dovecot_auth", "saslauthd", "socketmap", "policy"])
def test_the_watchdog_is_fed_whatever_the_only_endpoint_is(
    manager: ServiceManager, server: EmbeddedPostgres, tmp_path: Path, only: str
) -> None:
    config = tmp_path / "mailmaps.toml"
    sections = {
        "socketmap": 'inet = ""',
        "policy": 'inet = ""',
        "control": 'unix = ""',
        "metrics": 'inet = ""',
    }
    sections[only] = sections.get(only, "").replace('unix = ""', "") + f'\nunix = "{tmp_path}/{only}.mux"'
    sections["mirror"] = f'directory = "{tmp_path}/held"'
    sections["database"] = f'dsn = "{server.dsn()}"'
    sections[f"tables.{TABLE}"] = 'sources = ["view:public.steady"]\ntcp = ""'
    text = "".join(f"\n[{name}]\n{lines}\n" for name, lines in sections.items())
    config.write_text(f"builtin_tables = false\n{text}")
    config.chmod(0o600)
    words = [*manager.wrapper, sys.executable, "-m", "mailmaps", "serve", "--config", str(config)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        fed = manager.has_been_told(FED, 6)
        process.terminate()
        assert process.stderr is not None
        log = process.stderr.read()
    assert fed, log
    assert f"endpoint={only}.unix" in log, "that it is the one which is asked"
    after = log.partition(f"endpoint={only}.unix")[2].splitlines()[1:]
    assert [line for line in after if "mailmaps.daemon: stopped" not in line] == [], "a question is no event"


def test_a_socket_that_is_handed_over_twice_is_two_ways_in(
    manager: ServiceManager, server: EmbeddedPostgres
) -> None:
    daemon = daemon_of(manager, server)
    manager.hold(manager.sockets[0].dup(), "inet")
    with daemon:
        for _ in range(20):
            assert daemon.ask(TABLE, "known@a.test") == "200 d@x.test"
        assert "no setting names" not in daemon.log()
