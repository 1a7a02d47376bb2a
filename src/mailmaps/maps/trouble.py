"""Says that a table (or the logins) cannot say, and that it can again: once each, not once a lookup."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from mailmaps.logs import events

log = events(__name__)

# Seconds without trouble after which it is over: some lookups may be well while others are not.
CALM = 10.0


class Trouble:
    """That of one table, or whatever `name` is."""

    def __init__(self, name: str, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._clock = clock
        self._what = ""
        self._said_at = self._seen_at = -CALM

    def occurs(self, what: str) -> None:
        """A lookup could not be answered. Other trouble than before is said when that is a while ago."""
        now = self._clock()
        if now - self._seen_at > CALM:  # what was before is over; perhaps nobody had to be asked since
            self._what = ""
        if not self._what or (what != self._what and now - self._said_at > CALM):
            log.error("cannot say", of=self._name, reason=what)
            self._what, self._said_at = what, now
        self._seen_at = now

    def is_not_seen(self) -> None:
        """A lookup has been answered by the sources."""
        if self._what and self._clock() - self._seen_at > CALM:
            log.warning("answers again", of=self._name)
            self._what = ""
