"""At most one mail about a subject in a period.

Pure: the time comes in by `clock` (seconds). What was mailed is remembered for `MOST` subjects; the oldest
goes, so that a flood of names costs memory to a bound, and then at worst a second mail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mailmaps.notices.notice import Notice

# More subjects than a site has logins that are in trouble at once; 2 MB when full.
MOST = 10_000


class OnceAPeriod:
    """`passes` says whether a notice is due, `remember` that it is on its way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def passes(self, notice: Notice, period: float) -> bool:
        """Whether nothing was told about this subject for `period` seconds."""
        told = self._told.get((notice.kind, notice.about))
        return told is None or self._clock() - told >= period

    def remember(self, notice: Notice) -> None:
        """This notice is told now."""
        self._set((notice.kind, notice.about))
        if notice.kind == "database":
            # Who was told that it is away is told that it is back, however soon after the last "back".
            self._told.pop(("back", notice.about), None)

    def _set(self, subject: tuple[str, str]) -> None:
        self._told[subject] = self._clock()
        self._told.move_to_end(subject)
        if len(self._told) > MOST:
            self._told.popitem(last=False)
