"""Listening sockets: binding, accepting, and the file descriptor limit.

Accepting is done here and not by the event loop: at the descriptor limit uvloop closes new
connections without a word and asyncio floods the log. Here accepting pauses with one log line, clients
wait in the backlog, and accepting resumes by itself.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import ipaddress
import os
import pwd
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailmaps.logs import events

log = events(__name__)

# Peers that listened with 5 lost connections when Postfix's processes came all at once; the kernel
# cuts this at net.core.somaxconn (4096 on Linux since 5.4).
BACKLOG = 1024

# How many connections one wake-up accepts before the others get their turn.
ACCEPT_AT_ONCE = 64

# Seconds until accepting is tried again after the descriptor limit was met.
PAUSE = 1.0

# Descriptors that must be free before accepting resumes: the database needs some to come back.
RESERVE = 16

# Seconds in which pauses that follow each other are not logged again.
QUIET = 60.0

# What it says to us, who may write in a folder or two; EINVAL: a group that the sandbox hides.
_NOT_OURS_TO_MAKE = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EINVAL}

# What the kernel says at a limit of descriptors or memory.
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class ListenError(Exception):
    """An endpoint cannot be served; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class UnixAccess:
    """Who may connect to a unix socket: `mode` bits, names of owner and group (empty: ours)."""

    mode: int = 0o660
    owner: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class InetPlace:
    """A TCP address; `host` is numeric."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def bind(self) -> socket.socket:
        """Bind and listen there. Raises `ListenError`."""
        return bind_inet(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """The path of a unix socket, and who may connect."""

    path: Path
    access: UnixAccess

    def __str__(self) -> str:
        return str(self.path)

    def bind(self) -> socket.socket:
        """Bind and listen there. Raises `ListenError`."""
        return bind_unix(self.path, self.access)


Place = InetPlace | UnixPlace


def bind_inet(host: str, port: int) -> socket.socket:
    """Bind and listen on a TCP address. Raises `ListenError` naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        return _listen(sock)
    except OSError as error:
        sock.close()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise ListenError(f"cannot listen on {host} port {port}: {reason}") from error


def bind_unix(path: Path, access: UnixAccess) -> socket.socket:
    """Bind and listen on a unix socket, replacing one that nobody listens on any more.

    A missing folder is made (not the folders above it). Nobody can connect before mode and owner are right,
    since the socket does not listen until then.
    Raises `ListenError` naming the path.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        _remove_stale(path)
        sock.bind(str(path))
        path.chmod(access.mode)
        _give(path, _uid(access.owner), _gid(access.group))
        return _listen(sock)
    except OSError as error:
        sock.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _NOT_OURS_TO_MAKE:
            reason += " (systemd can, by a socket unit: see systemd/README.md)"
        raise ListenError(f"cannot listen on {path}: {reason}") from error
    except KeyError as error:
        sock.close()
        raise ListenError(f"cannot listen on {path}: {error.args[0]}") from error
    except ListenError:
        sock.close()
        raise


def _give(path: Path, uid: int, gid: int) -> None:
    """Have owner and group be these, -1 as they are. Asked for only if they are others: in the unit's sandbox
    every chown(2) is refused, also one that changes nothing.
    """
    found = path.stat()
    if uid not in (-1, found.st_uid) or gid not in (-1, found.st_gid):
        os.chown(path, uid, gid)


def _listen(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.listen(BACKLOG)
    return sock


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"cannot listen on {path}: there is something that is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise ListenError(f"cannot listen on {path}: another process listens there")


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid if name else -1


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid if name else -1


class Room:
    """Room for connections, shared by all acceptors of the process.

    At the descriptor limit all of them pause; they resume when `RESERVE` descriptors are free again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._acceptors: list[Acceptor] = []
        self._timer: asyncio.TimerHandle | None = None
        self._told = False
        self._quiet_until = 0.0

    def add(self, acceptor: Acceptor) -> None:
        """Let `acceptor` accept from now on."""
        self._acceptors.append(acceptor)
        acceptor.resume()

    @property
    def is_full(self) -> bool:
        """Whether accepting pauses."""
        return self._timer is not None

    def full(self, error: OSError) -> None:
        """An acceptor met the limit: pause all, look again later."""
        for acceptor in self._acceptors:
            acceptor.pause()
        now = self._loop.time()
        if now >= self._quiet_until:
            self._told, self._quiet_until = True, now + QUIET
            log.error("accepting pauses", reason=os.strerror(error.errno or 0))
        self._timer = self._loop.call_later(PAUSE, self._look_again)

    async def close(self) -> None:
        """Accept no more; those that were accepted have their protocol afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        for acceptor in self._acceptors:
            acceptor.close()
        await asyncio.gather(*(acceptor.started() for acceptor in self._acceptors))

    def _look_again(self) -> None:
        if not _descriptors_free(RESERVE):
            self._timer = self._loop.call_later(PAUSE, self._look_again)
            return
        self._timer = None
        if self._told:
            self._told = False
            log.warning("accepting resumes")
        for acceptor in self._acceptors:
            acceptor.resume()


def _descriptors_free(count: int) -> bool:
    taken: list[int] = []
    try:
        while len(taken) < count:
            taken.append(os.dup(0 if not taken else taken[0]))
    except OSError:
        return False
    else:
        return True
    finally:
        for descriptor in taken:
            os.close(descriptor)


class Acceptor:
    """Accepts the connections of one listening socket and hands each to a new protocol.

    `allow_networks` limits who may connect to a TCP socket besides this machine itself; empty means anybody
    who can reach it.
    """

    def __init__(
        self,
        sock: socket.socket,
        factory: ProtocolFactory,
        room: Room,
        loop: asyncio.AbstractEventLoop,
        allow_networks: Sequence[IPNetwork] = (),
    ) -> None:
        self._sock = sock
        self._factory = factory
        self._room = room
        self._loop = loop
        self._allow_networks = allow_networks
        self._starting: set[asyncio.Task[None]] = set()
        room.add(self)

    def resume(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def pause(self) -> None:
        """Let clients wait in the backlog."""
        self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Accept no more. A unix socket's path stays, for the next start to replace."""
        self.pause()
        self._sock.close()

    async def started(self) -> None:
        """Wait for the connections that were accepted but have no protocol yet."""
        await asyncio.gather(*self._starting)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                client, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self._room.full(error)
                return
            if self._allowed(client, address):
                self._start(client)
            else:
                log.warning("refused a connection that is not in allow_networks", client=address[0])
                client.close()

    def _allowed(self, client: socket.socket, address: object) -> bool:
        if not self._allow_networks or not isinstance(address, tuple):
            return True
        host = _ip(address[0])
        return (
            host.is_loopback
            or host == _ip(client.getsockname()[0])  # this machine, by another of its addresses
            or any(host in network for network in self._allow_networks)
        )

    def _start(self, client: socket.socket) -> None:
        client.setblocking(False)
        task = asyncio.ensure_future(self._connect(client))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, client: socket.socket) -> None:
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds half-open peers
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, client)
        except OSError as error:
            log.info("a client left before it was served", reason=error)
            client.close()


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as sockets have it; an IPv4 client of an IPv6 socket counts as what it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


class SentAway(asyncio.Protocol):
    """For sockets that are not ours to serve: who connects is closed on, instead of waiting for ever."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
