"""SMTP for very many recipients: whole transactions in two writes (PIPELINING, RFC 2920).

Contract: a `Batch` is one transaction, from one sender, perhaps logged in, to some recipients. Each
recipient carries its number as ORCPT, which Postfix keeps through all rewriting and gives the sink; and
NOTIFY=NEVER, so that no bounce adds mail of its own. `Session.send` gives every reply.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from tests.system.differential.sink import PROBE
from tests.system.sasl_stub import plain

REPLY_LIMIT = 120.0
"""Seconds for one reply. A table that hangs is Postfix's to give up on (100 s, dict_tcp.c), not ours."""

BUFFER = 1 << 20

QUEUED = re.compile(r" queued as .*")


class Batch(NamedTuple):
    """One mail transaction."""

    number: int
    login: str
    sender: str
    addresses: tuple[str, ...]
    smtputf8: bool = False


class Replies(NamedTuple):
    """What was said to MAIL, to each RCPT, and to the data (empty when there was nobody to send it to)."""

    mail: str
    rcpt: tuple[str, ...]
    data: str


class Session:
    """One connection to smtpd, logged in or not."""

    def __init__(self, port: int, login: str = "") -> None:
        self.login = login
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=BUFFER)
        await self._reply()
        await self._say(["EHLO client.test"])
        if self.login:
            await self._say([plain(self.login)])
        return self

    async def __aexit__(self, *error: object) -> None:
        if error[0] is None:
            await self._say(["QUIT"])
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, batch: Batch, probe: str) -> Replies:
        """One transaction, up to the reply to the data."""
        rcpts = [
            f"RCPT TO:<{address}> NOTIFY=NEVER ORCPT=rfc822;{number}"
            for number, address in enumerate(batch.addresses)
        ]
        _, mail, *replies = await self._say(["RSET", _mail(batch.sender, batch.smtputf8), *rcpts])
        data = await self._data(probe) if any(reply.startswith("250 ") for reply in replies) else ""
        return Replies(mail, tuple(replies), data)

    async def try_senders(self, senders: Sequence[str], recipient: str) -> list[str]:
        """What each sender is told, at MAIL and at RCPT."""
        lines = [line for sender in senders for line in ("RSET", _mail(sender), f"RCPT TO:<{recipient}>")]
        replies = await self._say(lines)
        return [f"{mail} / {rcpt}" for mail, rcpt in zip(replies[1::3], replies[2::3], strict=True)]

    async def _data(self, probe: str) -> str:
        (go_on,) = await self._say(["DATA"])
        if not go_on.startswith("354 "):
            return go_on
        (reply,) = await self._say([f"{PROBE}: {probe}", "", "hello", "."], 1)
        return QUEUED.sub(" queued", reply)

    async def _say(self, lines: Sequence[str], count: int | None = None) -> list[str]:
        """Send lines in one write; the replies to them, one a line unless `count` says otherwise."""
        text = "".join(f"{line}\r\n" for line in lines)
        self._writer.write(text.encode("utf-8", "surrogateescape"))
        return [await self._reply() for _ in range(len(lines) if count is None else count)]

    async def _reply(self) -> str:
        async with asyncio.timeout(REPLY_LIMIT):
            while True:
                line = await self._reader.readuntil(b"\n")
                if line[3:4] != b"-":
                    return line.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _mail(sender: str, smtputf8: bool = False) -> str:
    return f"MAIL FROM:<{sender}>{' SMTPUTF8' if smtputf8 else ''}"
