"""sd_notify(3): what is told, to which kinds of sockets, and that nobody is no trouble."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from mailmaps.service_manager import EXTEND_BY, LONGEST_STATUS, ServiceManager, from_environment


def told(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


@pytest.mark.parametrize("abstract", [False, True])
def test_the_states_are_told(tmp_path: Path, abstract: bool) -> None:
    address = f"@mailmaps-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if abstract else address)
        with closing(ServiceManager(address)) as manager:
            manager.ready("two\nlines\x1b")
            assert told(sock) == ["READY=1", "STATUS=two lines\x1b"]
            manager.reloading()
            lines = told(sock)
            assert lines[0] == "RELOADING=1"
            assert lines[1].removeprefix("MONOTONIC_USEC=").isdecimal()
            manager.stopping()
            assert told(sock)[0] == "STOPPING=1"
            manager.alive()
            assert told(sock) == ["WATCHDOG=1"]
            manager.status("é" * 1000)
            (line,) = told(sock)
            assert line == "STATUS=" + "é" * (LONGEST_STATUS // 2)


def test_it_tells_without_another_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit there is none, and a daemon that is full must not be killed for it."""

    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        with closing(ServiceManager(str(tmp_path / "notify"))) as manager:
            monkeypatch.setattr(socket, "socket", none_left)
            manager.alive()
            assert told(sock) == ["WATCHDOG=1"]
            monkeypatch.undo()


def test_nobody_is_told_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager().ready("ready")
    assert not caplog.text


def test_who_is_gone_is_logged_and_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(ServiceManager(str(tmp_path / "none"))) as manager:
        manager.ready("ready")
    assert "systemd cannot be told" in caplog.text


@pytest.mark.parametrize(
    ("environ", "watchdog"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_environment_is_read_and_emptied(environ: dict[str, str], watchdog: float | None) -> None:
    environ = {**environ, "NOTIFY_SOCKET": "/run/x", "HOME": "/"}
    with closing(from_environment(environ)) as manager:
        assert (manager.listens, manager.watchdog) == (True, watchdog)
    assert environ == {"HOME": "/"}


def test_an_address_that_is_none_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert not from_environment({"NOTIFY_SOCKET": "vsock:2:1"}).listens
    assert "neither a path nor an abstract name" in caplog.text


async def test_a_long_start_asks_for_more_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        with closing(ServiceManager(str(tmp_path / "notify"))) as manager:
            task = asyncio.ensure_future(manager.extend_start())
            await asyncio.sleep(0)
            assert told(sock)[0] == f"EXTEND_TIMEOUT_USEC={EXTEND_BY * 1e6:.0f}"
            task.cancel()
    await ServiceManager().extend_start()  # ends at once where nobody listens
