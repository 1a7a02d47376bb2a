"""One client of a login door: bytes -> codec -> login service -> codec -> bytes.

The rule it keeps: at most `MOST_AT_ONCE` questions of a client under way, it is not read from meanwhile; a
result that the protocol has no word for ends the connection; nothing that a client said reaches a log. The
connection is never closed for being idle (Postfix keeps it for the life of an smtpd, and a connection that
went away costs one login a 454).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mailmaps.auth.attempt import Listed, Question, Result
from mailmaps.logs import events
from mailmaps.protocols.asked import Asked, LoginCodec, LoginProtocolError

log = events(__name__)

# Questions of one client; Postfix has one, Dovecot's login processes may send many.
MOST_AT_ONCE = 64

# Names of a list that are written before everybody else has a turn: a millisecond or two.
NAMES_AT_ONCE = 1000

Answer = Callable[[Question, str], Awaitable[Result]]


class LoginConnection(asyncio.Protocol):
    """One client. `answer` is `LoginService.answer`; `closed` is called when it is gone."""

    def __init__(
        self,
        codec: LoginCodec,
        answer: Answer,
        closed: Callable[[LoginConnection], None] = lambda _: None,
    ) -> None:
        self._codec = codec
        self._answer = answer
        self._closed = closed
        self._waiting: deque[Asked] = deque()  # not begun
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_reading = True
        self._is_ending = False  # nothing is read any more; close when all is answered
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        if self._codec.greeting:
            self._transport.write(self._codec.greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._read_or_not()

    def resume_writing(self) -> None:
        self._writable.set()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        try:
            items = self._codec.feed(data)
        except LoginProtocolError as error:
            log.warning("protocol error", protocol=self._codec.name, reason=error)
            items = error.items
            self._is_ending = True
        for item in items:
            if isinstance(item, Asked):
                self._waiting.append(item)
            else:
                self._transport.write(item)
        self._go_on()

    def eof_received(self) -> bool:
        """The client has said all it will and may still read."""
        self.drain()
        return True

    def drain(self) -> None:
        """Answer what was asked, take no more, then close."""
        self._is_ending = True
        self._go_on()

    def cut(self) -> None:
        """Close now: to every client that is "cannot say"."""
        self._transport.abort()

    def _go_on(self) -> None:
        most = 1 if self._codec.in_order else MOST_AT_ONCE
        while self._waiting and len(self._tasks) < most and self._writable.is_set():
            task = asyncio.ensure_future(self._ask(self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if not self._tasks and not self._waiting and (self._is_ending or self._codec.is_finished):
            self._transport.close()
        self._read_or_not()

    async def _ask(self, asked: Asked) -> None:
        result = await self._answer(asked.question, self._codec.name)
        if isinstance(result, Listed):
            result = await self._write_most(asked, result)
        reply = self._codec.encode(asked, result)
        if reply is None:
            self._is_ending = True
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write(reply)

    async def _write_most(self, asked: Asked, listed: Listed) -> Listed:
        """A million names are a second's work: everybody else has a turn in between. Returns the rest."""
        names, written = listed.usernames, 0
        while len(names) - written > NAMES_AT_ONCE and not self._transport.is_closing():
            piece = Listed(names[written : written + NAMES_AT_ONCE], more=True)
            self._transport.write(self._codec.encode(asked, piece) or b"")
            written += NAMES_AT_ONCE
            await asyncio.sleep(0)
            await self._writable.wait()
        return Listed(names[written:])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.fault("internal error", error, protocol=self._codec.name)
            self._transport.abort()
        if not self._transport.is_closing():
            self._go_on()

    def _read_or_not(self) -> None:
        """Read, unless there is enough to do; after the end bytes are read and dropped, to see it."""
        wants = self._writable.is_set() and len(self._waiting) < MOST_AT_ONCE
        if wants != self._is_reading and not self._transport.is_closing():
            self._is_reading = wants
            if wants:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
