"""One client of a lookup protocol: bytes -> codec -> table -> codec -> bytes, in order.

What can be answered without waiting is answered inside `data_received`, in one write; a request that
came before and has its answer out of memory is not even taken apart (`mailmaps.maps.memo`). What has to be
asked is waited for, and everything that comes after it queues behind it, so that replies keep the order of
the requests. The connection is never closed for being idle: Postfix pays a second of sleep for that
(tcp_table) and keeps its connections for its whole life.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

from mailmaps.maps.answer import Answer, Found, NotFound, Unavailable
from mailmaps.maps.memo import Memo
from mailmaps.protocols.request import Codec, ProtocolError, Request

log = logging.getLogger(__name__)

# Bytes of requests that are taken apart, and of replies that are written, before everybody else has a turn.
# One read brings up to 256 kB, that is 50,000 requests, each for a reply a thousand times its size perhaps.
# Postfix has one request outstanding; a client that has sent more than this is not read from.
MOST_PER_TURN = 4096
MOST_AT_ONCE = 64 * 1024

# Seconds between looks whether what is held may still be trusted. Timers look too; but a process that was
# stopped (SIGSTOP, a frozen container) comes by what its clients asked before it comes by its timers.
LOOK = 1.0


class AnsweringTable(Protocol):
    """What a connection needs of a table (`mailmaps.maps.lookup.Table`)."""

    def begin(self, key: bytes) -> Answer | asyncio.Future[Answer]:
        """Answer without waiting, or begin to ask."""

    @property
    def steady(self) -> bool:
        """Whether all answers hold until the memo is cleared."""


class Trust:
    """Has `look` called before anything is answered, but not within `LOOK` seconds again.

    It is told nothing and tells nothing: what may not be trusted any more changes its answers.
    """

    __slots__ = ("_look", "until")

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self.until = 0.0  # time.monotonic()

    def renew(self) -> None:
        """To be called when it is later than `until`."""
        self.until = monotonic() + LOOK
        self._look()


class Connection(asyncio.Protocol):
    """One client. `tables` are those this endpoint serves, with one `memo` for all its clients.

    `closed` is called when it is gone.
    """

    def __init__(
        self,
        codec: Codec,
        tables: Mapping[str, AnsweringTable],
        memo: Memo,
        trust: Trust,
        closed: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self._codec = codec
        self._tables = tables
        self._memo = memo
        self._trust = trust
        self._closed = closed
        self._apart = bytearray()  # read, and not taken apart yet
        self._waiting: deque[Request] = deque()
        self._asked: asyncio.Future[Answer] | None = None  # for the first that waits
        self._turn: asyncio.Handle | None = None  # goes on when everybody else has had theirs
        self._last_words: bytes | None = None  # set: nothing is read any more, close after these
        self._is_reading = self._is_writable = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_all()
        self._closed(self)

    def pause_writing(self) -> None:
        self._is_writable = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None:
            return
        if monotonic() > self._trust.until:
            self._trust.renew()
        if self._is_idle and self._codec.is_between:
            if (reply := self._memo.get(data)) is not None:
                self._transport.write(reply)
                return
            if len(data) <= MOST_PER_TURN:
                requests = self._feed(data)
                if len(requests) == 1 and self._codec.is_between and self._last_words is None:
                    self._answer_only(data, requests[0])
                    return
                self._waiting.extend(requests)
                data = b""
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
        later = Unavailable("mailmaps is stopping")
        self._transport.write(b"".join(self._codec.encode(request, later) for request in self._waiting))
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

    def _feed(self, data: bytes) -> list[Request]:
        """Take bytes apart. On what makes no sense, set the last words and forget what came after."""
        try:
            return self._codec.feed(data)
        except ProtocolError as error:
            log.warning("protocol=%s client=%s: %s", self._codec.name, self.peer, error)
            self._last_words = error.reply
            self._apart.clear()
            return error.requests

    def _answer_only(self, data: bytes, request: Request) -> None:
        """Answer the one request that `data` is; keep the reply if it holds."""
        answer = self._begin(request)
        if isinstance(answer, asyncio.Future):
            self._waiting.append(request)
            self._wait_for(answer)
            return
        reply = self._encode(request, answer)
        self._transport.write(reply)
        if isinstance(answer, (Found, NotFound)) and self._tables[request.table].steady:
            self._memo.put(data, reply, found=isinstance(answer, Found))

    def _begin(self, request: Request) -> Answer | asyncio.Future[Answer] | None:
        """None: there is no such table."""
        table = self._tables.get(request.table)
        try:
            return None if table is None else table.begin(request.key)
        except Exception:
            return self._internal_error(request)

    def _internal_error(self, request: Request) -> Answer:
        log.exception("table=%s key=%a: internal error", request.table, request.key)
        return Unavailable("internal error")

    def _encode(self, request: Request, answer: Answer | None) -> bytes:
        return self._codec.encode_no_table(request) if answer is None else self._codec.encode(request, answer)

    def _wait_for(self, answer: asyncio.Future[Answer]) -> None:
        self._asked = answer
        answer.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[Answer]) -> None:
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
            answer = self._begin(request)
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
