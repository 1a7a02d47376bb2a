"""Watches which databases are away, and says when that lasts, and when it is over.

Pure: the daemon tells every few seconds what it knows (`look`), the time comes in by `clock` (seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mailmaps.notices.notice import Notice, database_away, database_back

# Seconds after which an outage that goes on is told again. The mailer lets one in notices.period through:
# without this, an outage that began within the period of the last one would never be told.
AGAIN = 3600.0


@dataclass(slots=True)
class _Outage:
    since: float
    said: float | None = None


class AwayWatch:
    """An outage of more than `after_seconds` without break makes a notice, its end another; 0: never."""

    def __init__(self, after_seconds: float, clock: Callable[[], float]) -> None:
        self._after = after_seconds
        self._clock = clock
        self._outages: dict[str, _Outage] = {}

    def look(self, states: Mapping[str, str | None]) -> list[Notice]:
        """What is to be told now. `states`: a database's name, and why it is away, or None while it is there.

        A name that is no longer in `states` (a reload took it out) is forgotten.
        """
        if not self._after:
            return []
        now = self._clock()
        for gone in self._outages.keys() - states.keys():
            del self._outages[gone]
        found = (self._look(name, why, now) for name, why in states.items())
        return [notice for notice in found if notice is not None]

    def _look(self, name: str, why: str | None, now: float) -> Notice | None:
        if why is None:
            outage = self._outages.pop(name, None)
            if outage is None or outage.said is None:
                return None
            return database_back(name, (now - outage.since) / 60)
        outage = self._outages.setdefault(name, _Outage(now))
        if now - outage.since <= self._after or (outage.said is not None and now - outage.said < AGAIN):
            return None
        outage.said = now
        return database_away(name, (now - outage.since) / 60, why)
