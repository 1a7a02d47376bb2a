"""Those who send: each message, and each probe of an unknown address, again and again until it is decided.

Contract: a session for each attempt, as from another host. A message is decided by 250 after its data, or by
5xx; a probe by any reply to RCPT but 4xx. After 4xx, or a connection that broke, it is tried again a little
later. Every attempt is told to the `Tally` under the trouble of its time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from tests.system.chaos.people import Recipient
from tests.system.chaos.tally import Attempt, Tally
from tests.system.smtp import Dialog, Reply

SESSIONS = 30
"""At a time. By tcp a session stands still for a second for each connection to a table that broke."""

FIRST_PAUSE, LONGEST_PAUSE = 0.3, 4.0
"""Seconds until it is tried again; doubled each time, with jitter."""


class Senders:
    """`message` and `probe` end when it is decided."""

    def __init__(self, port: int, tally: Tally, now: Callable[[], str], rng: random.Random) -> None:
        """`now` names the trouble that there is."""
        self._port = port
        self._tally = tally
        self._now = now
        self._rng = rng
        self._slots = asyncio.Semaphore(SESSIONS)

    async def message(self, number: int, recipient: Recipient) -> None:
        """Send one message until it is taken or refused."""
        pause = FIRST_PAUSE
        for attempt in range(1_000_000):
            probe = f"{number}.{attempt}"
            async with self._slots:
                trouble = self._now()
                reply, was_sent = await self._transaction(recipient.address, probe)
            self._tally.messages.append(Attempt(trouble, recipient.address, reply, probe, was_sent))
            if reply is not None and reply.code // 100 in (2, 5):
                if reply.code == 250:
                    self._tally.accepted[probe] = recipient
                return
            pause = await self._later(pause)

    async def probe(self, address: str) -> None:
        """Offer one recipient until that is decided."""
        pause = FIRST_PAUSE
        while True:
            async with self._slots:
                trouble = self._now()
                reply = await self._rcpt(address)
            self._tally.probes.append(Attempt(trouble, address, reply))
            if reply is not None and reply.code // 100 != 4:
                return
            pause = await self._later(pause)

    async def _later(self, pause: float) -> float:
        await asyncio.sleep(pause * self._rng.uniform(0.7, 1.3))
        return min(pause * 2, LONGEST_PAUSE)

    async def _transaction(self, address: str, probe: str) -> tuple[Reply | None, bool]:
        """The last reply, None if the connection broke; and whether the data had been sent."""
        sent = False
        with suppress(OSError, EOFError):
            async with Dialog(self._port) as dialog:
                reply = await dialog.rcpt(address, f"s{probe}@sender.test")
                if reply.code != 250:
                    return reply, False
                reply = await dialog.say("DATA")
                if reply.code != 354:
                    return reply, False
                sent = True
                text = f"X-Probe: {probe}\r\nSubject: chaos\r\n\r\nhello\r\n."
                return await dialog.say(text), True
        return None, sent

    async def _rcpt(self, address: str) -> Reply | None:
        with suppress(OSError, EOFError):
            async with Dialog(self._port) as dialog:
                return await dialog.rcpt(address, f"s{self._rng.randrange(1 << 32)}@sender.test")
        return None
