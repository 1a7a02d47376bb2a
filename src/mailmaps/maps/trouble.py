"""Says that a table cannot say, and that it can again: once each, not once a lookup."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

log = logging.getLogger(__name__)

# Seconds without trouble after which it is over: some lookups may be well while others are not.
CALM = 10.0


class Trouble:
    """That of one table."""

    def __init__(self, table: str, clock: Callable[[], float] = monotonic) -> None:
        self._table = table
        self._clock = clock
        self._what = ""
        self._said_at = self._seen_at = -CALM

    def occurs(self, what: str) -> None:
        """A lookup could not be answered. Other trouble than before is said when that is a while ago."""
        now = self._clock()
        if now - self._seen_at > CALM:  # what was before is over; perhaps nobody had to be asked since
            self._what = ""
        if not self._what or (what != self._what and now - self._said_at > CALM):
            log.error("table=%s: cannot say: %s", self._table, what)
            self._what, self._said_at = what, now
        self._seen_at = now

    def is_not_seen(self) -> None:
        """A lookup has been answered by the sources."""
        if self._what and self._clock() - self._seen_at > CALM:
            log.warning("table=%s: answers again", self._table)
            self._what = ""
