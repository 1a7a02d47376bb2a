"""The embedded server: it starts anywhere, stays by itself, and nothing of it outlives us."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from mailmaps.demo import launcher
from mailmaps.demo.postgres import EmbeddedPostgres, PostgresError

# Seconds until what must happen has happened; nothing measures how fast.
PATIENCE = 60.0
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can become somebody else")

# A process that starts a server and then waits; its parent kills it.
CHILD = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
from mailmaps.demo.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), fsync=False)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of this test alone, started."""
    with EmbeddedPostgres(tmp_path / "pg", fsync=False) as running:
        yield running


async def _ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=PATIENCE)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def ask(server: EmbeddedPostgres, question: str = "SELECT 1", dsn: str | None = None) -> object:
    return asyncio.run(_ask(dsn or server.dsn(), question))


def family(directory: Path) -> list[int]:
    """Processes that name the data or work in it, zombies aside."""
    data = directory / "data"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(data) in (entry / "cmdline").read_bytes() or (entry / "cwd").readlink() == data:
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile, or root may not look (a container without CAP_SYS_PTRACE)
    return found


def eventually_gone(directory: Path) -> bool:
    end = time.monotonic() + PATIENCE
    while family(directory) and time.monotonic() < end:
        time.sleep(0.01)
    return not family(directory)


def test_rows_and_port_stay_over_a_restart(server: EmbeddedPostgres) -> None:
    port = server.port
    ask(server, "CREATE TABLE kept (x int)")
    server.stop()
    assert server.pid is None
    assert family(server.directory) == []
    server.start()
    assert server.port == port
    assert ask(server, "SELECT count(*) FROM kept") == 0


def test_the_locale_is_the_same_everywhere(server: EmbeddedPostgres) -> None:
    assert (
        ask(
            server,
            "SELECT lower('É') || (SELECT string_agg(x, '' ORDER BY x) FROM unnest('{b,a,B}'::text[]) x)",
        )
        == "éBab"
    )
    assert ask(server, "SHOW server_encoding") == "UTF8"


def test_it_listens_on_loopback_only_and_wants_a_password(server: EmbeddedPostgres) -> None:
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == ""
    wrong = server.dsn("postgres", "postgres", "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(server, dsn=wrong)
    secret = server.directory / "password"
    assert secret.stat().st_mode & 0o777 == 0o600
    words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family(server.directory)]
    assert words
    assert not any(secret.read_bytes() in word for word in words)
    assert sorted(path.name for path in server.directory.iterdir()) == ["data", "log", "password", "port"]


def test_dsns_are_quoted(server: EmbeddedPostgres) -> None:
    assert (
        server.dsn("a/b", "u@x", "p:w/@") == f"postgresql://u%40x:p%3Aw%2F%40@127.0.0.1:{server.port}/a%2Fb"
    )
    assert server.dsn("d", "u") == f"postgresql://u@127.0.0.1:{server.port}/d"


@needs_root
def test_root_hands_it_to_nobody(server: EmbeddedPostgres) -> None:
    for pid in family(server.directory):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert "Groups:\t \n" in status
    assert server.data.stat().st_uid == 65534


@needs_root
def test_only_a_closed_directory_costs_a_capability(tmp_path: Path) -> None:
    open_directory = Path(f"/tmp/mailmaps-open-{os.getpid()}")
    for directory in (tmp_path / "closed", open_directory):
        try:
            with EmbeddedPostgres(directory, fsync=False) as server:
                status = Path(f"/proc/{server.pid}/status").read_text()
                closed = directory is not open_directory or not launcher._open_to_all(
                    launcher.programs() / "postgres"
                )
                effective = int(status.split("CapEff:")[1].split()[0], 16)
                assert effective.bit_count() == closed
        finally:
            shutil.rmtree(directory)


@needs_root
def test_programs_below_a_closed_directory(tmp_path: Path) -> None:
    """`$(mktemp -d)/m/.venv` of root: wheel and data are both closed to nobody."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    wheel = launcher.programs().parents[1]
    for name in (wheel.name, f"{wheel.name}.libs"):
        if (wheel.parent / name).exists():
            shutil.copytree(wheel.parent / name, closed / name, symlinks=True)
    code = CHILD.replace("time.sleep(600)", "print(server.port); server.stop()")
    done = subprocess.run(
        [sys.executable, "-c", code, str(closed / "pg")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(closed), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2
    assert family(closed / "pg") == []


@needs_root
def test_an_ordinary_user_starts_his_own_and_not_roots(tmp_path: Path, server: EmbeddedPostgres) -> None:
    server.stop()
    home = Path(f"/tmp/mailmaps-user-{os.getpid()}")
    home.mkdir()
    shutil.copytree(server.directory, home / "roots", symlinks=True)
    os.chown(home, 65534, 65534)
    python_is_open = launcher._open_to_all(Path(sys.executable)) and launcher._open_to_all(Path(__file__))
    passing = [] if python_is_open else launcher._pass_through()
    words = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", *passing, sys.executable, "-c", CHILD]
    own = CHILD.replace("time.sleep(600)", "server.stop(); server.start(); server.stop()")
    try:
        refused = subprocess.run([*words, str(home / "roots")], capture_output=True, text=True, check=False)
        assert "it was made by another user" in refused.stderr
        words = [word.replace("=1", "=65534") if word.startswith("--re") else word for word in words[:-1]]
        done = subprocess.run([*words, own, str(home / "own")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(home)


def test_kill_minus_nine_of_us_leaves_nothing_and_the_next_start_works(tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    words = [sys.executable, "-c", CHILD, str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        running = family(directory)
        child.kill()
    assert pid in running
    # No waiting here: a server that is just ending is waited for.
    with EmbeddedPostgres(directory, fsync=False) as again:
        assert ask(again) == 1
    assert eventually_gone(directory)


def test_ctrl_c_reaches_only_us(tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    words = [sys.executable, "-c", CHILD, str(directory)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        sessions = (os.getsid(pid), os.getsid(child.pid))
        os.killpg(child.pid, signal.SIGINT)
    assert sessions[0] == pid != sessions[1]
    assert eventually_gone(directory)


def test_a_stale_pid_file_is_no_obstacle(server: EmbeddedPostgres) -> None:
    server.kill()
    assert family(server.directory) == []
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # Another living process of the same user has got the number: PostgreSQL itself would refuse.
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if ROOT else []
    with subprocess.Popen([*words, "sleep", "600"]) as other:
        try:
            pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            server.start()
        finally:
            other.kill()
    assert ask(server) == 1


def test_a_second_server_on_the_same_data_is_refused(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PostgresError, match=f"already runs here, process {server.pid}"):
        server.start()
    monkeypatch.setattr("mailmaps.demo.postgres.STOP_TIMEOUT", 0.05)
    with pytest.raises(PostgresError, match=f"already runs on .*, process {server.pid}"):
        EmbeddedPostgres(server.directory).start()
    assert ask(server) == 1


def test_killed_it_comes_back_with_its_rows(server: EmbeddedPostgres) -> None:
    ask(server, "CREATE TABLE kept (x int)")
    for _ in range(3):
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            ask(server)
        server.start()
    assert ask(server, "SELECT count(*) FROM kept") == 0


async def test_paused_it_hangs_and_resumed_it_goes_on(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    server.pause()
    question = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    assert await asyncio.wait({question}, timeout=0.2) == (set(), {question})
    with socket.create_connection(("127.0.0.1", server.port)):
        pass  # the kernel still takes connections, nobody answers them
    server.resume()
    assert await asyncio.wait_for(question, PATIENCE) == 1
    await connection.close()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_paused_it_can_be_ended(server: EmbeddedPostgres, way: str) -> None:
    server.pause()
    getattr(server, way)()
    assert family(server.directory) == []


def test_a_server_that_does_not_heed_is_ended_all_the_same(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmaps.demo.postgres.STOP_TIMEOUT", 0.1)
    monkeypatch.setattr("mailmaps.demo.postgres.QUIT_TIMEOUT", 0.1)
    monkeypatch.setattr(server, "resume", lambda: None)
    server.pause()
    server.stop()
    assert family(server.directory) == []


def test_a_port_in_use_is_named(tmp_path: Path, server: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(tmp_path / "second", port=server.port, fsync=False)
    with pytest.raises(PostgresError, match=f"port {server.port} on 127.0.0.1 is in use"):
        second.start()
    assert second.pid is None
    assert family(second.directory) == []


def test_a_free_port_that_is_taken_meanwhile_is_replaced(
    tmp_path: Path, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([server.port, server.port, server.port + 1, server.port + 2, server.port + 3])
    monkeypatch.setattr("mailmaps.demo.postgres._free_port", lambda: next(ports))
    with EmbeddedPostgres(tmp_path / "second", fsync=False) as second:
        assert second.port > server.port
        assert ask(second) == 1


def test_data_of_another_major_version(server: EmbeddedPostgres) -> None:
    server.stop()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresError, match="was made by PostgreSQL 9, this is"):
        server.start()


def test_a_directory_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(PostgresError, match="is not a data directory"):
        EmbeddedPostgres(tmp_path).start()


def test_a_lost_password_is_named(server: EmbeddedPostgres) -> None:
    server.stop()
    (server.directory / "password").unlink()
    with pytest.raises(PostgresError, match="password is missing"):
        server.start()


def test_an_interrupted_first_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path, fsync=False) as server:
        assert ask(server) == 1


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    server.stop()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("nonsense = 1\n")
    with pytest.raises(PostgresError, match=r'(?s)did not start; .*log ends:.*"nonsense"'):
        server.start()
    assert server.pid is None


def test_without_the_wheel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PostgresError, match=r"pip install 'mailmaps\[demo\]'"):
        EmbeddedPostgres(tmp_path / "pg").start()
