"""Senders that were refused, or would have been, waiting to be written down (mailpolicy.observed_senders).

One entry an hour for each login, sender, client and reason, however often it happened; at most `MOST`, since
a catch-all makes any number of addresses ours. What does not fit is counted in entries without a sender.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from time import time
from typing import NamedTuple

from mailmaps.policy.texts import shown

REFUSED = "refused"
WOULD_BE_REFUSED = "would be refused"
WOULD_BE_DEFERRED = "would be deferred"

MOST = 10_000

# Entries of one statement.
AT_ONCE = 2000

OTHERS = "(others)"


class Event(NamedTuple):
    """What is the same about several; `hour` in seconds since the epoch, `login` empty: not logged in."""

    hour: int
    login: str
    sender: str
    client: str
    verdict: str
    why: str


@dataclass(slots=True)
class Times:
    """How often, and when, in seconds since the epoch."""

    times: int
    first: float
    last: float


class Observed:
    """What happened and is not written yet."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._events: dict[Event, Times] = {}

    def note(self, login: str, sender: str, client: str, verdict: str, why: str) -> None:
        """It happened now."""
        now = self._clock()
        event = Event(
            int(now // 3600 * 3600), shown(login), shown(sender), shown(client), verdict, shown(why)
        )
        self._add(event, Times(1, now, now))

    def take(self) -> dict[Event, Times]:
        """Some of it, to be written."""
        taken = dict(islice(self._events.items(), AT_ONCE))
        for event in taken:
            del self._events[event]
        return taken

    def put_back(self, taken: dict[Event, Times]) -> None:
        """It could not be written."""
        for event, times in taken.items():
            self._add(event, times)

    def held(self, since: float) -> dict[Event, Times]:
        """What is here and happened after `since`, in seconds since the epoch."""
        return {event: times for event, times in self._events.items() if times.last >= since}

    def forget(self, before: float) -> None:
        """Drop what happened last before this time."""
        self._events = self.held(before)

    def _add(self, event: Event, more: Times) -> None:
        if event not in self._events and len(self._events) >= MOST:
            event = event._replace(login=OTHERS, sender=OTHERS, client="", why="")
        times = self._events.get(event)
        if times is None:
            self._events[event] = Times(more.times, more.first, more.last)
        else:
            times.times += more.times
            times.first = min(times.first, more.first)
            times.last = max(times.last, more.last)
