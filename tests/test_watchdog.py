"""The watchdog: fed by answers, whatever they say, and by nothing else. Real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mailmaps.endpoints import Endpoint, Speaks
from mailmaps.listeners import Acceptor, InetPlace, Place, Room, UnixAccess, UnixPlace, bind_unix
from mailmaps.service_manager import ServiceManager
from mailmaps.watchdog import Watchdog, ways

LIMIT = 0.3  # seconds
PATIENCE = 20.0


class Systemd(ServiceManager):
    """Counts what it is fed."""

    fed = 0

    def alive(self) -> None:
        self.fed += 1


class Says(asyncio.Protocol):
    """Answers everything alike; an empty answer is none."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.answer:
            self.transport.write(self.answer)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


def endpoint(place: Place, speaks: Speaks = "tcp_table") -> Endpoint:
    return Endpoint("tables.x.tcp", place, speaks, asyncio.Protocol)


def place_of(sock: socket.socket) -> InetPlace:
    return InetPlace(*sock.getsockname())


@asynccontextmanager
async def watching(room: Room, *endpoints: Endpoint) -> AsyncIterator[Systemd]:
    manager = Systemd()
    task = asyncio.ensure_future(Watchdog(manager, ways(endpoints, "x"), room, LIMIT).run())
    try:
        yield manager
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await room.close()
        await asyncio.sleep(0.01)


async def is_fed(manager: Systemd, more: int = 3) -> bool:
    """Whether it is so many times more, before long."""
    enough = manager.fed + more
    for _ in range(int(PATIENCE / LIMIT)):
        if manager.fed >= enough:
            return True
        await asyncio.sleep(LIMIT)
    return False


async def is_not_fed(manager: Systemd) -> bool:
    """Whether it is not in the time in which it would be killed."""
    before = manager.fed
    await asyncio.sleep(2 * LIMIT)
    return manager.fed <= before + 1  # one that was under way


async def test_any_answer_is_food_and_none_is_not(
    sock: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    room = Room(loop)
    answers = [b"400 cannot say\n"]
    Acceptor(sock, lambda: Says(answers[-1]), room, loop)
    async with watching(room, endpoint(place_of(sock))) as manager:
        assert await is_fed(manager)
        assert "is not told that we live" not in caplog.text
        answers.append(b"")
        assert await is_not_fed(manager)
        assert "is not told that we live" in caplog.text
        answers.append(b"500 not found\n")
        assert await is_fed(manager)


async def test_nobody_who_accepts_is_no_answer(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    room = Room(loop)
    acceptor = Acceptor(sock, lambda: Says(b"500 not found\n"), room, loop)
    async with watching(room, endpoint(place_of(sock))) as manager:
        assert await is_fed(manager)
        acceptor.pause()
        assert await is_not_fed(manager)
        acceptor.resume()
        assert await is_fed(manager)


async def test_at_the_descriptor_limit_the_connection_is_asked_that_was_there(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    room = Room(loop)
    says = Says(b"500 not found\n")
    Acceptor(sock, lambda: says, room, loop)
    async with watching(room, endpoint(place_of(sock))) as manager:
        assert await is_fed(manager)
        room.full(OSError(errno.EMFILE, "Too many open files"))
        heard = len(says.heard)
        assert await is_fed(manager, 2)
        assert len(says.heard) > heard
        says.answer = b""
        room.full(OSError(errno.EMFILE, "Too many open files"))
        assert await is_not_fed(manager)


async def test_an_endpoint_that_only_others_may_use_is_passed_over(
    sock: socket.socket, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    room = Room(loop)
    path = tmp_path / "s"
    unix = bind_unix(path, UnixAccess())
    Acceptor(unix, lambda: Says(b"x"), room, loop)
    nowhere = UnixPlace(tmp_path / "none", UnixAccess())
    async with watching(
        room, endpoint(nowhere, "control"), endpoint(UnixPlace(path, UnixAccess()), "http")
    ) as fed:
        assert await is_fed(fed)


async def test_where_none_can_be_used_our_timers_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(asyncio.get_running_loop())
    async with watching(room, endpoint(UnixPlace(tmp_path / "none", UnixAccess()), "login")) as manager:
        assert await is_fed(manager)
    assert "we may connect to none of our endpoints" in caplog.text


def test_lookups_come_first_and_wildcards_are_asked_on_loopback() -> None:
    found = ways(
        [
            endpoint(UnixPlace(Path("/s"), UnixAccess()), "socketmap"),
            endpoint(InetPlace("::", 1), "policy"),
            endpoint(InetPlace("0.0.0.0", 2), "tcp_table"),  # noqa: S104
        ],
        "x",
    )
    assert [way.address for way in found] == [("127.0.0.1", 2), ("::1", 1), "/s"]
    assert found[2].question == b"3:x \0,"
