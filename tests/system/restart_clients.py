"""Clients that behave on a closed connection as Postfix's do, and count what comes of their questions.

The sources: dict_tcp.c:109,208-218 (ten attempts, a second of sleep between), dict_sockmap.c:240-256 (one
more at the end of a connection, without sleep), attr_clnt.c:189-246 and smtpd_policy_service_try_limit = 2 (a
second of sleep; a connection that has become readable while unused is taken for closed).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from mailmaps.protocols.netstring import netstring

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# Seconds; Postfix waits 100.
ANSWER_LIMIT = 60.0


@dataclass
class Client:
    """One Postfix process that asks one question after the other until `stop`."""

    port: int
    question: bytes
    answer: bytes
    attempts: int
    sleep: float
    forgets: bool  # whether it connects anew for every question, as processes come and go
    seen: Counter[str] = field(default_factory=Counter)
    stop: bool = False
    _stream: Stream | None = None

    async def run(self) -> None:
        while not self.stop:
            answer = await self._ask()
            self.seen["right" if answer == self.answer else "lost" if answer is None else "wrong"] += 1
            if self.forgets:
                self._close()
            await asyncio.sleep(0)
        self._close()

    async def _ask(self) -> bytes | None:
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(self.sleep)
            try:
                async with asyncio.timeout(ANSWER_LIMIT):
                    return await self._ask_once()
            except ConnectionRefusedError:
                self.seen["refused"] += 1
            except (OSError, EOFError):
                self.seen["asked again"] += 1
            self._close()
        return None

    async def _ask_once(self) -> bytes:
        if self._stream is None:
            self._stream = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._stream
        if reader.at_eof():
            raise EOFError
        writer.write(self.question)
        return await reader.readexactly(len(self.answer))

    def _close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
        self._stream = None


def tcp_table(port: int, key: str, value: str, *, forgets: bool) -> Client:
    return Client(port, f"get {key}\n".encode(), f"200 {value}\n".encode(), 10, 1.0, forgets)


def socketmap(port: int, table: str, key: str, value: str, *, forgets: bool) -> Client:
    return Client(
        port, netstring(f"{table} {key}".encode()), netstring(f"OK {value}".encode()), 2, 0.0, forgets
    )


def policy(port: int, *, forgets: bool) -> Client:
    lines = "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@else.test\nrecipient=b@a.test\n\n"
    return Client(port, lines.encode(), b"action=DUNNO\n\n", 2, 1.0, forgets)
