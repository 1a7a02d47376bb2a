"""The text of a Postfix configuration file (pgsql_table(5), main.cf) as names, values and lines.

The rules are Postfix's: src/util/readlline.c joins a line that begins with white space to the one before
it and drops comments and blank lines even between the two; src/util/split_nameval.c splits at the first
`=` and trims blanks. There are no quotes, no inline comments and, in a table's file, no `$name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class CfError(ValueError):
    """A file that cannot be used; `problems` has a line for each reason, with file and line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Setting(NamedTuple):
    """A value and the line (1-based; 0 where there is none) its name stands on."""

    value: str
    line: int


# isspace(3) in the C locale, without which a NO-BREAK SPACE in a query would be trimmed.
_SPACE = " \t\n\r\v\f"
_NAME_VALUE = re.compile(r"([^\s=]+)\s*=(.*)", re.ASCII | re.DOTALL)


def logical_lines(text: str) -> Iterator[Setting]:
    """Yield each logical line with the number of its first physical line."""
    joined, first = "", 0
    for number, line in enumerate([*text.split("\n"), "end"], start=1):
        if not line.strip(_SPACE) or line.lstrip(_SPACE).startswith("#"):
            continue
        if joined and line[0] not in _SPACE:
            if joined[0] not in _SPACE:  # else it continues nothing, and Postfix drops it with a warning
                yield Setting(joined, first)
            joined = ""
        first = first if joined else number
        joined += line


def settings(text: str, name: str) -> dict[str, Setting]:
    """The settings of a file; of a name given twice, the last. Raises `CfError`."""
    found: dict[str, Setting] = {}
    problems: list[str] = []
    for line in logical_lines(text):
        match = _NAME_VALUE.fullmatch(line.value.strip(_SPACE))
        if match is None:
            # The line is not shown: it may be a password that lost its name.
            problems.append(f"{name}:{line.line}: not of the form name = value")
        else:
            found[match[1]] = Setting(match[2].strip(_SPACE), line.line)
    if problems:
        raise CfError(problems)
    return found
