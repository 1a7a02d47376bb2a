r"""The tokens of an address as Postfix scans it (src/global/tok822_parse.c): RFC 822, and `% ! |`.

White space between tokens goes away, but for one blank between two words; quotes and backslashes are gone
from a token's text. Postfix's rewriting works on these, not on the text: `"user@ site"` is `user@site` to it.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """What a token is."""

    ATOM = auto()
    QUOTED = auto()  # a quoted string, or an atom that needs quotes
    LITERAL = auto()  # [192.0.2.1]
    COMMENT = auto()
    OPERATOR = auto()  # one character of _OPERATORS


class Token(NamedTuple):
    """`text` is without the quotes or brackets, and unescaped; of a comment it is all there is."""

    kind: Kind
    text: str


_OPERATORS = r'|%!()<>@,;:".\[\]'  # and the backslash, where it is not the first of a pair
_SPACE = " \t\r\n"
_ENDS = _OPERATORS + r" \t\r\n"

# An end that is missing is the end of the text (COLLECT); a lone backslash there is dropped.
_TOKEN = re.compile(
    r'"(?P<quoted>(?:[^"\\]|\\.)*)(?:"|\\?\Z)'
    r"|\[(?P<literal>(?:[^]\\]|\\.)*)(?:]|\\?\Z)"
    r"|(?P<comment>\()"
    r"|(?P<operator>[|%!)<>@,;:.\]])"
    rf"|(?P<atom>(?:[^{_ENDS}\\]|\\.)+)(?:\\\Z)?"
    r"|(?P<lone>\\\Z)"
    r"|[ \t\r\n]+",
    re.DOTALL,
)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ATOM_NEEDS_QUOTES = re.compile(rf"[\x00-\x20\x7f{_OPERATORS}\\]")


def scan(text: str) -> list[Token]:
    """The tokens of an address in external form (tok822_scan)."""
    tokens: list[Token] = []
    position = 0
    while position < len(text) and (match := _TOKEN.match(text, position)):
        position = match.end()
        match match.lastgroup:
            case "quoted":
                tokens.append(Token(Kind.QUOTED, _unescaped(match["quoted"])))
            case "literal":
                tokens.append(Token(Kind.LITERAL, _unescaped(match["literal"])))
            case "comment":
                position = _end_of_comment(text, position)
                tokens.append(Token(Kind.COMMENT, text[match.start() : position]))
            case "operator":
                tokens.append(Token(Kind.OPERATOR, match["operator"]))
            case "atom" | "lone":
                atom = _unescaped(match["atom"] or "")
                kind = Kind.QUOTED if _ATOM_NEEDS_QUOTES.search(atom) else Kind.ATOM
                tokens.append(Token(kind, atom))
    return tokens


def text_of(tokens: list[Token]) -> str:
    """The address in internal form (tok822_internalize)."""
    parts: list[str] = []
    for place, token in enumerate(tokens):
        parts.append(f"[{token.text}]" if token.kind is Kind.LITERAL else token.text)
        if place + 1 < len(tokens) and _are_apart(token, tokens[place + 1]):
            parts.append(" ")
    return "".join(parts)


def joined(tokens: list[Token]) -> list[Token]:
    """The same without those blanks: tok822_append_space() puts none between tokens with an owner."""
    out: list[Token] = []
    for place, token in enumerate(tokens):
        out += [_JOINT, token] if place and _are_apart(tokens[place - 1], token) else [token]
    return out


def _are_apart(token: Token, following: Token) -> bool:
    """tok822_append_space()."""
    if _JOINT in (token, following):
        return False
    words = token.kind is not Kind.OPERATOR and following.kind is not Kind.OPERATOR
    return words or token == _COMMA or following == _BRACKET


_JOINT = Token(Kind.OPERATOR, "")
_COMMA, _BRACKET = Token(Kind.OPERATOR, ","), Token(Kind.OPERATOR, "<")


def _unescaped(text: str) -> str:
    return _PAIR.sub(r"\1", text).translate(_BLANKS)


_BLANKS = {ord(char): " " for char in _SPACE}


def _end_of_comment(text: str, position: int) -> int:
    """Where the comment ends whose `(` is before `position`; comments nest."""
    level = 1
    while position < len(text) and level:
        char = text[position]
        position += 2 if char == "\\" else 1
        level += {"(": 1, ")": -1}.get(char, 0)
    return min(position, len(text))
