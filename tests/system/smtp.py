"""SMTP as a stranger speaks it to a Postfix under test.

Contract: `Dialog` is one session that sends exactly the bytes it is told, addresses included, and gives
back each reply whole; so it can ask what a mail client's library would refuse to send. `send` is an
ordinary message by aiosmtplib, and gives the queue id.
"""

from __future__ import annotations

import asyncio
import re
from email.message import EmailMessage
from types import TracebackType
from typing import NamedTuple, Self

import aiosmtplib

REPLY_LIMIT = 120.0
"""Seconds for one reply. A table that hangs is Postfix's to give up on (100 s, dict_tcp.c), not ours."""

QUEUED_AS = re.compile(r"queued as (\w+)")

SENDER = "probe@sender.test"

PROBE = "X-Probe"
"""The header that names a test's message, from the sending to the sink."""


class Reply(NamedTuple):
    """One reply: the code and the text of its last line."""

    code: int
    text: str

    @property
    def queue_id(self) -> str:
        found = QUEUED_AS.search(self.text)
        assert found is not None, f"not queued: {self}"
        return found[1]


class Refused(Exception):
    """The server took neither the recipient nor the message; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.code} {reply.text}")
        self.reply = reply


class Dialog:
    """One session with the smtpd on a port of 127.0.0.1: `async with Dialog(port) as dialog`."""

    def __init__(self, port: int, smtputf8: bool = False, client: str = "") -> None:
        """`client` is the address to come from, one of 127.0.0.0/8."""
        self._port = port
        self._smtputf8 = smtputf8
        self._client = client

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._client, 0) if self._client else None
        )
        await self._reply()
        await self.say("EHLO client.test")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            await self.say("QUIT")
        self._writer.close()
        await self._writer.wait_closed()

    async def say(self, line: str) -> Reply:
        """Send one line and wait for its reply."""
        self._writer.write(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return await self._reply()

    async def mail(self, sender: str = SENDER) -> Reply:
        return await self.say(f"MAIL FROM:<{sender}>{' SMTPUTF8' if self._smtputf8 else ''}")

    async def rcpt(self, address: str, sender: str = SENDER) -> Reply:
        """Offer one recipient, in a transaction of its own."""
        await self.say("RSET")
        reply = await self.mail(sender)
        return await self.say(f"RCPT TO:<{address}>") if reply.code == 250 else reply

    async def message(self, address: str, probe: str) -> tuple[Reply, Reply | None]:
        """Offer one recipient and, if it is taken, a message for it: the replies to RCPT and to the data."""
        reply = await self.rcpt(address)
        if reply.code != 250:
            return reply, None
        await self.say("DATA")
        return reply, await self.say(f"{PROBE}: {probe}\r\nSubject: probe\r\n\r\nhello\r\n.")

    async def _reply(self) -> Reply:
        async with asyncio.timeout(REPLY_LIMIT):
            while True:
                line = await self._reader.readuntil(b"\n")
                if line[3:4] != b"-":
                    return Reply(int(line[:3]), line[4:].decode("utf-8", "replace").rstrip("\r\n"))


async def send(port: int, probe: str, *recipients: str, sender: str = SENDER) -> Reply:
    """Send one message by aiosmtplib; raises `Refused` when any recipient, or the message, is refused."""
    message = EmailMessage()
    message["From"], message["Subject"], message[PROBE] = sender, "a test", probe
    message.set_content("Hello.\n")
    options = [] if all(map(str.isascii, recipients)) else ["SMTPUTF8"]
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False, timeout=REPLY_LIMIT)
    async with client:
        try:
            refused, text = await client.sendmail(
                sender, list(recipients), message.as_bytes(), mail_options=options
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise Refused(Reply(error.recipients[0].code, error.recipients[0].message)) from None
        except aiosmtplib.SMTPResponseException as error:
            raise Refused(Reply(error.code, error.message)) from None
    for answer in refused.values():
        raise Refused(Reply(answer.code, answer.message))
    return Reply(250, text)
