"""Requests as they came in, with the replies as they went out.

The rule: an entry stands for an answer out of memory that holds until its table forgets (`Table.steady`),
and goes when it does. So it alters no answer; it saves taking the bytes apart and putting them together.
"""

from __future__ import annotations

from mailmaps.maps.counts import LookupCounts

# Entries of each half, and bytes of one: together some ten megabytes of the usual requests.
MOST = 16_384
LONGEST = 1024


class Memo:
    """Bounded; when it is full, all of it goes: the keys that are asked again are back at once.

    What was not found has a half of its own, so that a dictionary attack evicts nobody.
    """

    __slots__ = ("_found", "_missing")

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[bytes, LookupCounts]] = {}
        self._missing: dict[bytes, tuple[bytes, LookupCounts]] = {}

    def get(self, request: bytes) -> bytes | None:
        """The reply to the same bytes, if it is kept; it is counted as given."""
        if (kept := self._found.get(request)) is not None:
            kept[1].found += 1
            return kept[0]
        if (kept := self._missing.get(request)) is not None:
            kept[1].not_found += 1
            return kept[0]
        return None

    def put(self, request: bytes, reply: bytes, counts: LookupCounts, *, found: bool) -> None:
        """Keep the reply to a request that is whole; `counts` are its table's."""
        replies = self._found if found else self._missing
        if len(request) + len(reply) <= LONGEST:
            if len(replies) >= MOST:
                replies.clear()
            replies[request] = (reply, counts)

    def clear(self) -> None:
        self._found.clear()
        self._missing.clear()
