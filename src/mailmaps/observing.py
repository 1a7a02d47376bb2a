"""What HTTP shows of the daemon: /metrics for Prometheus, /healthz and /readyz for who restarts or routes.

* /healthz says 200 as long as the process serves its sockets at all. Whoever restarts a daemon that fails it
  does so for a reason that a restart can mend; an outage of PostgreSQL is none.
* /readyz says 200 when every lookup, and every login, would have an answer now, be it from what is held; 503
  names the tables that would say "try later".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import monotonic

from mailmaps.http_connection import Page
from mailmaps.metrics.exposition import Exposition
from mailmaps.metrics.families import State

# Seconds for which a page of metrics is given out again. Prometheus asks every 15 s.
FRESH = 0.25

# Pages that are kept, by what their clients accept.
MOST_PAGES = 4


class Observing:
    """`state` is what `mailmaps status` shows; `unready` gives a line for each thing that would fail."""

    def __init__(self, state: Callable[[], State], unready: Callable[[], Awaitable[list[str]]]) -> None:
        self._exposition = Exposition(state)
        self._unready = unready
        self._pages: dict[str, tuple[float, Page]] = {}  # by Accept, each with when it was made

    async def page(self, path: str, accept: str) -> Page | None:
        """The page of a path, None where there is none."""
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/healthz":
            return Page(b"ok\n")
        if path == "/readyz":
            lines = await self._unready()
            if not lines:
                return Page(b"ok\n")
            return Page("".join(f"{line}\n" for line in lines).encode(), HTTPStatus.SERVICE_UNAVAILABLE)
        if path == "/":
            return Page(b"/metrics /healthz /readyz\n")
        return None

    def _metrics(self, accept: str) -> Page:
        """A page takes some milliseconds of everybody's time: many who ask at once get the same one."""
        now = monotonic()
        made, page = self._pages.get(accept, (-FRESH, None))
        if page is None or now - made > FRESH:
            content_type, body = self._exposition.page(accept)
            page = Page(body, content_type=content_type)
            if len(self._pages) >= MOST_PAGES:
                self._pages.clear()
            self._pages[accept] = now, page
        return page
