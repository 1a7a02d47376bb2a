"""HTTP on a real socket: any splitting, several requests at once, what is refused, and who is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from mailmaps import http_connection
from mailmaps.http_connection import LONGEST_REQUEST, HttpConnection, Page, Pages

LIMIT = 30.0

GET = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING = b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def pages(path: str, accept: str) -> Page | None:
    if path == "/fault":
        raise RuntimeError
    if path == "/slow":
        await asyncio.sleep(0.05)
    return None if path == "/none" else Page(f"{path} {accept}\n".encode())


Made = list[HttpConnection]


@asynccontextmanager
async def serving(
    made: Made | None = None, gone: Made | None = None, using: Pages = pages
) -> AsyncIterator[int]:
    gone = [] if gone is None else gone
    connections: Made = [] if made is None else made

    def connection() -> HttpConnection:
        connections.append(HttpConnection(using, gone.append))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    async with asyncio.timeout(LIMIT):
        while len(gone) < len(connections):
            await asyncio.sleep(0.01)


async def said(port: int, *pieces: bytes, eof: bool = False) -> bytes:
    """All that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        if len(pieces) > 1:
            await asyncio.sleep(0.001)
    if eof:
        writer.write_eof()
    async with asyncio.timeout(LIMIT):
        text = await reader.read()
    writer.close()
    return text


async def test_a_page_byte_by_byte() -> None:
    async with serving() as port:
        whole = await said(port, CLOSING)
        assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
        assert whole.endswith(b"\r\n\r\n/page \n")
        pieces = [CLOSING[at : at + 1] for at in range(len(CLOSING))]
        assert (await said(port, *pieces)).endswith(b"\r\n\r\n/page \n")


async def test_several_requests_in_one_segment_are_answered_in_order() -> None:
    slow = b"GET /slow?x=1 HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\n\r\n"
    async with serving() as port:
        text = await said(port, slow + GET + CLOSING)
        assert text.count(b"HTTP/1.1 200 OK") == 3
        assert text.index(b"/slow a/b\n") < text.index(b"/page \n")


async def test_http_1_0_and_who_closes_his_half() -> None:
    async with serving() as port:
        assert (await said(port, b"GET /page HTTP/1.0\r\n\r\n")).endswith(b"/page \n")
        assert (await said(port, GET, eof=True)).endswith(b"/page \n")
        assert await said(port, eof=True) == b""


async def test_head_has_no_body() -> None:
    async with serving() as port:
        text = await said(port, b"HEAD /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"Content-Length: 7\r\n" in text.replace(b"content-length", b"Content-Length")
        assert text.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc", b"405"),
        (b"DELETE /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"get virtual_alias_maps\n\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /page HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET /" + b"x" * LONGEST_REQUEST, b"431"),
    ],
)
async def test_what_is_refused(request_: bytes, status: bytes) -> None:
    async with serving() as port:
        text = await said(port, request_)
        assert text.startswith(b"HTTP/1.1 " + status + b" ")
        assert text.count(b"HTTP/1.1") == 1
        assert (await said(port, CLOSING)).startswith(b"HTTP/1.1 200")


async def test_a_fault_of_ours_closes_that_client_only(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        text = await said(port, b"GET /fault HTTP/1.1\r\nHost: x\r\n\r\n")
        assert text.startswith(b"HTTP/1.1 500 ")
        assert "RuntimeError" in caplog.text
        assert (await said(port, CLOSING)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b"", b"GET /pa", GET + b"G"])
async def test_whoever_says_nothing_more_is_closed(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are for Postfix."""
    monkeypatch.setattr(http_connection, "IDLE", 0.05)
    async with serving() as port:
        try:
            text = await said(port, begun)
        except ConnectionError:
            text = b""
        assert text.count(b"HTTP/1.1 200") <= begun.count(b"\r\n\r\n")


async def test_a_client_that_does_not_read_is_not_answered_on_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that pipelines could else fill our memory; it is closed like one that says nothing."""
    answered = 0

    async def large(path: str, accept: str) -> Page:
        nonlocal answered
        answered += 1
        return Page(b"x" * 1_000_000)

    monkeypatch.setattr(http_connection, "IDLE", 0.5)
    gone: Made = []
    async with serving(gone=gone, using=large) as port:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        sent = 0
        async with asyncio.timeout(LIMIT):
            while not gone:
                with suppress(BlockingIOError, ConnectionError):
                    sent += sock.send(GET * 1000)
                await asyncio.sleep(0.005)
        sock.close()
    assert answered < 30
    assert sent < 30_000_000


async def test_a_stop_waits_for_the_page_that_was_asked_for() -> None:
    made: Made = []
    async with serving(made) as port:
        asked = asyncio.ensure_future(said(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
        idle = asyncio.ensure_future(said(port))
        while len(made) < 2:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        for connection in made:
            connection.drain()
        assert (await asked).endswith(b"/slow \n")
        assert b"connection: close" in (await asked).lower()
        assert await idle == b""
