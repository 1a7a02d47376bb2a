"""The answers a lookup can give: there are three, and they never turn into each other.

`Unavailable` ("cannot say now") is an answer of its own: an outage must not become "no such user",
which bounces mail. Each protocol has its own words for the three: tcp_table(5) 200, 500 and 400,
socketmap_table(5) OK, NOTFOUND and TEMP.
"""

from __future__ import annotations

from dataclasses import dataclass

# Not frozen, although nobody changes them: each would cost three times as much, and there is one a lookup.


@dataclass(slots=True, unsafe_hash=True)
class Found:
    """The key is known; `value` (never empty) is what Postfix gets, before any
    quoting; bytes that are no UTF-8 are escaped in it (PEP 383)."""

    value: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The key is known to be absent."""


@dataclass(slots=True, unsafe_hash=True)
class Unavailable:
    """Nobody can say now; mail waits. `reason` is shown in Postfix's log and holds no secret."""

    reason: str


Answer = Found | NotFound | Unavailable

NOT_FOUND = NotFound()


class CannotSay(Exception):
    """Raised by a source that cannot answer now; the lookup becomes `Unavailable(str(error))`.

    `about_key`: the source is well and it is this key it has no answer for (a column cannot take it);
    the source has logged that itself.
    """

    def __init__(self, reason: str, *, about_key: bool = False) -> None:
        super().__init__(reason)
        self.about_key = about_key
