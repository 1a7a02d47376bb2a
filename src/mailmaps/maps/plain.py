"""The search for plain addresses, which nearly all are: in bytes, without taking them apart.

A key is plain when its candidates are itself and its `@domain` and nothing else, whatever the walk for
addresses it is: lower case, no quotes needed, no delimiter in it, no local domain. All else goes the long way
(`mailmaps.maps.search`); both give the same answer, which is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailmaps.maps.answer import NOT_FOUND, Answer, Found
from mailmaps.maps.mirrored import HeldRows
from mailmaps.maps.row_bytes import LONGEST_KEY
from mailmaps.maps.search import Rules

# RFC 5322 atext in lower case; with dots between them they need no quotes.
_ATEXT = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~"
_DOMAIN = "[a-z0-9._-]+"


class PlainSearch:
    """Answers out of the `rows` of a table's only source."""

    def __init__(self, rows: HeldRows, rules: Rules) -> None:
        self._rows = rows
        self._match = _plain_address(rules)
        local = (rules.myorigin.lower(), *rules.mydestination, *rules.local_addresses)
        self._local = frozenset(b"@" + domain.encode(errors="surrogateescape") for domain in local)

    def answer(self, key: bytes) -> Answer | None:
        """The answer, or None when it takes the long way to find it."""
        match = self._match(key)
        if match is None or len(key) > LONGEST_KEY or not self._rows.proven:
            return None
        domain = match[1]
        if domain in self._local or domain.endswith(b"."):
            return None
        get = self._rows.get
        row = get(key) or get(domain)
        if row is None:
            return NOT_FOUND
        if b"\0" in row or row.startswith(b"@") or b",@" in row:  # not plain text, or to be completed
            return None
        return Found(row.decode(errors="surrogateescape"))


def _plain_address(rules: Rules) -> Callable[[bytes], re.Match[bytes] | None]:
    """Match local part and `@domain` (the group), where there is no extension to cut off."""
    atext = "".join(re.escape(char) for char in _ATEXT if char not in rules.recipient_delimiter.lower())
    dots = "" if "." in rules.recipient_delimiter else f"(?:\\.[{atext}]+)*"
    return re.compile(f"[{atext}]+{dots}(@{_DOMAIN})".encode()).fullmatch
