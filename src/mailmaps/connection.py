"""One client of a lookup protocol: bytes -> codec -> table -> codec -> bytes, in order.

What can be answered without waiting is answered inside `data_received`, in one write; a request that
came before and has its answer out of memory is not even taken apart (`mailmaps.maps.memo`). What cannot
goes to this connection's one worker, and everything asked after it queues behind it, so that replies
keep the order of the requests. The connection is never closed for being idle: Postfix pays a second
of sleep for that (tcp_table) and keeps its connections for its whole life.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from mailmaps.maps.answer import Answer, Found, Unavailable
from mailmaps.maps.memo import Memo
from mailmaps.protocols.request import Codec, ProtocolError, Request

log = logging.getLogger(__name__)

# Postfix has one request outstanding. A client that pipelines is not read from while this many wait.
MOST_WAITING = 256

# A segment of short requests can ask for replies a thousand times its size. Beyond this much at once,
# the worker goes on, at the pace at which the client reads.
MOST_AT_ONCE = 64 * 1024


# Bytes taken apart at once: one read brings up to 256 kB, that is 50,000 requests. What is longer waits as it
# came and is the worker's, who lets everybody else have a turn after each piece.
MOST_PER_TURN = 4096


class AnsweringTable(Protocol):
    """What a connection needs of a table (`mailmaps.maps.lookup.Table`)."""

    def answer_now(self, key: bytes) -> Answer | None:
        """Answer without waiting, or None."""

    async def answer(self, key: bytes) -> Answer:
        """Answer, waiting if need be."""

    @property
    def steady(self) -> bool:
        """Whether all answers hold until the memo is cleared."""


class Connection(asyncio.Protocol):
    """One client. `tables` are those this endpoint serves, with one `memo` for all its clients.

    `closed` is called when it is gone.
    """

    def __init__(
        self,
        codec: Codec,
        tables: Mapping[str, AnsweringTable],
        memo: Memo,
        closed: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self._codec = codec
        self._tables = tables
        self._memo = memo
        self._closed = closed
        self._waiting: deque[Request] = deque()
        self._apart = bytearray()  # read, not taken apart yet; nothing more is read meanwhile
        self._worker: asyncio.Task[None] | None = None
        self._last_words: bytes | None = None  # set: nothing is read any more, close after these
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._worker is not None:
            self._worker.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._read_on()

    def data_received(self, data: bytes) -> None:
        is_first = self._worker is None and self._codec.is_between
        if self._last_words is not None:
            return
        if is_first and (reply := self._memo.get(data)) is not None:
            self._transport.write(reply)
            return
        if self._apart or len(data) > MOST_PER_TURN:
            self._apart += data
            self._transport.pause_reading()
            self._ensure_worker()
            return
        requests = self._feed(data)
        if self._worker is None:
            if (
                is_first
                and len(requests) == 1
                and self._codec.is_between
                and self._answer_whole(data, requests[0])
            ):
                return
            requests = self._answer_hits(requests)
        if requests:
            self._enqueue(requests)
        elif self._worker is None:
            self._close_if_finished()

    def eof_received(self) -> bool:
        """The client has said all it will and may still read (`nc -N`): answer, then close."""
        self.drain()
        return True

    def drain(self) -> None:
        """Answer what was asked, take no more, then close."""
        if self._last_words is None:
            self._last_words = b""
        if self._worker is None:
            self._close_if_finished()

    def cut(self) -> None:
        """Close now; what is still waiting is told to try later, which is cheaper than an end of file."""
        if self._worker is not None:
            self._worker.cancel()
        later = Unavailable("mailmaps is stopping")
        self._transport.write(b"".join(self._codec.encode(request, later) for request in self._waiting))
        self._waiting.clear()
        self._apart.clear()
        self._transport.close()

    @property
    def peer(self) -> str:
        """The client's address, for logs; empty for a unix socket."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def _feed(self, data: bytes) -> list[Request]:
        """Take bytes apart. On what makes no sense, set the last words and forget what came after."""
        try:
            return self._codec.feed(data)
        except ProtocolError as error:
            log.warning("protocol=%s client=%s: %s", self._codec.name, self.peer, error)
            self._last_words = error.reply
            self._apart.clear()
            return error.requests

    def _answer_whole(self, data: bytes, request: Request) -> bool:
        """Answer the one request that `data` is, if that needs no waiting; keep the reply if it holds."""
        table = self._tables.get(request.table)
        answer = None if table is None else table.answer_now(request.key)
        if table is None or answer is None:
            return False
        reply = self._codec.encode(request, answer)
        self._transport.write(reply)
        if table.steady:
            self._memo.put(data, reply, found=isinstance(answer, Found))
        return True

    def _answer_hits(self, requests: list[Request]) -> list[Request]:
        """Write the replies to the leading requests that need no waiting; return the rest."""
        replies: list[bytes] = []
        size = 0
        for request in requests:
            reply = self._reply_now(request) if size < MOST_AT_ONCE else None
            if reply is None:
                break
            replies.append(reply)
            size += len(reply)
        if replies:
            self._transport.write(b"".join(replies))
        return requests[len(replies) :]

    def _reply_now(self, request: Request) -> bytes | None:
        table = self._tables.get(request.table)
        if table is None:
            return self._codec.encode_no_table(request)
        answer = table.answer_now(request.key)
        return None if answer is None else self._codec.encode(request, answer)

    def _enqueue(self, requests: list[Request]) -> None:
        self._waiting.extend(requests)
        if len(self._waiting) >= MOST_WAITING:
            self._transport.pause_reading()
        self._ensure_worker()

    def _ensure_worker(self) -> None:
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        """Answer the queue in order, then end; the next miss starts a new worker."""
        turn = 0
        while self._waiting or self._apart:
            if not self._waiting:
                piece = bytes(self._apart[:MOST_PER_TURN])
                del self._apart[:MOST_PER_TURN]
                self._waiting.extend(self._feed(piece))
                await asyncio.sleep(0)  # an answer out of memory waits for nothing, so others would
                self._read_on()
                continue
            reply = await self._reply(self._waiting[0])
            self._waiting.popleft()
            self._transport.write(reply)
            turn += 1
            if turn % MOST_WAITING == 0:
                await asyncio.sleep(0)
            await self._writable.wait()
            if len(self._waiting) == MOST_WAITING // 2:
                self._read_on()
        self._worker = None
        self._read_on()
        self._close_if_finished()

    def _read_on(self) -> None:
        """Read again unless there is enough to do."""
        if (
            self._last_words is None
            and self._writable.is_set()
            and not self._apart
            and len(self._waiting) < MOST_WAITING
        ):
            self._transport.resume_reading()

    async def _reply(self, request: Request) -> bytes:
        table = self._tables.get(request.table)
        if table is None:
            return self._codec.encode_no_table(request)
        try:
            answer = await table.answer(request.key)
        except Exception:
            log.exception("table=%s key=%a: internal error", request.table, request.key)
            answer = Unavailable("internal error")
        return self._codec.encode(request, answer)

    def _close_if_finished(self) -> None:
        if self._last_words is not None:
            self._transport.write(self._last_words)
            self._transport.close()
