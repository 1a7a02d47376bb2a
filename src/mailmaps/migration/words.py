"""Values of main.cf as Postfix splits them: at commas and white space, but not inside braces.

The rule is mystrtokq() with CHARS_COMMA_SP and CHARS_BRACE (src/util/mystrtok.c, global/maps.c:170).
What stands between the words is kept, so that a value can be put together again as its owner wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SEPARATOR = re.compile(r"[,\s]*")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a value: as it is written, what `$name` in it expands to, and what stands before it."""

    raw: str
    expanded: tuple[str, ...]
    before: str = ""


def split(value: str) -> list[tuple[str, str]]:
    """The words of a value, each with the separator before it."""
    found: list[tuple[str, str]] = []
    position = 0
    while True:
        separator = _SEPARATOR.match(value, position)
        assert separator is not None  # it may be empty
        start = position = separator.end()
        if position >= len(value):
            return found
        position = _end_of_word(value, position)
        found.append((separator[0], value[start:position]))


def texts(value: str) -> tuple[str, ...]:
    """The words of a value alone."""
    return tuple(text for _, text in split(value))


def _end_of_word(value: str, position: int) -> int:
    depth = 0
    while position < len(value):
        char = value[position]
        if depth == 0 and (char == "," or char.isspace()):
            break
        depth += {"{": 1, "}": -1}.get(char, 0)
        position += 1
    return position


@dataclass(frozen=True, slots=True)
class Map:
    """A word that names a table: `pgsql:/etc/postfix/a.cf`, with `proxy:` before it or not."""

    type: str
    name: str
    proxied: bool

    @property
    def source(self) -> str:
        """The table without `proxy:`, as mailmaps.toml names it."""
        return f"{self.type}:{self.name}"


_MAP = re.compile(r"(proxy:)?([a-z][a-z0-9_]*):(.+)", re.DOTALL)


def map_of(word: str) -> Map | None:
    """The table that a word names, or None when it names none (a restriction, a domain, a list in braces)."""
    match = _MAP.fullmatch(word)
    return None if match is None else Map(match[2], match[3], bool(match[1]))


def is_pgsql(word: str) -> bool:
    """Whether a word is a `pgsql:` table and nothing else."""
    found = map_of(word)
    return found is not None and found.type == "pgsql"


def mentions_pgsql(text: str) -> bool:
    """Whether a `pgsql:` table is somewhere in it, inside braces too."""
    return re.search(r"(?<![\w.-])pgsql:", text) is not None
