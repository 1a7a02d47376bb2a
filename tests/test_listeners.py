"""Sockets: who may connect, what stands in the way, and the file descriptor limit. Real sockets."""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest

from mailmaps import listeners
from mailmaps.listeners import Acceptor, ListenError, Room, UnixAccess, bind_inet, bind_unix


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        free: int = sock.getsockname()[1]
        return free


async def hello(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = await reader.read()
    writer.close()
    return data


def test_a_port_in_use_is_named(port: int) -> None:
    with bind_inet("127.0.0.1", port), pytest.raises(ListenError, match=f"port {port}: the port is in use"):
        bind_inet("127.0.0.1", port)


def test_a_unix_socket_has_its_mode_and_group(tmp_path: Path) -> None:
    path = tmp_path / "s"
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    with bind_unix(path, UnixAccess(0o620, group=grp.getgrgid(group).gr_name)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o620
        assert status.st_gid == group


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_unix(path, UnixAccess()).close()
    with bind_unix(path, UnixAccess()), pytest.raises(ListenError, match="another process listens there"):
        bind_unix(path, UnixAccess())


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        bind_unix(path, UnixAccess())
    assert path.read_text() == "precious"


@pytest.mark.parametrize("access", [UnixAccess(owner="no-such-user"), UnixAccess(group="no-such-group")])
def test_an_unknown_owner_is_named(tmp_path: Path, access: UnixAccess) -> None:
    with pytest.raises(ListenError, match="no-such-"):
        bind_unix(tmp_path / "s", access)


def test_a_missing_folder_is_made_and_more_than_that_is_named(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "run" / "s", UnixAccess()):
        assert (tmp_path / "run" / "s").is_socket()
    with pytest.raises(ListenError, match="none/run/s: No such file"):
        bind_unix(tmp_path / "none" / "run" / "s", UnixAccess())


class ElsewhereSocket:
    """Says that its clients come from another host; a test has only loopback."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.host = host

    def fileno(self) -> int:
        return self.sock.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        return self.sock.accept()[0], (self.host, 1)

    def close(self) -> None:
        self.sock.close()


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("192.0.2.9", True),
        ("198.51.100.9", False),
        ("2001:db8::1", False),
    ],
)
async def test_only_this_machine_and_the_allowed_networks_are_served(
    port: int, host: str, served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    sock = ElsewhereSocket(bind_inet("127.0.0.1", port), host)
    acceptor = Acceptor(sock, Echo, Room(loop), loop, [ip_network("192.0.2.0/24")])  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert await hello(port) == (b"hello" if served else b"")
    assert (f"client={host}" in caplog.text) is not served
    acceptor.close()


def own_address() -> str:
    """An address of this machine that is not loopback; empty: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        address: str = sock.getsockname()[0]
        return "" if address.startswith("127.") else address


@pytest.mark.skipif(not own_address(), reason="needs an address that is not loopback")
async def test_this_machine_is_served_by_its_other_addresses_too() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server((own_address(), 0)) as sock:
        sock.setblocking(False)
        acceptor = Acceptor(sock, Echo, Room(loop), loop, [ip_network("192.0.2.0/24")])
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        assert await reader.read() == b"hello"
        writer.close()
        acceptor.close()


class FullSocket:
    """Accepting fails as at the descriptor limit until there is room; the real limit would hit pytest."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.full = True
        self.refused = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if self.full:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.sock.accept()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def quick_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "PAUSE", 0.01)


@pytest.mark.usefixtures("quick_pause")
async def test_at_the_descriptor_limit_accepting_pauses_with_one_line_and_resumes(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    sock = FullSocket(bind_inet("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    acceptor = Acceptor(sock, Echo, Room(loop), loop)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        waiting = asyncio.ensure_future(hello(port))
        while not sock.refused:
            await asyncio.sleep(0)
        assert caplog.text.count("accepting pauses") == 1
        sock.full = False
        assert await waiting == b"hello"
    assert caplog.text.count("accepting pauses") == 1
    assert caplog.text.count("accepting resumes") == 1
    acceptor.close()


def test_a_socket_of_our_own_needs_no_chown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's SystemCallFilter refuses it, also where it would change nothing."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    group = grp.getgrgid(os.getegid()).gr_name
    for number, access in enumerate((UnixAccess(), UnixAccess(0o600, group=group))):
        bind_unix(tmp_path / f"{number}.sock", access).close()
    with pytest.raises(ListenError, match="socket unit"):
        bind_unix(tmp_path / "other.sock", UnixAccess(owner="nobody"))
