"""One client that asks and is answered in order: bytes -> codec -> answer -> codec -> bytes.

What can be answered without waiting is answered inside `data_received`, in one write. What has to be asked is
waited for, and everything that comes after it queues behind it, so that replies keep the order of the
requests. The connection is never closed for being idle: Postfix pays a second of sleep for that (tcp_table,
policy delegation) and keeps its connections for its whole life.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import Generic, Protocol, TypeVar

from mailmaps.logs import events
from mailmaps.protocols.request import ProtocolError

log = events(__name__)

# Bytes of requests that are taken apart, and of replies that are written, before everybody else has a turn.
# One read brings up to 256 kB, that is 50,000 requests, each for a reply a thousand times its size perhaps.
# Postfix has one request outstanding; a client that has sent more than this is not read from.
MOST_PER_TURN = 4096
MOST_AT_ONCE = 64 * 1024

R = TypeVar("R")  # a request
A = TypeVar("A")  # its answer


class Feeding(Protocol[R]):
    """What a connection needs of its codec, whatever the requests are."""

    @property
    def name(self) -> str:
        """The protocol, as logs call it."""

    @property
    def is_between(self) -> bool:
        """Whether no request has begun, so that the next byte is the first of one."""

    def feed(self, data: bytes) -> list[R]:
        """Take what arrived and return the requests now complete. Raises `ProtocolError` only."""


class OrderedConnection(asyncio.Protocol, Generic[R, A]):
    """One client. What the protocol makes of requests and answers is said by those who inherit."""

    def __init__(self, codec: Feeding[R]) -> None:
        self._feeding = codec
        self._apart = bytearray()  # read, and not taken apart yet
        self._waiting: deque[R] = deque()
        self._asked: asyncio.Future[A] | None = None  # for the first that waits
        self._turn: asyncio.Handle | None = None  # goes on when everybody else has had theirs
        self._last_words: bytes | None = None  # set: nothing is read any more, close after these
        self._is_reading = self._is_writable = True
        self._transport: asyncio.Transport

    @abstractmethod
    def _begin(self, request: R) -> A | asyncio.Future[A]:
        """Answer without waiting, or begin to ask."""

    @abstractmethod
    def _encode(self, request: R, answer: A) -> bytes:
        """The reply to a request."""

    @abstractmethod
    def _try_later(self, request: R) -> A:
        """What is said to a request that is cut off."""

    @abstractmethod
    def _internal_error(self, request: R) -> A:
        """What is said where we failed in a way we do not know; called while the exception is handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_all()

    def pause_writing(self) -> None:
        self._is_writable = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None:
            return
        if self._is_idle and len(data) <= MOST_PER_TURN:
            self._waiting.extend(self._feed(data))
        else:
            self._apart += data
        self._go_on()

    def eof_received(self) -> bool:
        """The client has said all it will and may still read (`nc -N`): answer, then close."""
        self.drain()
        return True

    def drain(self) -> None:
        """Answer what was asked, take no more, then close."""
        if self._last_words is None:
            self._last_words = b""
        self._go_on()

    def cut(self) -> None:
        """Close now; what is still waiting is told to try later, which is cheaper than an end of file."""
        waiting = self._waiting
        self._transport.write(
            b"".join(self._encode(request, self._try_later(request)) for request in waiting)
        )
        self._forget_all()
        self._transport.close()

    @property
    def peer(self) -> str:
        """The client's address, for logs; empty for a unix socket."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and not self._apart

    def _forget_all(self) -> None:
        self._apart.clear()
        self._waiting.clear()
        self._asked = None
        if self._turn is not None:
            self._turn.cancel()

    def _feed(self, data: bytes) -> list[R]:
        """Take bytes apart. On what makes no sense, set the last words and forget what came after."""
        try:
            return self._feeding.feed(data)
        except ProtocolError as error:
            log.warning("protocol error", protocol=self._feeding.name, client=self.peer, reason=error)
            self._last_words = error.reply
            self._apart.clear()
            requests: list[R] = error.requests
            return requests

    def _begin_safely(self, request: R) -> A | asyncio.Future[A]:
        try:
            return self._begin(request)
        except Exception:
            return self._internal_error(request)

    def _wait_for(self, answer: asyncio.Future[A]) -> None:
        self._asked = answer
        answer.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[A]) -> None:
        """The first that waits has its answer."""
        future.exception()  # looked at even if the client is gone: asyncio complains of those that nobody did
        if future is not self._asked:
            return
        self._asked = None
        request = self._waiting.popleft()
        try:
            answer = future.result()
        except Exception:
            answer = self._internal_error(request)
        self._transport.write(self._encode(request, answer))
        if self._waiting or self._apart or self._last_words is not None:
            self._go_on()

    def _go_on(self) -> None:
        """Answer what waits until something has to be asked, or is much; read on, or close, at the end."""
        if self._asked is None and self._turn is None and self._is_writable:
            if not self._waiting and self._apart:
                piece = bytes(self._apart[:MOST_PER_TURN])
                del self._apart[:MOST_PER_TURN]
                self._waiting.extend(self._feed(piece))
            self._answer_waiting()
            if self._is_idle and self._last_words is not None:
                self._transport.write(self._last_words)
                self._last_words = b""  # said
                self._transport.close()
                return
            if not self._is_idle and self._asked is None:
                self._turn = asyncio.get_running_loop().call_soon(self._take_turn)
        self._read_or_not()

    def _take_turn(self) -> None:
        self._turn = None
        self._go_on()

    def _answer_waiting(self) -> None:
        """In one write, those that need not be asked."""
        replies: list[bytes] = []
        size = 0
        while self._waiting and size < MOST_AT_ONCE:
            request = self._waiting[0]
            answer = self._begin_safely(request)
            if isinstance(answer, asyncio.Future):
                self._wait_for(answer)
                break
            self._waiting.popleft()
            replies.append(self._encode(request, answer))
            size += len(replies[-1])
        if replies:
            self._transport.write(b"".join(replies))

    def _read_or_not(self) -> None:
        """Read, unless there is enough to do."""
        wants = self._is_writable and len(self._apart) < MOST_PER_TURN and self._last_words is None
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
