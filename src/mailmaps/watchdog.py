"""Feeds systemd's watchdog: after each answer to a question that went the way of Postfix's questions.

The rule it keeps: any answer counts, "cannot say" included, since a database that is away is no reason to be
killed; nothing else does. The question goes through a listening socket of ours, the acceptor, a connection
and its codec, and is one that is answered without the database: a key with a NUL, which no row can have.

At the descriptor limit nobody is accepted and all who are connected are served: to be killed would make it
worse. So one connection is kept from the beginning, which is asked then.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from mailmaps.endpoints import Endpoint
from mailmaps.listeners import NO_ROOM, InetPlace, Room
from mailmaps.logs import events
from mailmaps.protocols.netstring import netstring
from mailmaps.service_manager import ServiceManager

log = events(__name__)

# Questions within the time in which systemd wants to hear of us: one may fail, and be asked again.
QUESTIONS = 3

# Bytes of an answer; more than enough to see that there is one.
ANSWER = 4096

# What is asked. A client that says nothing and hangs up is answered by hanging up: that is all there is to
# ask of a door where each question is one for the database.
_QUESTIONS: dict[str, bytes] = {
    "tcp_table": b"get %00\n",
    "policy": b"request=smtpd_access_policy\nprotocol_state=CONNECT\n\n",
    "control": b'{"command": "alive"}\n',
    "http": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}
_ORDER = ("tcp_table", "socketmap", "policy", "control", "http", "dovecot-auth", "login", "saslauthd")


@dataclass(frozen=True, slots=True)
class Way:
    """How an endpoint is asked: `address` for connect(2); without a `question` it is hung up on."""

    endpoint: Endpoint
    family: socket.AddressFamily
    address: tuple[str, int] | str
    question: bytes

    @property
    def keeps(self) -> bool:
        """Whether one connection takes many questions."""
        return bool(self.question) and self.endpoint.speaks != "http"

    async def connect(self) -> socket.socket:
        """Raises `OSError`."""
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def ask(self, sock: socket.socket) -> None:
        """Ask and wait for an answer. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        if self.question:
            await loop.sock_sendall(sock, self.question)
        else:
            sock.shutdown(socket.SHUT_WR)
        while data := await loop.sock_recv(sock, ANSWER):
            if self.question and len(data) < ANSWER:
                return
        if self.question:
            raise ConnectionResetError("closed without an answer")


def ways(endpoints: Iterable[Endpoint], table: str) -> list[Way]:
    """All endpoints that can be asked, the best first; `table` is any that socketmap knows."""
    found = [
        Way(endpoint, *_address(endpoint), _question(endpoint, table))
        for endpoint in endpoints
        if endpoint.speaks in _ORDER
    ]
    return sorted(found, key=lambda way: (isinstance(way.address, str), _ORDER.index(way.endpoint.speaks)))


def _question(endpoint: Endpoint, table: str) -> bytes:
    if endpoint.speaks == "socketmap":
        return netstring(table.encode() + b" \0")
    return _QUESTIONS.get(endpoint.speaks, b"")


def _address(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    place = endpoint.place
    if not isinstance(place, InetPlace):
        return socket.AF_UNIX, str(place)
    if ":" in place.host:
        return socket.AF_INET6, ("::1" if place.host == "::" else place.host, place.port)
    any_host = "0.0.0.0"  # noqa: S104  # to be compared with
    return socket.AF_INET, ("127.0.0.1" if place.host == any_host else place.host, place.port)


class Watchdog:
    """Asks and tells, again and again. Of `ways` the first that can be gone is taken."""

    def __init__(self, manager: ServiceManager, ways: list[Way], room: Room, limit: float) -> None:
        """`limit` is the time in seconds within which systemd wants to be told."""
        self._manager = manager
        self._ways = ways
        self._room = room
        self._limit = limit / QUESTIONS
        self._kept: socket.socket | None = None

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            way = await self._choose()
            while True:
                next_time = loop.time() + self._limit
                if trouble := "" if way is None else await self._trouble(way):
                    log.error("watchdog: systemd is not told that we live", reason=trouble)
                else:
                    self._manager.alive()
                await asyncio.sleep(next_time - loop.time())
        finally:
            self._keep(None)

    async def _choose(self) -> Way | None:
        """The first way that leads to an answer; None: there is none, as where only others may connect."""
        for way in self._ways:
            try:
                async with asyncio.timeout(self._limit):
                    await self._ask_anew(way)
            except OSError as error:
                log.info("watchdog: cannot be asked", place=way.endpoint.place, reason=error or "no answer")
            else:
                log.info(
                    "systemd's watchdog is fed", endpoint=way.endpoint.setting, every=round(self._limit, 1)
                )
                return way
        log.warning("watchdog: we may connect to none of our endpoints")
        return None

    async def _trouble(self, way: Way) -> str:
        """Ask; why there was no answer, empty if there was."""
        if not self._room.is_full:
            try:
                async with asyncio.timeout(self._limit):
                    await self._ask_anew(way)
            except OSError as error:  # TimeoutError is one
                if not self._room.is_full and error.errno not in NO_ROOM:
                    return f"{way.endpoint.place}: {error or f'no answer in {self._limit:g} s'}"
            else:
                return ""
        return await self._trouble_of_kept(way)

    async def _trouble_of_kept(self, way: Way) -> str:
        """The same at the descriptor limit, over the connection that was made before."""
        if self._kept is None:
            return ""  # of a door that is hung up on: our timers run
        try:
            async with asyncio.timeout(self._limit):
                await way.ask(self._kept)
        except OSError as error:
            return f"{way.endpoint.place}, connected: {error or f'no answer in {self._limit:g} s'}"
        return ""

    async def _ask_anew(self, way: Way) -> None:
        """Over a new connection, which is kept in place of the one before if it can be asked again."""
        sock = await way.connect()
        try:
            await way.ask(sock)
        except BaseException:
            sock.close()
            raise
        if way.keeps:
            self._keep(sock)
        else:
            sock.close()

    def _keep(self, sock: socket.socket | None) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = sock
