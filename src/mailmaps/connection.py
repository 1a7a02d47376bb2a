"""One client of a lookup protocol: bytes -> codec -> table -> codec -> bytes, in order.

The way of every client that is answered in order is in `mailmaps.ordered_connection`. What lookups have
besides: a request that came before and has its answer out of memory is not even taken apart
(`mailmaps.maps.memo`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

from mailmaps.logs import events
from mailmaps.maps.answer import Answer, Found, NotFound, Unavailable
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.memo import Memo
from mailmaps.ordered_connection import MOST_PER_TURN, OrderedConnection
from mailmaps.protocols.request import Codec, Request

log = events(__name__)

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

    @property
    def counts(self) -> LookupCounts:
        """Where every answer is counted."""


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


class Connection(OrderedConnection[Request, Answer | None]):
    """One client. `tables` are those this endpoint serves, with one `memo` for all its clients.

    `closed` is called when it is gone. The answer None: there is no such table.
    """

    def __init__(
        self,
        codec: Codec,
        tables: Mapping[str, AnsweringTable],
        memo: Memo,
        trust: Trust,
        closed: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        super().__init__(codec)
        self._codec = codec
        self._tables = tables
        self._memo = memo
        self._trust = trust
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed(self)

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

    def _answer_only(self, data: bytes, request: Request) -> None:
        """Answer the one request that `data` is; keep the reply if it holds."""
        answer = self._begin_safely(request)
        if isinstance(answer, asyncio.Future):
            self._waiting.append(request)
            self._wait_for(answer)
            return
        reply = self._encode(request, answer)
        self._transport.write(reply)
        if isinstance(answer, (Found, NotFound)) and (table := self._tables[request.table]).steady:
            self._memo.put(data, reply, table.counts, found=isinstance(answer, Found))

    def _begin(self, request: Request) -> Answer | asyncio.Future[Answer | None] | None:
        table = self._tables.get(request.table)
        return None if table is None else table.begin(request.key)  # type: ignore[return-value]

    def _internal_error(self, request: Request) -> Answer:
        log.exception("internal error", table=request.table, key=request.key)
        return Unavailable("internal error")

    def _try_later(self, request: Request) -> Answer:
        return Unavailable("mailmaps is stopping")

    def _encode(self, request: Request, answer: Answer | None) -> bytes:
        if answer is None:
            return self._codec.encode_no_table(request)
        if (table := self._tables.get(request.table)) is not None:  # None: a reload took it away meanwhile
            table.counts.answered(answer)
        return self._codec.encode(request, answer)
