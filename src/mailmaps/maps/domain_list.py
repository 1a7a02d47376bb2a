"""The `domain` filter of pgsql_table(5): keys of other domains are never asked for.

A list of names, `!name` and `/file/name` (src/util/match_list.c): the first that matches decides, exact
and case-folded, and a list of exclusions only matches nothing (src/global/db_common.c:526-540).
`type:table` in it is refused, since nobody but Postfix can look there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from mailmaps.maps.address import fold
from mailmaps.maps.cf_text import logical_lines


class _Pattern(NamedTuple):
    name: str
    matches: bool


class DomainList:
    """A parsed list; `passes` tells whether a key may be asked."""

    def __init__(self, patterns: str, read_file: Callable[[str], str]) -> None:
        """Raises `ValueError` saying which entry cannot be used, `OSError` from `read_file`."""
        self._patterns = list(_parse(patterns, read_file, True, ()))

    def passes(self, key: str) -> bool:
        """A key without `@`, or with its only one in front (a catch-all), never passes."""
        before, at, domain = key.rpartition("@")
        if not at or not before:
            return False
        domain = fold(domain)
        return next((pattern.matches for pattern in self._patterns if pattern.name == domain), False)


def _parse(
    text: str, read_file: Callable[[str], str], matches: bool, inside: tuple[str, ...]
) -> list[_Pattern]:
    found: list[_Pattern] = []
    for word in filter(None, re.split(r"[, \t\r\n]+", text)):
        name = word.lstrip("!")
        wanted = matches == ((len(word) - len(name)) % 2 == 0)
        if not name:
            raise ValueError("no name after '!'")
        if name.startswith("/"):
            found += _parse_file(name, read_file, wanted, inside)
        elif name.startswith(("{", "#")):
            raise ValueError(f"{name}: neither braces nor comments after other text belong here")
        elif ":" in name and not name.startswith("["):
            raise ValueError(f"{name}: mailmaps cannot ask a table in this list; name the domains or a /file")
        else:
            found.append(_Pattern(fold(name), wanted))
    return found


def _parse_file(
    name: str, read_file: Callable[[str], str], matches: bool, inside: tuple[str, ...]
) -> list[_Pattern]:
    if name in inside:
        raise ValueError(f"{name} names itself")
    lines = logical_lines(read_file(name))
    return [item for line in lines for item in _parse(line.value, read_file, matches, (*inside, name))]
