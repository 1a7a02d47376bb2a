"""Repeats are held back: what happens a thousand times a second is said a few times, then counted.

Events are of one kind when their logger, level and constant text are the same; the fields do not matter.
Faults with a traceback are of one kind only if they happened at the same place, too. Of a kind, `BURST` lines
pass in `PERIOD` seconds from its first; of the others the last is said when the period is over, with their
number: `... repeated=1204 in=60s`. So nothing is new and unsaid, and no flood hides another kind.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from logging import LogRecord
from typing import NamedTuple

from mailmaps.logs.events import COUNTED, KIND

# Lines of a kind that pass in a period. More than there are tables, each of which says that it cannot say.
BURST = 20

# The same for kinds that people count (logins, refused senders). journald takes 10,000 lines of a service in
# 30 s and drops all others unseen (journald.conf(5), RateLimitBurst=): a flood of one kind must leave room.
COUNTED_BURST = 3000

# Seconds.
PERIOD = 60.0

# Kinds that are told apart. Ours are some hundred; a library may put what varies into its text.
MOST_KINDS = 1000


class Line(NamedTuple):
    """One event; `trace` is its traceback, or empty."""

    level: int
    text: str
    trace: str = ""


@dataclass(slots=True)
class _Kind:
    """`until` on the clock; `last` is what was held back last."""

    until: float
    passed: int = 0
    held: int = 0
    last: Line | None = None


class Repeats:
    """Not thread-safe: who calls has a lock. Times are those of any clock that only goes on."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def passes(self, record: LogRecord, line: Line, now: float) -> bool:
        """Whether the line is to be written; if not it is held back. `over(now)` comes before."""
        kind = self._kind(record, now)
        if kind.passed < (COUNTED_BURST if getattr(record, COUNTED, False) else BURST):
            kind.passed += 1
            return True
        kind.held += 1
        kind.last = line
        return False

    def over(self, now: float) -> Iterator[Line]:
        """What was held back and is to be said by now."""
        while self._kinds:  # periods are of one length, so those that began first end first
            key, kind = next(iter(self._kinds.items()))
            if kind.until > now:
                return
            del self._kinds[key]
            if kind.last is not None:
                text = f"{kind.last.text} repeated={kind.held} in={PERIOD:.0f}s"
                yield kind.last._replace(text=text)

    def rest(self) -> Iterator[Line]:
        """The same for all that is held back: nothing more will come."""
        return self.over(float("inf"))

    @property
    def next_at(self) -> float | None:
        """When something has to be said if nothing more happens; None: there is nothing."""
        return min((kind.until for kind in self._kinds.values() if kind.held), default=None)

    def _kind(self, record: LogRecord, now: float) -> _Kind:
        key: Hashable = (record.name, record.levelno, str(record.msg), _place(record))
        if key not in self._kinds and len(self._kinds) >= MOST_KINDS:
            key = (record.name, record.levelno)
        return self._kinds.setdefault(key, _Kind(now + PERIOD))


def _place(record: LogRecord) -> object:
    """Where a fault of ours happened."""
    if record.exc_info and record.exc_info[0]:
        error, _, tb = record.exc_info
        last = traceback.extract_tb(tb, limit=-1)
        return (error.__name__, last[0].filename, last[0].lineno) if last else error.__name__
    return getattr(record, KIND, None)
