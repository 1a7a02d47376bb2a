"""The clients that are connected: counted, and answered and sent away at the end.

The rule it keeps: whoever asked is answered, and whoever has only just connected is heard, since Postfix
connects in order to ask, and its socketmap client tries again only once (`dict_sockmap.c:244`). Everybody
else is closed between two questions: all clients of Postfix then connect again and ask again by themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Protocol, TypeVar

from mailmaps.logs import events

log = events(__name__)

# Seconds in which queries already on the wire are still read after we stop accepting.
LAST_READ = 0.05

# Seconds within which a client that has connected has asked: a Postfix process does so at once, but on a busy
# machine it waits for its turn.
FIRST_QUESTION = 1.0


class Ending(Protocol):
    """What is needed of a connection."""

    def drain(self) -> None:
        """Answer what was asked, take no more, then close."""

    def cut(self) -> None:
        """Close now."""


C = TypeVar("C", bound=Ending)


class Clients:
    """All that are connected, with the protocol that each speaks."""

    def __init__(self) -> None:
        self._protocols: dict[Ending, str] = {}
        self._since: dict[Ending, float] = {}  # time.monotonic()
        self._accepted: Counter[str] = Counter()
        self._all_gone: asyncio.Event | None = None  # set up by close(), which waits for it

    def __len__(self) -> int:
        return len(self._protocols)

    def count(self, protocol: str) -> int:
        """Those that speak a protocol."""
        return sum(one == protocol for one in self._protocols.values())

    @property
    def state(self) -> dict[str, dict[str, int]]:
        """For `mailmaps status` and the metrics."""
        now = Counter(self._protocols.values())
        return {
            protocol: {"open": now[protocol], "accepted": count}
            for protocol, count in sorted(self._accepted.items())
        }

    def add(self, connection: C, protocol: str) -> C:
        """One more, from now until it says `gone`."""
        self._protocols[connection] = protocol
        self._since[connection] = monotonic()
        self._accepted[protocol] += 1
        return connection

    def gone(self, connection: Ending) -> None:
        """It is closed."""
        self._protocols.pop(connection, None)
        self._since.pop(connection, None)
        if self._all_gone is not None and not self._protocols:
            self._all_gone.set()

    async def close(self, limit: float) -> None:
        """Answer and close all of them; those that take longer than `limit` seconds are cut."""
        end = monotonic() + limit
        await asyncio.sleep(LAST_READ)
        self._all_gone = asyncio.Event()
        while self._protocols and (left := end - monotonic()) > 0:
            await self._wait(min(left, self._drain()))
        if self._protocols:
            log.warning("connections did not finish in time and are cut", connections=len(self))
            for connection in list(self._protocols):
                connection.cut()
            await asyncio.sleep(LAST_READ)

    def _drain(self) -> float:
        """Drain all that have had time to ask; the seconds until the next has had it."""
        now = monotonic()
        next_one = float("inf")
        for connection, since in list(self._since.items()):
            if (left := since + FIRST_QUESTION - now) > 0:
                next_one = min(next_one, left)
            else:
                connection.drain()
        return next_one

    async def _wait(self, limit: float) -> None:
        """Until all are gone, or `limit` seconds have passed."""
        assert self._all_gone is not None
        try:
            async with asyncio.timeout(limit):
                await self._all_gone.wait()
        except TimeoutError:
            return
