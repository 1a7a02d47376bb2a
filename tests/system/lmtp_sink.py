"""An LMTP server that takes every address and remembers what it got.

Contract: RFC 2033 over one TCP port of 127.0.0.1; one reply per accepted recipient after the data. Unlike
aiosmtpd it judges no address: `a@b@c`, a local part of 1000 bytes, quoted and UTF-8 ones are recorded in
the very spelling that Postfix sent, since that spelling is what the tests compare. `answers` makes it
refuse or defer single recipients.

    C: LHLO x                      S: 250-... 250 ok
    C: MAIL FROM:<s> / RCPT TO:<r> S: 250
    C: DATA, message, "."          S: 354, then one line for each r
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

LINE_LIMIT = 1 << 20
"""Bytes of one line. RFC 5321 has 1000, Postfix 2048 (line_length_limit); a sink need not be the limit."""

CAPABILITIES = ("sink.test", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")

ACCEPTED = "250 2.0.0 taken"

PATH = re.compile(rb'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
"""The path of MAIL and RCPT: up to the first `>` that is not inside a quoted local part."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one recipient, addresses spelt as in MAIL FROM and RCPT TO."""

    sender: str
    recipient: str
    body: bytes
    smtputf8: bool

    def header(self, name: str) -> str:
        """The value of an unfolded header line of the message, empty when it has none."""
        head = self.body.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
        found = re.search(rf"^{re.escape(name)}: *(.*?)\r?$", head, re.IGNORECASE | re.MULTILINE)
        return "" if found is None else found[1]


class LmtpSink:
    """The server; `deliveries` grows while it runs."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.answers: dict[str, str] = {}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._grown = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def nexthop(self) -> str:
        """This sink as a transport table names it."""
        return f"lmtp:inet:127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; a second start takes the same port again, as a server that was away does."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=LINE_LIMIT, backlog=1000
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def recipients(self, header: str, value: str) -> list[str]:
        """Who got the messages whose `header` is `value`, sorted, one entry for each delivery."""
        return sorted(self.by_header(header).get(value, []))

    def by_header(self, header: str) -> dict[str, list[str]]:
        """Who got which message, messages told apart by the value of `header`; an entry for each delivery."""
        found: dict[str, list[str]] = {}
        for delivery in self.deliveries:
            found.setdefault(delivery.header(header), []).append(delivery.recipient)
        return found

    async def until(self, condition: Callable[[], bool], limit: float = 30.0) -> None:
        """Wait until `condition`, which looks at the deliveries, holds; TimeoutError otherwise."""
        async with asyncio.timeout(limit):
            while not condition():
                self._grown.clear()
                await self._grown.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _Session(self, reader, writer).run()
        finally:
            self._clients.discard(task)
            writer.close()

    def take(self, delivery: Delivery) -> str:
        """Record a delivery unless `answers` says otherwise, and give the reply to it."""
        reply = self.answers.get(delivery.recipient, ACCEPTED)
        if reply.startswith("2"):
            self.deliveries.append(delivery)
            self._grown.set()
        return reply


class _Session:
    """The dialog with one client."""

    def __init__(self, sink: LmtpSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._reader = reader
        self._writer = writer
        self._reset()

    def _reset(self) -> None:
        self._sender = ""
        self._recipients: list[str] = []
        self._smtputf8 = False

    async def run(self) -> None:
        self._say("220 sink.test LMTP")
        while True:
            await self._writer.drain()
            line = (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")
            verb = line[:4].upper()
            if verb == b"QUIT":
                self._say("221 2.0.0 bye")
                await self._writer.drain()
                return
            if verb == b"DATA":
                await self._data()
            else:
                self._command(verb, line)

    def _command(self, verb: bytes, line: bytes) -> None:
        match verb:
            case b"LHLO":
                for name in CAPABILITIES[:-1]:
                    self._say(f"250-{name}")
                self._say(f"250 {CAPABILITIES[-1]}")
            case b"MAIL":
                self._sender = _path(line)
                self._smtputf8 = line.upper().endswith(b" SMTPUTF8")
                self._say("250 2.1.0 ok")
            case b"RCPT":
                self._recipients.append(_path(line))
                self._say("250 2.1.5 ok")
            case b"RSET":
                self._reset()
                self._say("250 2.0.0 ok")
            case b"NOOP":
                self._say("250 2.0.0 ok")
            case _:
                self._say("500 5.5.1 what?")

    async def _data(self) -> None:
        self._say("354 go on")
        await self._writer.drain()
        body = await self._message()
        for recipient in self._recipients:
            self._say(self._sink.take(Delivery(self._sender, recipient, body, self._smtputf8)))
        self._reset()

    async def _message(self) -> bytes:
        lines = []
        while (line := await self._reader.readuntil(b"\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self._writer.write(text.encode() + b"\r\n")


def _path(line: bytes) -> str:
    found = PATH.search(line)
    return "" if found is None else found[1].decode("utf-8", "surrogateescape")
