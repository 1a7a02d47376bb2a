"""Where the mail of all Postfixes ends: one LMTP server a transport, told apart by their ports.

Contract: it announces DSN (RFC 3461), so Postfix says with each recipient which original recipient it comes
from, and one message can carry many. Who sent what for whom is in `deliveries`:

    X-Probe: A-17 / RCPT TO:<bob@x> ORCPT=rfc822;3   ->  deliveries["A-17"] has ("3", "virtual:bob@x")

Every recipient is taken, in whatever spelling Postfix uses.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

PROBE = "X-Probe"

BACKLOG = 1000

CAPABILITIES = b"".join(
    b"250-%b\r\n" % name for name in (b"sink.test", b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"DSN")
)

PATH = re.compile(rb'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(.*)', re.DOTALL)
"""The path of RCPT, up to the first `>` outside a quoted local part; and its parameters."""

ORIGINAL = re.compile(rb" ORCPT=[^;]*;(\S*)", re.IGNORECASE)

_PROBE_LINE = re.compile(rb"^X-Probe: (\S+)", re.MULTILINE)


class Delivery(NamedTuple):
    """One recipient of one message: the original one (ORCPT), and "SINK:ADDRESS" as it arrived."""

    original: str
    recipient: str


class Sinks:
    """One server for each name: `async with Sinks(names) as sinks`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.ports: dict[str, int] = {}
        self.deliveries: defaultdict[str, list[Delivery]] = defaultdict(list)
        self._servers: list[asyncio.Server] = []
        self._transports: set[asyncio.BaseTransport] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for name in self.names:
            server = await loop.create_server(self._factory(name), "127.0.0.1", 0, backlog=BACKLOG)
            self._servers.append(server)
            self.ports[name] = int(server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for transport in tuple(self._transports):
            transport.close()
        for server in self._servers:
            await server.wait_closed()

    def _factory(self, name: str) -> Callable[[], _Session]:
        return lambda: _Session(name, self.deliveries, self._transports)


class _Session(asyncio.Protocol):
    """The dialog with one client."""

    def __init__(
        self, name: str, deliveries: defaultdict[str, list[Delivery]], transports: set[asyncio.BaseTransport]
    ) -> None:
        self._name = name
        self._deliveries = deliveries
        self._transports = transports
        self._buffer = b""
        self._recipients: list[Delivery] = []
        self._in_message = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        self._transports.add(transport)
        self._transport.write(b"220 sink.test LMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while (part := self._next_part()) is not None:
            replies.append(self._message(part) if self._in_message else self._command(part))
        self._transport.write(b"".join(replies))

    def _next_part(self) -> bytes | None:
        """The next command line, or the next message, when it is here in full."""
        end = b"\r\n.\r\n" if self._in_message else b"\r\n"
        part, found, rest = self._buffer.partition(end)
        if not found:
            return None
        self._buffer = rest
        return part

    def _command(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"LHLO":
                return CAPABILITIES + b"250 ENHANCEDSTATUSCODES\r\n"
            case b"RCPT":
                self._recipients.append(_delivery(self._name, line))
                return b"250 2.1.5 ok\r\n"
            case b"DATA":
                self._in_message = True
                return b"354 go on\r\n"
            case b"MAIL" | b"RSET":
                self._recipients = []
                return b"250 2.1.0 ok\r\n"
            case b"QUIT":
                return b"221 2.0.0 bye\r\n"
            case _:
                return b"250 2.0.0 ok\r\n"

    def _message(self, message: bytes) -> bytes:
        self._in_message = False
        found = _PROBE_LINE.search(message)
        self._deliveries[found[1].decode() if found else ""] += self._recipients
        return b"250 2.0.0 taken\r\n" * len(self._recipients)


def _delivery(sink: str, line: bytes) -> Delivery:
    path = PATH.search(line)
    if path is None:
        return Delivery("", f"{sink}:{line!r}")
    original = ORIGINAL.search(path[2])
    recipient = f"{sink}:{path[1].decode('utf-8', 'surrogateescape')}"
    return Delivery("" if original is None else original[1].decode("utf-8", "surrogateescape"), recipient)
