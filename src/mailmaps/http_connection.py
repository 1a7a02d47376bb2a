"""One HTTP client, of Prometheus or of whoever looks whether we are well: GET in, a page out.

The bytes are h11's (RFC 9112). What we keep to: GET and HEAD only, no request body is waited for, one request
at a time, and a client that says nothing for `IDLE` seconds, or has not said all by then, is closed: whoever
can reach this port must not be able to hold descriptors that Postfix needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11

from mailmaps.logs import events

log = events(__name__)

# Seconds. Prometheus asks every 15 to 60 s, and connects again without a word when it was closed.
IDLE = 75.0

# Connections at a time; whoever comes then is closed. Prometheus needs one, and lookups come first.
MOST = 50

# Of the request line with all header fields.
LONGEST_REQUEST = 16 * 1024

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT


# Gives the page of a path; `accept` is the header field of that name.
Pages = Callable[[str, str], Awaitable[Page | None]]


class HttpConnection(asyncio.Protocol):
    """One client. `pages` gives None where there is no such page; `closed` is called when it is gone.

    `is_full`: there are `MOST` already, and this one is closed at once.
    """

    def __init__(
        self,
        pages: Pages,
        closed: Callable[[HttpConnection], None] = lambda _: None,
        *,
        is_full: bool = False,
    ) -> None:
        self._is_full = is_full
        self._pages = pages
        self._closed = closed
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_REQUEST)
        self._answering: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._is_writable = self._is_reading = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        if self._is_full:
            self._is_ending = True
            self._transport.abort()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._is_writable = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if not self._is_ending:
            self._http.receive_data(data)
            self._go_on()

    def eof_received(self) -> bool:
        """The client has said all it will and may still read."""
        if not self._is_ending:
            self._http.receive_data(b"")
            self._go_on()
        return self._answering is not None

    def drain(self) -> None:
        """Answer what was asked, take no more, then close."""
        self._is_ending = True
        if self._answering is None:
            self._transport.close()

    def cut(self) -> None:
        """Close now."""
        self._transport.abort()

    def _wait(self) -> None:
        """For the next request, no longer than `IDLE`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE, self._transport.abort)

    def _go_on(self) -> None:
        """The next request, when the one before is answered and the answer is taken."""
        if self._answering is None and self._is_writable and not self._is_ending:
            self._begin()
        self._read_or_not()

    def _read_or_not(self) -> None:
        """Read, unless there is a request to be answered: h11 keeps what came after it."""
        wants = self._answering is None and self._is_writable
        if wants != self._is_reading and not self._transport.is_closing():
            self._is_reading = wants
            if wants:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _begin(self) -> None:
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            self._refuse(Page(f"{status.phrase}\n".encode(), status))
            return
        if isinstance(event, h11.Request):
            self._answering = asyncio.ensure_future(self._answer(event))
            self._answering.add_done_callback(self._answered)
        elif event is not h11.NEED_DATA:  # it is closed
            self._transport.close()

    async def _answer(self, request: h11.Request) -> None:
        path = request.target.partition(b"?")[0].decode("latin-1")
        accept = next((value for name, value in request.headers if name == b"accept"), b"").decode("latin-1")
        if request.method not in (b"GET", b"HEAD"):
            page = Page(b"GET only\n", HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            page = await self._pages(path, accept) or Page(b"no such page\n", HTTPStatus.NOT_FOUND)
        self._write(page, body=request.method != b"HEAD")

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering = None
        if task.cancelled() or self._transport.is_closing():
            return
        if (error := task.exception()) is not None:
            log.error("internal error", exc_info=error)
            self._refuse(Page(b"internal error; see the log\n", HTTPStatus.INTERNAL_SERVER_ERROR))
        elif self._is_ending or not self._is_at_end():
            self._transport.close()
        else:
            self._http.start_next_cycle()
            self._wait()
            self._go_on()

    def _is_at_end(self) -> bool:
        """Whether the request is over; a body would have to be read before the next one."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError:
            return False
        return isinstance(event, h11.EndOfMessage) and self._http.our_state is h11.DONE

    def _refuse(self, page: Page) -> None:
        self._is_ending = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(page, body=True)
        self._transport.close()

    def _write(self, page: Page, *, body: bool) -> None:
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
        ]
        if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        if self._is_ending:
            headers.append(("Connection", "close"))
        response = h11.Response(status_code=page.status, reason=page.status.phrase, headers=headers)
        parts = [self._http.send(response)]
        if body:
            parts.append(self._http.send(h11.Data(data=page.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))
