"""What HTTP shows of the daemon: /metrics for Prometheus, /healthz and /readyz for who restarts or routes.

* /healthz says 200 as long as the process serves its sockets at all. Whoever restarts a daemon that fails it
  does so for a reason that a restart can mend; an outage of PostgreSQL is none.
* /readyz says 200 when every lookup, and every login, would have an answer now, be it from what is held; 503
  names the tables that would say "try later".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from mailmaps.http_connection import Page
from mailmaps.metrics.exposition import Exposition
from mailmaps.metrics.families import State


class Observing:
    """`state` is what `mailmaps status` shows; `unready` gives a line for each thing that would fail."""

    def __init__(self, state: Callable[[], State], unready: Callable[[], Awaitable[list[str]]]) -> None:
        self._exposition = Exposition(state)
        self._unready = unready

    async def page(self, path: str, accept: str) -> Page | None:
        """The page of a path, None where there is none."""
        if path == "/metrics":
            content_type, body = self._exposition.page(accept)
            return Page(body, content_type=content_type)
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
