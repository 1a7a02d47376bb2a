"""Finds the placeholders of a query and takes the query apart into SQL and the literals that hold them.

Postfix writes the key, escaped but without quotes, into the text of the query. Here a literal that holds
a placeholder, such as `'%s'`, `'@%d'` or `E'%u\\n'`, becomes one value of its own, so that it can be bound
and no key can end it. The text around stays word for word. Refused, because no value could stand there
safely: placeholders outside quotes, in identifiers, in dollar quotes, and several statements.

Lexical rules: PostgreSQL, "SQL Syntax", 4.1, with standard_conforming_strings on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mailmaps.maps.template import Piece, codes, pieces

# 'now', 'today 12:00' and their like are read when a statement is parsed, and would be frozen in a prepared
# one. (In a text that only speaks of now, it costs nothing but speed.)
_FROZEN = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A query: `texts` is one longer than `values`, and a value stands between each two texts.

    `codes` are the `%` codes of the whole query, comments included, as Postfix counts them. `words` are
    the identifiers outside quotes, lower-cased. `frozen` tells that a constant such as 'now' means the
    time of parsing; `backslashes`, that a literal without E holds one.
    """

    texts: tuple[str, ...]
    values: tuple[tuple[Piece, ...], ...]
    codes: frozenset[str]
    words: frozenset[str]
    frozen: bool
    backslashes: bool


class BadQuery(ValueError):
    """A query that cannot be run safely; the text says why and quotes the place."""


def split(query: str) -> Statement:
    """Take a query apart. Raises `BadQuery`, `mailmaps.maps.template.BadCode`."""
    return _Splitter(pieces(query)).split()


_NAME_START = re.compile(r"[A-Za-z_\u0080-\U0010ffff]")
_WORD = re.compile(r"[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*")
_DOLLAR_QUOTE = re.compile(r"\$(?:[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff]*)?\$")
_ESCAPE = re.compile(
    r"''|\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL
)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

# One character stands for a placeholder while the text is scanned; a private-use one that no query has.
_MARK = "\uf8ff"


@dataclass
class _Splitter:
    """Walks through the text once; `_codes` are the placeholders still to come, in order."""

    template: list[Piece]
    _texts: list[str] = field(default_factory=lambda: [""])
    _values: list[tuple[Piece, ...]] = field(default_factory=list)
    _words: set[str] = field(default_factory=set)
    _frozen: bool = False
    _backslashes: bool = False
    _ended: bool = False

    def split(self) -> Statement:
        self._codes = [piece.text for piece in self.template if piece.is_code]
        text = "".join(_MARK if piece.is_code else piece.text for piece in self.template)
        if text.count(_MARK) != len(self._codes) or "\0" in text:
            raise BadQuery("the query holds a character that SQL text cannot")
        position = 0
        while position < len(text):
            position = self._step(text, position)
        return Statement(
            tuple(self._texts),
            tuple(self._values),
            frozenset(codes(self.template)),
            frozenset(self._words),
            self._frozen,
            self._backslashes,
        )

    def _step(self, text: str, at: int) -> int:
        """Pass over what begins at `at` and return where the next thing begins."""
        char = text[at]
        if text.startswith("--", at) or text.startswith("/*", at):
            return self._comment(text, at)
        if self._ended and not char.isspace() and char != ";":
            raise BadQuery(f"more than one statement in one query, at: {_shown(text, at)}")
        if char == "'":
            return self._literal(text, at, at)
        if char == '"':
            return self._unsplit(text, at, text.find('"', at + 1), "a quoted identifier")
        if char == "$":
            return self._dollar(text, at)
        if char == ";":
            self._ended = True  # a trailing one is dropped
            return at + 1
        if char == _MARK:
            raise BadQuery(f"a placeholder outside quotes, at: {_shown(text, at)}")
        if _NAME_START.match(char):
            return self._word(text, at)
        self._texts[-1] += char
        return at + 1

    def _word(self, text: str, at: int) -> int:
        match = _WORD.match(text, at)
        assert match is not None  # its first character has been seen
        word = match[0].split(_MARK)[0]
        end = at + len(word)
        if text.startswith("'", end):
            if word in ("E", "e"):
                return self._literal(text, at, end)
            if word.upper() in ("B", "X"):
                return self._unsplit(text, at, text.find("'", end + 1), f"a {word}'' literal")
        if word.upper() == "U" and re.match(r"&['\"]", text[end : end + 2]):
            return self._unsplit(text, at, text.find(text[end + 1], end + 2), f"a {word}&'' literal")
        self._words.add(word.lower())
        # N'...' is a typed literal (scan.l, xnstart), which the long word leaves apart from its value.
        self._texts[-1] += "NCHAR " if word in ("N", "n") and text.startswith("'", end) else word
        return end

    def _literal(self, text: str, at: int, quote: int) -> int:
        """A '' or E'' literal from `at`, whose quote is at `quote`."""
        escapes = quote > at
        end = quote + 1
        while not text.startswith("'", end) or text.startswith("''", end):
            if end >= len(text):
                raise BadQuery(f"a quote that does not end, at: {_shown(text, at)}")
            end += 2 if text.startswith("''", end) or (escapes and text[end] == "\\") else 1
        inner = text[quote + 1 : end]
        self._backslashes = self._backslashes or (not escapes and "\\" in inner)
        content = _unescaped(inner) if escapes else inner.replace("''", "'")
        if _MARK in inner:
            self._values.append(self._template(content))
            self._texts.append("")
        else:
            self._frozen = self._frozen or _FROZEN.search(content) is not None
            self._texts[-1] += text[at : end + 1]
        return end + 1

    def _template(self, content: str) -> tuple[Piece, ...]:
        found: list[Piece] = []
        for index, part in enumerate(content.split(_MARK)):
            if index:
                found.append(Piece(self._codes.pop(0), True))
            if part:
                found.append(Piece(part, False))
        return tuple(found)

    def _unsplit(self, text: str, at: int, end: int, what: str) -> int:
        """Something that no placeholder may be in, from `at` to its last character at `end`."""
        if end < 0:
            raise BadQuery(f"{what} that does not end, at: {_shown(text, at)}")
        if _MARK in text[at:end]:
            raise BadQuery(f"a placeholder in {what}, at: {_shown(text, at)}")
        self._texts[-1] += text[at : end + 1]
        return end + 1

    def _dollar(self, text: str, at: int) -> int:
        match = _DOLLAR_QUOTE.match(text, at)
        if match is not None:
            end = text.find(match[0], match.end())
            return self._unsplit(
                text, at, end + len(match[0]) - 1 if end >= 0 else end, "a dollar-quoted literal"
            )
        if re.compile(r"\$\d").match(text, at):
            raise BadQuery(f"a parameter of a prepared statement, at: {_shown(text, at)}")
        self._texts[-1] += "$"
        return at + 1

    def _comment(self, text: str, at: int) -> int:
        """Comments go, placeholders and all; white space takes their place."""
        end = _end_of_line(text, at) if text[at] == "-" else _end_of_block_comment(text, at)
        if end < 0:
            raise BadQuery(f"a comment that does not end, at: {_shown(text, at)}")
        del self._codes[: text.count(_MARK, at, end)]
        self._texts[-1] += " "
        return end


def _end_of_line(text: str, at: int) -> int:
    match = re.compile(r"[\r\n]").search(text, at)
    return match.start() if match else len(text)


def _end_of_block_comment(text: str, at: int) -> int:
    level = 0
    for match in re.compile(r"/\*|\*/").finditer(text, at):
        level += 1 if match[0] == "/*" else -1
        if level == 0:
            return match.end()
    return -1


def _unescaped(inner: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[0] == "''":
            return "'"
        octal, byte, short, long, other = match.groups()
        number = int(octal, 8) if octal else int(byte or short or long or "0", 16)
        if octal or byte or short or long:
            if not 0 < number < 0x80 and not (short or long):
                raise BadQuery("a byte escape beyond ASCII beside a placeholder")
            return chr(number)
        return _CONTROLS.get(other, other)

    return _ESCAPE.sub(one, inner)


def _shown(text: str, at: int) -> str:
    # A query is no secret, the settings around it are.
    return text[max(0, at - 20) : at + 20].replace(_MARK, "%...")
