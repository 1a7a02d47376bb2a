"""Listening sockets that systemd holds for us and hands over, by sd_listen_fds(3): they stay when we restart.

The rule it keeps: a socket belongs to the endpoint whose address it has (getsockname(2)), whatever its name
or number; an endpoint without one is bound by ourselves. What is handed over and cannot be served rightly is
an error, never another protocol, never a wider door than the settings name. The environment variables are
taken out of the environment, and the descriptors are closed in programs that we start.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from mailmaps.listeners import InetPlace, ListenError, Place, UnixPlace
from mailmaps.logs import events

log = events(__name__)

# SD_LISTEN_FDS_START
FIRST = 3

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  # to be compared with


@dataclass(frozen=True, slots=True)
class Inherited:
    """One socket, which listens; `name` is FileDescriptorName= of its unit."""

    sock: socket.socket
    name: str

    def __str__(self) -> str:
        return f"{self.address} (FileDescriptorName={self.name})"

    def is_at(self, place: Place) -> bool:
        """Whether that is where it listens."""
        return _is_at(self.sock, place)

    @property
    def address(self) -> str:
        """Where it listens, as a socket unit would have it."""
        found = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            path = found if isinstance(found, str) else "@" + found[1:].decode(errors="replace")
            return path or "a unix socket without a name"
        return str(InetPlace(found[0], found[1]))


def inherit(environ: MutableMapping[str, str] = os.environ) -> list[Inherited]:
    """What $LISTEN_FDS, $LISTEN_PID and $LISTEN_FDNAMES hand over to this process; they are removed.

    Raises `ListenError` for what is no listening stream socket.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = [name for name in environ.pop("LISTEN_FDNAMES", "").split(":") if name]
    if not count or pid != str(os.getpid()):
        return []  # not meant for us
    if not count.isdecimal():
        raise ListenError(f"LISTEN_FDS is not a number: {count!a}")
    descriptors = range(FIRST, FIRST + int(count))
    names += ["unknown"] * (len(descriptors) - len(names))
    return [_adopt(descriptor, name) for descriptor, name in zip(descriptors, names, strict=False)]


def _adopt(descriptor: int, name: str) -> Inherited:
    what = f"descriptor {descriptor} (FileDescriptorName={name}), handed over by systemd"
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ListenError(f"{what}: not a socket; we take ListenStream= alone")
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListenError(f"{what}: {os.strerror(error.errno or 0)}") from None
    found = Inherited(sock, name)
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ListenError(f"{what}: neither TCP nor a unix socket")
    if sock.type != socket.SOCK_STREAM:
        kind = "a datagram socket" if sock.type == socket.SOCK_DGRAM else "no stream socket"
        raise ListenError(f"{what}: {found.address} is {kind}; we take ListenStream= alone")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ListenError(f"{what}: a connection, not a socket that listens; we take Accept=no alone")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return found


def take(place: Place, left: list[Inherited]) -> socket.socket | None:
    """Take the socket of an endpoint out of those that are `left`; None: there is none.

    Raises `ListenError` where another one stands in the way, or lets in whom the settings do not.
    """
    for found in left:
        if _is_at(found.sock, place):
            if isinstance(place, UnixPlace):
                _check_mode(found, place)
            left.remove(found)
            return found.sock
        if isinstance(place, InetPlace) and _is_in_the_way(found.sock, place):
            raise ListenError(
                f"cannot listen on {place}: systemd listens on {found}; name the same address in both"
            )
    return None


def _is_at(sock: socket.socket, place: Place) -> bool:
    found = sock.getsockname()
    if isinstance(place, UnixPlace):
        if sock.family != socket.AF_UNIX or not isinstance(found, str) or not found:
            return False
        return Path(found) == place.path or os.path.realpath(found) == os.path.realpath(place.path)
    if sock.family == socket.AF_UNIX:
        return False
    return bool(found[1] == place.port and InetPlace(found[0], place.port) == _plain(place))


def _plain(place: InetPlace) -> InetPlace:
    """The address as getsockname(2) spells it."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    return InetPlace(socket.inet_ntop(family, socket.inet_pton(family, place.host)), place.port)


def _is_in_the_way(sock: socket.socket, place: InetPlace) -> bool:
    """Whether it has the same port at other addresses, ours among them."""
    if sock.family == socket.AF_UNIX:
        return False
    host, port = sock.getsockname()[:2]
    if port != place.port or not (host in WILDCARDS or place.host in WILDCARDS):
        return False
    both = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return both or (sock.family == socket.AF_INET6) == (":" in place.host)


def _check_mode(found: Inherited, place: UnixPlace) -> None:
    """Everybody may connect by the socket unit's SocketMode= only if everybody may by the settings."""
    try:
        mode = stat.S_IMODE(place.path.stat().st_mode)
    except PermissionError:
        return  # a folder of theirs that we cannot enter, nor can everybody
    except OSError as error:
        log.warning("nobody can connect: restart the socket unit", place=found, reason=error.strerror)
        return
    if mode & 0o002 and not place.access.mode & 0o002:
        raise ListenError(
            f"cannot listen on {place}: its socket unit lets everybody connect (SocketMode={mode:04o}), "
            f"the settings do not (mode {place.access.mode:04o})"
        )
