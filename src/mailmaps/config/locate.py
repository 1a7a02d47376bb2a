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
    lines = _lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _lines(text: str) -> dict[Path, int]:
    found: dict[Path, int] = {}
    table: Path = ()
    pending = ""
    for number, line in enumerate(text.splitlines(), 1):
        if pending:
            pending = _still_open(pending + "\n" + line)
            continue
        if header := _HEADER.match(line):
            table = _parts(header[1])
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(table + _parts(assignment[1]), number)
            pending = _still_open("value =" + line[assignment.end() :])
    return found


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _still_open(assignment: str) -> str:
    """Return the assignment if its value goes on in the next line, else nothing."""
    value = assignment.partition("=")[2].lstrip()
    if not value.startswith(("[", '"""', "'''")):
        return ""
    try:
        tomllib.loads(assignment)
    except tomllib.TOMLDecodeError:
        return assignment
    return ""
