"""Counts how often each login sends as others, and says when that is worth a mail.

Pure: the time comes in by `clock` (seconds). A sliding hour, to the minute: sixty counters a login, so that
the memory is bounded whatever the threshold is (a login costs 2 KB with its examples, all together 20 MB).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable

from mailmaps.notices.notice import Notice, foreign_senders
from mailmaps.policy.texts import shown

MINUTES = 60
MOST_LOGINS = 10_000  # more at a time are an attack that a mail about each would not help
MOST_EXAMPLES = 5  # enough to see whether it is one wrong setting or many names


class ForeignSenders:
    """`threshold` times within an hour make a notice; 0: never."""

    def __init__(self, threshold: int, clock: Callable[[], float]) -> None:
        self._threshold = threshold
        self._clock = clock
        self._logins: OrderedDict[str, _Hour] = OrderedDict()

    def refused(self, login: str, sender: str, client: str) -> Notice | None:
        """`login` sent as `sender` from the address `client`. A notice when that was once too often.

        Of a login there is none again before an hour has passed.
        """
        if not self._threshold:
            return None
        now = self._clock()
        hour = self._hour(login)
        count = hour.add(int(now // 60))
        hour.examples.append((shown(sender), shown(client)))
        if count < self._threshold or (hour.said is not None and now - hour.said < MINUTES * 60):
            return None
        hour.said = now
        return foreign_senders(login, count, tuple(hour.examples))

    def __len__(self) -> int:
        """How many logins are remembered."""
        return len(self._logins)

    def _hour(self, login: str) -> _Hour:
        hour = self._logins.setdefault(login, _Hour())
        self._logins.move_to_end(login)
        if len(self._logins) > MOST_LOGINS:
            self._logins.popitem(last=False)
        return hour


class _Hour:
    """A ring of counters, one a minute, for the minutes up to `_last`."""

    __slots__ = ("_counts", "_last", "examples", "said")

    def __init__(self) -> None:
        self._counts = array("L", [0] * MINUTES)
        self._last = 0
        self.examples: deque[tuple[str, str]] = deque(maxlen=MOST_EXAMPLES)
        self.said: float | None = None

    def add(self, minute: int) -> int:
        """One more in this minute; how many there are in the hour that ends with it."""
        for passed in range(max(self._last + 1, minute - MINUTES + 1), minute + 1):
            self._counts[passed % MINUTES] = 0
        self._last = max(self._last, minute)
        self._counts[minute % MINUTES] += 1
        return sum(self._counts)
