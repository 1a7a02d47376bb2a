"""Reads the conditions of an EXPLAIN plan: which expression of a table is compared with what is asked for.

PostgreSQL writes a condition in its own canonical form (ruleutils.c), every operation in parentheses and,
with VERBOSE, every column with its table's alias: `((lower((m.username)::text) = 'x'::text) AND m.active)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_QUOTED = re.compile(r"E?'(?:[^'\\]|''|\\.)*'|\"(?:[^\"]|\"\")*\"")
_NAME = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
_COLUMN = re.compile(rf"(?<![\w\".])({_NAME})\.({_NAME})(?!\s*[\w\"$]*\()")
# What finds rows by an index: equality, and a pattern with a fixed beginning.
_OPERATORS = (" = ", " ~~ ")


class Comparison(NamedTuple):
    """`column` is an expression of one table alone (with its alias), `other` what it is compared with."""

    column: str
    operator: str
    other: str


def comparisons(condition: str, alias: str) -> list[Comparison]:
    """What a condition compares of the table with this alias, in the order it is written."""
    found = []
    for part in _parts(condition):
        for operator in _OPERATORS:
            if (at := _find(part, operator)) >= 0:
                left, right = part[:at], part[at + len(operator) :]
                if _is_of(left, alias) and _is_of(right, alias):
                    break  # of one row
                if _is_of(left, alias):
                    found.append(Comparison(_stripped(left), operator.strip(), right))
                elif operator == " = " and _is_of(right, alias):
                    found.append(Comparison(_stripped(right), "=", left))
                break
    return found


def without_alias(expression: str, alias: str) -> str:
    """The expression as CREATE INDEX wants it."""
    quoted = '"' + alias.replace('"', '""') + '"'
    prefix = re.compile(rf'(?<![\w".])(?:{re.escape(alias)}|{re.escape(quoted)})\.')
    pieces = re.split(r"(E?'(?:[^'\\]|''|\\.)*')", expression)  # what is in single quotes stays as it is
    return "".join(piece if n % 2 else prefix.sub("", piece) for n, piece in enumerate(pieces))


def has_or(condition: str) -> bool:
    """Whether one of several comparisons suffices, so that each needs its index."""
    return " OR " in _masked(condition)


def is_call(expression: str) -> bool:
    """Whether it is one function call, which CREATE INDEX takes without parentheses around it."""
    name = re.match(rf"(?:{_NAME}\.)?{_NAME}(?=\()", expression)
    return name is not None and _closing(expression[name.end() :]) == len(expression) - name.end() - 1


def _is_of(expression: str, alias: str) -> bool:
    names = {match[1].strip('"').replace('""', '"') for match in _COLUMN.finditer(_unquoted(expression))}
    return names == {alias}


def _unquoted(expression: str) -> str:
    """Without what stands in single quotes."""
    return re.sub(r"E?'(?:[^'\\]|''|\\.)*'", "''", expression)


def _masked(text: str) -> str:
    """Of the same length, with nothing in quotes."""
    return _QUOTED.sub(lambda match: "q" * len(match[0]), text)


def _parts(condition: str) -> Iterator[str]:
    """What AND and OR connect, at any depth."""
    condition = _stripped(condition)
    for word in (" AND ", " OR "):
        pieces = list(_split(condition, word))
        if len(pieces) > 1:
            for piece in pieces:
                yield from _parts(piece)
            return
    yield condition


def _split(text: str, word: str) -> Iterator[str]:
    start = 0
    while (at := _find(text, word, start)) >= 0:
        yield text[start:at]
        start = at + len(word)
    yield text[start:]


def _find(text: str, word: str, start: int = 0) -> int:
    """Where the word stands outside of parentheses and quotes; -1: nowhere."""
    depth = 0
    masked = _masked(text)
    for at in range(start, len(masked)):
        if masked[at] == "(":
            depth += 1
        elif masked[at] == ")":
            depth -= 1
        elif depth == 0 and masked.startswith(word, at):
            return at
    return -1


def _stripped(text: str) -> str:
    """Without parentheses around all of it."""
    text = text.strip()
    while text.startswith("(") and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closing(text: str) -> int:
    depth = 0
    for at, char in enumerate(_masked(text)):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    return -1
