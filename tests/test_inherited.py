"""sd_listen_fds(3): sockets are matched by address, and what does not fit is an error that names it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mailmaps import inherited
from mailmaps.inherited import Inherited, inherit, take
from mailmaps.listeners import InetPlace, ListenError, UnixAccess, UnixPlace


def listening(host: str, family: socket.AddressFamily = socket.AF_INET, *, v6only: bool = True) -> Inherited:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((host, 0))
    sock.listen()
    return Inherited(sock, "test")


def port_of(found: Inherited) -> int:
    port: int = found.sock.getsockname()[1]
    return port


def unix(path: Path, mode: int = 0o660) -> Inherited:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen()
    return Inherited(sock, "test")


def close(*all_of: Inherited) -> None:
    for found in all_of:
        found.sock.close()


def test_each_socket_goes_to_the_endpoint_with_its_address(tmp_path: Path) -> None:
    one, two, six = listening("127.0.0.1"), listening("127.0.0.1"), listening("::1", socket.AF_INET6)
    path = unix(tmp_path / "s")
    left = [one, path, two, six]
    assert take(InetPlace("127.0.0.1", port_of(two)), left) is two.sock
    assert take(UnixPlace(tmp_path / "s", UnixAccess()), left) is path.sock
    assert take(InetPlace("0:0:0:0:0:0:0:1", port_of(six)), left) is six.sock
    assert take(InetPlace("127.0.0.2", port_of(one)), left) is None
    assert take(UnixPlace(tmp_path / "t", UnixAccess()), left) is None
    assert left == [one]
    close(one, two, six, path)


def test_a_path_is_the_same_by_another_way(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    found = unix(tmp_path / "run" / "s")
    assert take(UnixPlace(tmp_path / "var" / "s", UnixAccess()), [found]) is found.sock
    close(found)


@pytest.mark.parametrize(
    ("host", "family", "wanted"),
    [
        ("0.0.0.0", socket.AF_INET, "127.0.0.1"),  # noqa: S104
        ("127.0.0.1", socket.AF_INET, "0.0.0.0"),  # noqa: S104
        ("::", socket.AF_INET6, "::1"),
        ("::", socket.AF_INET6, "127.0.0.1"),
    ],
)
def test_a_wildcard_is_no_other_address(host: str, family: socket.AddressFamily, wanted: str) -> None:
    found = listening(host, family, v6only=False)
    with pytest.raises(ListenError, match="name the same address in both"):
        take(InetPlace(wanted, port_of(found)), [found])
    assert take(InetPlace(host, port_of(found)), [found]) is found.sock
    close(found)


def test_an_ipv6_wildcard_alone_is_not_in_the_way_of_ipv4() -> None:
    found = listening("::", socket.AF_INET6)
    assert take(InetPlace("127.0.0.1", port_of(found)), [found]) is None
    close(found)


def test_a_socket_for_everybody_is_refused_where_the_settings_name_some(tmp_path: Path) -> None:
    found = unix(tmp_path / "s", 0o666)
    with pytest.raises(ListenError, match=r"SocketMode=0666\), the settings do not \(mode 0660\)"):
        take(UnixPlace(tmp_path / "s", UnixAccess(0o660)), [found])
    assert take(UnixPlace(tmp_path / "s", UnixAccess(0o666)), [found]) is found.sock
    close(found)


def test_a_path_that_is_gone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = unix(tmp_path / "s")
    (tmp_path / "s").unlink()
    assert take(UnixPlace(tmp_path / "s", UnixAccess()), [found]) is found.sock
    assert "nobody can connect" in caplog.text
    close(found)


def test_the_environment_is_emptied_and_an_other_process_is_not_meant() -> None:
    for pid in (str(os.getpid() + 1), ""):
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": pid, "LISTEN_FDNAMES": "x", "HOME": "/"}
        assert inherit(environ) == []
        assert environ == {"HOME": "/"}


def test_nonsense_is_named() -> None:
    with pytest.raises(ListenError, match="LISTEN_FDS is not a number: 'many'"):
        inherit({"LISTEN_FDS": "many", "LISTEN_PID": str(os.getpid())})


def test_a_descriptor_that_is_no_socket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(inherited, "FIRST", reading)
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "pipe"}
    with pytest.raises(ListenError, match=r"FileDescriptorName=pipe.*not a socket"):
        inherit(environ)
    os.close(reading)
    os.close(writing)


def test_what_is_inherited_does_not_block_and_is_not_inherited_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        descriptor = os.dup(sock.fileno())
        os.set_inheritable(descriptor, True)
        monkeypatch.setattr(inherited, "FIRST", descriptor)
        (found,) = inherit({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
        assert not os.get_inheritable(descriptor)
        assert not found.sock.getblocking()
        assert str(found) == f"127.0.0.1:{sock.getsockname()[1]} (FileDescriptorName=unknown)"
        close(found)
