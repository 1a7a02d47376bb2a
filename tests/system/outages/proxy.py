"""A TCP proxy in front of a server, to lose a connection in the ways a network loses one.

Contract: `async with Proxy(port) as proxy` listens on `proxy.port` of 127.0.0.1 and passes bytes both ways.

    freeze()   open connections stay open and pass nothing any more, as when a firewall forgot them
    swallow()  that, and new ones are taken and pass nothing either, as at a host that hangs
    cut()      open connections are reset, new ones are refused
    mend()     new connections pass again; frozen ones stay frozen for ever
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Self

from tests.system.ports import steady_ports

CHUNK = 65536


class _Link:
    """One connection through the proxy: two streams, and whether bytes still pass."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.frozen = asyncio.Event()

    def reset(self) -> None:
        """Close both ends with RST, as a host that restarted does."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """The proxy to `target`, a port of 127.0.0.1; `port` stays the same over `cut` and `mend`."""

    def __init__(self, target: int) -> None:
        self.target = target
        (self.port,) = steady_ports(1)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._swallows = False

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many pass bytes now."""
        return sum(not link.frozen.is_set() for link in self._links)

    def freeze(self) -> None:
        for link in self._links:
            link.frozen.set()

    def swallow(self) -> None:
        self._swallows = True
        self.freeze()

    async def cut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for link in tuple(self._links):
            link.reset()
        if server is not None:
            await server.wait_closed()

    async def mend(self) -> None:
        self._swallows = False
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(writer)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass_on(link, reader, writer)
        finally:
            self._tasks.discard(task)
            self._links.discard(link)
            link.reset()

    async def _pass_on(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._swallows:
            link.frozen.set()
            await asyncio.Event().wait()
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        link.writers.append(back)
        ways = [asyncio.ensure_future(_pump(link, *way)) for way in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pump(link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        if link.frozen.is_set():
            await asyncio.Event().wait()
        writer.write(data)
        await writer.drain()
