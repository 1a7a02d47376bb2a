"""An SMTP server for the tests of the mailer: takes mail, or does what servers do instead.

Contract: RFC 5321 over one port of 127.0.0.1, one command a line, every command remembered as it came.
`replies` has the replies to come for a verb ("GREETING", "EHLO", "RCPT", "." for the end of the data...), the
last of them for ever; HANG answers nothing, CLOSE hangs up. `tls` offers STARTTLS, or with `implicit` speaks
TLS from the first byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Self

HANG, CLOSE = "hang", "close"

DEFAULTS = {"GREETING": "220 test", "DATA": "354 go on", "QUIT": "221 bye"}


class SmtpServer:
    """`async with SmtpServer() as server`; `commands`, messages `offered`, and `mails` (those taken) grow."""

    def __init__(self, tls: ssl.SSLContext | None = None, implicit: bool = False, port: int = 0) -> None:
        self.replies: dict[str, list[str]] = {}
        self.commands: list[str] = []
        self.offered: list[bytes] = []
        self.mails: list[bytes] = []
        self.encrypted: list[bool] = []
        self.port = port
        self._tls = tls
        self._implicit = implicit
        self._clients: set[asyncio.Task[None]] = set()
        self._grown = asyncio.Event()

    async def __aenter__(self) -> Self:
        tls = self._tls if self._implicit else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def got(self, mails: int) -> None:
        """Wait until so many mails are here; `TimeoutError` after a minute."""
        async with asyncio.timeout(60):
            while len(self.mails) < mails:
                self._grown.clear()
                await self._grown.wait()

    async def heard(self, verb: str, times: int = 1) -> None:
        """Wait until a command came so often; `TimeoutError` after a minute."""
        async with asyncio.timeout(60):
            while sum(command.startswith(verb) for command in self.commands) < times:
                self._grown.clear()
                await self._grown.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._heard("GREETING")
        if not await self._say(self._next("GREETING"), writer):
            return
        while True:
            line = (await reader.readuntil(b"\r\n")).decode().rstrip("\r\n")
            verb = line[:4].upper() if line[:4].upper() != "STAR" else "STARTTLS"
            self._heard(line)
            reply = self._next(verb)
            if not await self._say(reply, writer):
                return
            if verb == "STARTTLS" and self._tls is not None:
                await writer.start_tls(self._tls)
            if reply.startswith("354"):
                body = await reader.readuntil(b"\r\n.\r\n")
                self.offered.append(body)
                reply = self._next(".")
                if reply.startswith("2"):
                    self.mails.append(body.removesuffix(b".\r\n"))
                    self.encrypted.append(writer.get_extra_info("ssl_object") is not None)
                self._heard(".")
                if not await self._say(reply, writer):
                    return

    def _heard(self, line: str) -> None:
        self.commands.append(line)
        self._grown.set()

    def _next(self, verb: str) -> str:
        if replies := self.replies.get(verb):
            return replies.pop(0) if len(replies) > 1 else replies[0]
        if verb == "EHLO":
            return "250-test\r\n250-STARTTLS\r\n250 8BITMIME" if self._tls else "250-test\r\n250 8BITMIME"
        if verb == "STARTTLS":
            return "220 go on" if self._tls else "502 no"
        return DEFAULTS.get(verb, "250 ok")

    async def _say(self, reply: str, writer: asyncio.StreamWriter) -> bool:
        if reply == HANG:
            await asyncio.Event().wait()
        if reply == CLOSE:
            return False
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return not reply.startswith(("221", "421"))
