"""Clients that ask the daemon over and over, by tcp and by socketmap, and keep every reply.

Contract: `Asker(daemon)` asks the places given to `start` at random until `stop`; a connection that breaks,
as when the daemon is killed, is made anew and the question in it is not counted. `ask` is one question on a
connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.system.daemon import Daemon
from tests.system.outages.history import Place, Reply

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.protocols import tcp_table
from mailmaps.protocols.netstring import NetstringReader, netstring
from mailmaps.protocols.socketmap import LONGEST_REPLY

PAUSE = 0.004
"""Seconds between two questions of one client: two cores also run PostgreSQL, the writers and the daemon."""

REPLY_LIMIT = 30.0
"""Seconds; Postfix waits 100. The daemon answers within lookup_deadline whatever happens."""


class Door:
    """One connection, by tcp (one a table, made when asked for) or by socketmap (one for all)."""

    def __init__(self, daemon: Daemon, kind: str) -> None:
        self._daemon = daemon
        self._is_tcp = kind == "tcp"
        self._streams: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def ask(self, place: Place) -> Answer:
        """Raises `OSError`, `EOFError`, `TimeoutError` when there is no answer."""
        async with asyncio.timeout(REPLY_LIMIT):
            return await (self._by_tcp(place) if self._is_tcp else self._by_socketmap(place))

    def close(self) -> None:
        for _, writer in self._streams.values():
            writer.close()
        self._streams.clear()

    async def _by_tcp(self, place: Place) -> Answer:
        reader, writer = await self._open(place.table)
        writer.write(b"get " + tcp_table.quote(place.key.encode()) + b"\n")
        line = await reader.readuntil(b"\n")
        text = tcp_table.unquote(line[4:-1])
        assert text is not None, line
        return _answer({b"2": "OK", b"5": "NOTFOUND", b"4": "TEMP"}[line[:1]], text)

    async def _by_socketmap(self, place: Place) -> Answer:
        reader, writer = await self._open("socketmap")
        writer.write(netstring(f"{place.table} {place.key}".encode()))
        netstrings = NetstringReader(LONGEST_REPLY)
        while (payload := netstrings.next()) is None:
            data = await reader.read(65536)
            if not data:
                raise EOFError("mailmaps closed the connection")
            netstrings.feed(data)
        word, _, text = payload.partition(b" ")
        return _answer(word.decode(), text)

    async def _open(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if name not in self._streams:
            self._streams[name] = await asyncio.open_connection("127.0.0.1", self._daemon.ports[name])
        return self._streams[name]


def _answer(word: str, text: bytes) -> Answer:
    decoded = text.decode(errors="surrogateescape")
    match word:
        case "OK":
            return Found(decoded)
        case "NOTFOUND":
            return NOT_FOUND
        case "TEMP":
            return Unavailable(decoded)
    raise AssertionError(f"neither client knows the reply {word} {decoded}")


async def ask(daemon: Daemon, place: Place, kind: str = "tcp") -> Answer:
    """One question, on a connection of its own."""
    door = Door(daemon, kind)
    try:
        return await door.ask(place)
    finally:
        door.close()


class Asker:
    """Some clients that ask until they are stopped; `replies` in the order of arrival."""

    def __init__(self, daemon: Daemon, seed: int = 0) -> None:
        self.replies: list[Reply] = []
        self.lost = 0
        """Questions that got no reply: the daemon was not there."""
        self._daemon = daemon
        self._rng = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []

    def start(
        self, places: Callable[[], Sequence[Place]], kinds: Sequence[str] = ("tcp", "socketmap")
    ) -> None:
        """Begin; `places` is asked for what to ask each time, so that it may grow."""
        self._tasks = [asyncio.ensure_future(self._client(kind, places)) for kind in kinds]

    async def stop(self) -> None:
        """End, and raise what went wrong in a client."""
        for error in await self.abandon():
            if isinstance(error, Exception):
                raise error

    async def abandon(self) -> list[object]:
        """End; how each client ended."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    def count(self) -> Counter[str]:
        """How many answers of each kind there were."""
        return Counter(type(reply.answer).__name__ for reply in self.replies)

    async def _client(self, kind: str, places: Callable[[], Sequence[Place]]) -> None:
        door = Door(self._daemon, kind)
        try:
            while True:
                place = self._rng.choice(places())
                asked = time.monotonic()
                try:
                    answer = await door.ask(place)
                except TimeoutError:
                    raise AssertionError(f"no answer within {REPLY_LIMIT} s: {place}") from None
                except (OSError, EOFError):
                    self.lost += 1
                    door.close()
                else:
                    self.replies.append(Reply(place, asked, time.monotonic(), answer))
                await asyncio.sleep(PAUSE)
        finally:
            with contextlib.suppress(OSError):
                door.close()
