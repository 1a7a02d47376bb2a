"""Random clients on real sockets: whatever comes in whatever pieces, each request has its reply, in order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from mailmaps.connection import Connection, Trust
from mailmaps.maps.answer import NOT_FOUND, Answer, Found
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.memo import Memo
from mailmaps.protocols.tcp_table import TcpTable

SEED = random.SystemRandom().randrange(1 << 32)
CLIENTS = 60
PIECES = [1, 3, 9, 40, 500, 5000, 300_000]
LIMIT = 30.0
"""Seconds for a reply; none takes one."""

LONG = "l" * 3000


class Table:
    """What the first letter of a key says: known, known to be long, asked, a fault at once, a fault later."""

    steady = True

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.counts = LookupCounts()

    def begin(self, key: bytes) -> Answer | asyncio.Future[Answer]:
        kind = key[:1]
        if kind == b"k":
            return Found(key.decode())
        if kind == b"l":
            return Found(LONG + key.decode())
        if kind == b"x":
            raise RuntimeError("at once")
        return asyncio.ensure_future(self._later(kind))

    async def _later(self, kind: bytes) -> Answer:
        await asyncio.sleep(self._rng.choice([0.0, 0.0, 0.001, 0.01]))
        if kind == b"e":
            raise RuntimeError("later")
        return NOT_FOUND


def expected(key: str) -> bytes:
    kind = key[0]
    if kind in "kl":
        return f"200 {LONG if kind == 'l' else ''}{key}\n".encode()
    return b"500 not%20found\n" if kind == "a" else b"400 internal%20error\n"


async def send(writer: asyncio.StreamWriter, data: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        piece = rng.choice(PIECES)
        writer.write(data[at : at + piece])
        at += piece
        await writer.drain()
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.003)


async def client(port: int, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    keys = [f"{rng.choice('kkkkaalxe')}{rng.randrange(50)}" for _ in range(rng.choice([1, 5, 50, 400]))]
    ends = rng.choice(["nonsense", "eof", "nothing", "nothing"])
    data = b"".join(b"get %b\n" % key.encode() for key in keys)
    sending = asyncio.ensure_future(send(writer, data + (b"nonsense\n" if ends == "nonsense" else b""), rng))
    await asyncio.sleep(rng.choice([0.0, 0.0, 0.1]))
    async with asyncio.timeout(LIMIT):
        for key in keys:
            assert await reader.readline() == expected(key)
        if ends == "nonsense":
            assert (await reader.readline()).startswith(b"400 the%20request")
        await sending
        if ends == "eof":
            writer.write_eof()
        if ends != "nothing":
            assert await reader.read() == b""
    writer.close()


async def clients() -> tuple[int, list[object]]:
    """How many connections are left, and what went wrong unseen."""
    rng = random.Random(SEED)
    left: set[Connection] = set()
    wrong: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    table, memo = Table(rng), Memo()

    def connection() -> Connection:
        made = Connection(TcpTable("t"), {"t": table}, memo, Trust(lambda: None), left.discard)
        left.add(made)
        return made

    server = await loop.create_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(CLIENTS // 12):
        await asyncio.gather(*(client(port, rng) for _ in range(12)))
    async with asyncio.timeout(LIMIT):
        while left:
            await asyncio.sleep(0.01)
    server.close()
    return len(left), wrong


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_every_request_has_its_reply(
    run: Callable[[Coroutine[Any, Any, Any]], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    assert run(clients()) == (0, []), f"seed {SEED}"
