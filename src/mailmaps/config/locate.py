"""Finds the line of a setting in TOML text, because neither tomllib nor pydantic knows it.

Best effort by design: it reads table headers and `key =` at the start of lines, passes over multi-line
strings and arrays, and returns the line of the nearest enclosing table when the key itself is not
found that way (a key inside an inline table).
"""

from __future__ import annotations

import re
import tomllib

_HEADER = re.compile(r"\s*\[\[?\s*([^\]\[]+?)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")

Path = tuple[str, ...]


def line_of(text: str, path: Path) -> int | None:
    """Return the 1-based line that sets `path` (as ("cache", "ttl")), or that of its table, or None."""
    lines = {header: line for line, header in _headers(text)} | {
        found: first for found, (first, _) in assignments(text).items()
    }
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def assignments(text: str) -> dict[Path, tuple[int, int]]:
    """The first and last line (1-based) of each setting's first assignment, by its path."""
    found: dict[Path, tuple[int, int]] = {}
    table: Path = ()
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        if header := _HEADER.match(lines[number]):
            table = _parts(header[1])
        elif assignment := _ASSIGNMENT.match(lines[number]):
            last = _last_line(lines, number, assignment.end())
            found.setdefault(table + _parts(assignment[1]), (number + 1, last + 1))
            number = last
        number += 1
    return found


def _headers(text: str) -> list[tuple[int, Path]]:
    inside = {line for first, last in assignments(text).values() for line in range(first + 1, last + 1)}
    matches = ((number, _HEADER.match(line)) for number, line in enumerate(text.splitlines(), 1))
    return [(number, _parts(match[1])) for number, match in matches if match and number not in inside]


def _last_line(lines: list[str], first: int, start: int) -> int:
    """The index of the line in which the value that begins in line `first` ends."""
    value = lines[first][start:].lstrip()
    last = first
    if value.startswith(("[", '"""', "'''")):
        while last + 1 < len(lines) and not _complete(value):
            last += 1
            value += "\n" + lines[last]
    return last


def _complete(value: str) -> bool:
    try:
        tomllib.loads("value = " + value)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
