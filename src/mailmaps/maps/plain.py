"""The search for plain addresses, which nearly all are: in bytes, without taking them apart.

A key is plain when its candidates are itself and its `@domain` and nothing else, whatever the walk for
addresses it is: lower case, no quotes needed, no delimiter in it, no local domain. All else goes the long way
(`mailmaps.maps.search`); both ask the same and give the same answer, which is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailmaps.maps.answer import NOT_FOUND, Answer, Found
from mailmaps.maps.mirrored import HeldRows
from mailmaps.maps.row_bytes import LONGEST_KEY
from mailmaps.maps.search import Question, Rules

# RFC 5322 atext in lower case; with dots between them they need no quotes.
_ATEXT = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~"
_DOMAIN = "[a-z0-9._-]*[a-z0-9_-]"  # one that ends with a dot is another's name

_NOT_STRIPPED = (False, False)


class PlainAddresses:
    """Tells which keys are plain under `rules`."""

    def __init__(self, rules: Rules) -> None:
        self._match = _plain_address(rules)
        local = (rules.myorigin.lower(), *rules.mydestination, *rules.local_addresses)
        self._local = frozenset(b"@" + domain.encode(errors="surrogateescape") for domain in local)

    def domain(self, key: bytes) -> bytes | None:
        """The `@domain` of a plain address, None of another key."""
        match = self._match(key)
        return match[1] if match is not None and match[1] not in self._local else None

    def question(self, key: bytes) -> Question | None:
        """What a plain address asks, None of another key."""
        domain = self.domain(key)
        if domain is None:
            return None
        address, at_domain = key.decode("ascii"), domain.decode("ascii")
        return Question((address, at_domain), _NOT_STRIPPED, address[: -len(at_domain)])


class PlainSearch:
    """Answers out of the `rows` of a table's only source."""

    def __init__(self, rows: HeldRows, addresses: PlainAddresses) -> None:
        self._rows = rows
        self._domain = addresses.domain

    def answer(self, key: bytes) -> Answer | None:
        """The answer, or None when it takes the long way to find it."""
        domain = self._domain(key)
        if domain is None or len(key) > LONGEST_KEY or not self._rows.proven:
            return None
        get = self._rows.get
        row = get(key) or get(domain)
        if row is None:
            return NOT_FOUND
        if row.find(b"\0") >= 0 or row.startswith(b"@") or row.find(b",@") >= 0:
            return None  # not plain text, or with targets to be completed (`in` is slower than `find`)
        return Found(row.decode(errors="surrogateescape"))


def _plain_address(rules: Rules) -> Callable[[bytes], re.Match[bytes] | None]:
    """Match local part and `@domain` (the group), where there is no extension to cut off."""
    atext = "".join(re.escape(char) for char in _ATEXT if char not in rules.recipient_delimiter.lower())
    dots = "" if "." in rules.recipient_delimiter else f"(?:\\.[{atext}]+)*"
    return re.compile(f"[{atext}]+{dots}(@{_DOMAIN})".encode()).fullmatch
