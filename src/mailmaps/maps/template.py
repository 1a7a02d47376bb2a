"""The `%` codes of pgsql_table(5), in `query` and `result_format` (src/global/db_common.c).

`%s` `%u` `%d` stand for the key (in a query) or for the value (in a result_format), `%S` `%U` `%D` and
`%1` to `%9` always for the key, `%%` for `%`. What a key lacks suppresses the query silently: see `Needs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

CODES = "sudSUD123456789"


class Piece(NamedTuple):
    """Literal text, or a code ("u" for `%u`)."""

    text: str
    is_code: bool


class BadCode(ValueError):
    """An unknown `%` code, or a lone `%` at the end: fatal when Postfix opens the table."""


def pieces(text: str) -> list[Piece]:
    """Split a template. Raises `BadCode`. Pieces of literal text are one character each or more."""
    found: list[Piece] = []
    position = 0
    while position < len(text):
        at = text.find("%", position)
        if at < 0:
            found.append(Piece(text[position:], False))
            break
        if at > position:
            found.append(Piece(text[position:at], False))
        code = text[at + 1 : at + 2]
        if code == "%":
            found.append(Piece("%", False))
        elif code and code in CODES:
            found.append(Piece(code, True))
        else:
            raise BadCode(f"%{code} is no code of pgsql_table(5)" if code else "a lone % at the end")
        position = at + 2
    return found


def codes(template: Iterable[Piece]) -> set[str]:
    """The codes that occur in a template."""
    return {piece.text for piece in template if piece.is_code}


def expand(template: Iterable[Piece], parts: Mapping[str, str]) -> str:
    """Put `parts` (by code) into a template."""
    return "".join(parts[piece.text] if piece.is_code else piece.text for piece in template)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a key must have, or nothing is asked (db_common.c:190-252, 336-391).

    Both templates count together: `%U` in the result_format keeps `@domain` from the query too.
    """

    user: bool
    domain: bool
    labels: int

    @classmethod
    def of(cls, query: set[str], result: set[str]) -> Needs:
        """The needs of a table whose query and result_format have these codes."""
        labels = [int(code) for code in query | result if code.isdigit()]
        return cls(
            user="u" in query or "U" in query | result,
            domain="d" in query or "D" in query | result or bool(labels),
            labels=max(labels, default=0),
        )


def key_parts(key: str, needs: Needs) -> dict[str, str] | None:
    """What each code stands for in a query, or None when this key is not asked for."""
    user, at, domain = key.rpartition("@")
    if (needs.domain and not domain) or (needs.domain and not at) or (needs.user and at and not user):
        return None
    if not at:
        user, domain = key, ""
    labels = [label for label in domain.split(".") if label]  # argv_split() skips empty ones
    if len(labels) < needs.labels:
        return None
    parts = {"s": key, "u": user, "d": domain, "S": key, "U": user, "D": domain}
    parts.update((str(n), labels[-n]) for n in range(1, needs.labels + 1))
    return parts


def value_parts(value: str, key: Mapping[str, str], result: set[str]) -> dict[str, str] | None:
    """What each code stands for in a result_format, or None when this value is passed over."""
    user, at, domain = value.rpartition("@")
    if ("d" in result and not (at and domain)) or ("u" in result and at and not user):
        return None
    return {**key, "s": value, "u": user if at else value, "d": domain}
