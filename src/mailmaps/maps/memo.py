"""Requests as they came in, with the replies as they went out.

The rule: an entry stands for an answer out of memory that holds until its table forgets (`Table.steady`),
and goes when it does. So it alters no answer; it saves taking the bytes apart and putting them together.
"""

from __future__ import annotations

# Entries of each half, and bytes of one: together some ten megabytes of the usual requests.
MOST = 16_384
LONGEST = 1024


class Memo:
    """Bounded; when it is full, all of it goes: the keys that are asked again are back at once.

    What was not found has a half of its own, so that a dictionary attack evicts nobody.
    """

    __slots__ = ("_found", "_missing")

    def __init__(self) -> None:
        self._found: dict[bytes, bytes] = {}
        self._missing: dict[bytes, bytes] = {}

    def get(self, request: bytes) -> bytes | None:
        """The reply to the same bytes, if it is kept."""
        return self._found.get(request) or self._missing.get(request)

    def put(self, request: bytes, reply: bytes, *, found: bool) -> None:
        """Keep the reply to a request that is whole."""
        replies = self._found if found else self._missing
        if len(request) + len(reply) <= LONGEST:
            if len(replies) >= MOST:
                replies.clear()
            replies[request] = reply

    def clear(self) -> None:
        self._found.clear()
        self._missing.clear()
