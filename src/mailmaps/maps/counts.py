"""How the lookups of a table went, in plain integers: what `mailmaps.metrics` and `mailmaps status` show.

Counted where a reply is made, so that every answer counts once; a hit costs one addition. They live as long
as the daemon: a reload goes on counting.
"""

from __future__ import annotations

from bisect import bisect_left

from mailmaps.maps.answer import Answer, Found, NotFound

# Upper bounds in seconds: a query by index takes 0.1 ms, a deadline is 5 s.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LookupCounts:
    """Of one table. `misses` are the lookups that had to ask a source; `stale` those that were answered with
    what was held once, while nobody could say whether it still holds.
    """

    __slots__ = ("_hits", "buckets", "cannot_say", "found", "misses", "not_found", "seconds", "stale")

    def __init__(self) -> None:
        self.found = self.not_found = self.cannot_say = 0
        self.misses = self.stale = 0
        self.seconds = 0.0  # of all misses
        self.buckets = [0] * (len(BOUNDS) + 1)  # misses by their time, each in one bucket
        self._hits = 0

    def answered(self, answer: Answer) -> None:
        """A reply goes out."""
        if type(answer) is Found:
            self.found += 1
        elif type(answer) is NotFound:
            self.not_found += 1
        else:
            self.cannot_say += 1

    def missed(self, seconds: float) -> None:
        """A source has been asked, and has answered or failed, after that time."""
        self.misses += 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1

    @property
    def hits(self) -> int:
        """Lookups that memory answered. Never less than before: a miss counts before its reply does."""
        self._hits = max(self._hits, self.found + self.not_found + self.cannot_say - self.misses)
        return self._hits

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status` and the metrics."""
        return {
            "found": self.found,
            "not_found": self.not_found,
            "cannot_say": self.cannot_say,
            "hits": self.hits,
            "misses": self.misses,
            "stale": self.stale,
            "seconds": self.seconds,
            "buckets": list(self.buckets),
        }
