"""The addresses in a lookup result, found the way Postfix's RFC 822 parser finds them.

A port of src/global/tok822_parse.c, cut down to what mail_addr_crunch.c wants of it: the addresses,
in internal form. `a@b, c@d`, `a@b c@d`, `Name <a@b>`, `group: a@b, c@d;` and comments all work,
because Postfix accepts them in a `pgsql:` value.
"""

from __future__ import annotations

import re

from mailmaps.maps.address import quote_local_part

_SPACE = " \t\r\n"
_OPERATORS = '|%!()<>@,;:\\".[]'  # tok822_opchar; the backslash begins an atom all the same

_REWRITTEN = re.compile("[@%!]")  # what trivial-rewrite takes for the mark before or behind a domain

_WORD = "word"  # an atom, a quoted string or a domain literal
_COMMENT = "comment"
_Token = tuple[str, str]  # kind (_WORD, _COMMENT or the operator itself) and text


def addresses(value: str) -> list[str]:
    """List the addresses in `value`, in internal form and in order; empty when there is none."""
    return [_text(tokens) for tokens in _parse(value)]


def append_extension(value: str, extension: str, origin: str) -> str:
    """Put `extension` back into every address of `value` (mail_addr_crunch.c:108-128).

    Returns a comma-separated list in external form, empty when `value` holds no address. As in Postfix,
    an address without domain is completed *before* the extension goes in: a stranger writes the
    extension, and trivial-rewrite must not take its `%` or `!` for the address's own. `origin` is
    $myorigin. (What Postfix does with `user%domain@$myorigin` where that is local is allow_percent_hack's
    and resolve_dequoted_address's business, as with `pgsql:`.)
    """
    if _ONE_PLAIN(value):
        local, _, domain = value.rpartition("@")
        return _with_extension(local, domain, extension)
    return ",".join(_with_extension(*_complete(tokens, origin), extension) for tokens in _parse(value))


# One address, nearly always; there is nothing in it to take apart.
_ONE_PLAIN = re.compile(r"[\w#$&'*+./=?^`{}~-]+@[\w.-]+", re.ASCII).fullmatch


def _with_extension(local: str, domain: str, extension: str) -> str:
    extended = local + extension
    if domain:
        return f"{quote_local_part(extended)}@{domain}"
    # Postfix will append its own $myorigin, unless it sees a `@`, `%` or `!` outside quotes.
    return _quoted(extended) if _REWRITTEN.search(extended) else quote_local_part(extended)


def _complete(tokens: list[_Token], origin: str) -> tuple[str, str]:
    """rewrite_tree() of src/trivial-rewrite/rewrite.c: local part and domain of an address.

    With Postfix's defaults: swap_bangpath, allow_percent_hack and append_at_myorigin are `yes`.
    """
    kinds = [kind for kind, _ in tokens]
    if kinds[:1] == ["@"] and ":" in kinds[:-1]:
        tokens = tokens[kinds.index(":") + 1 :]  # a source route
        kinds = [kind for kind, _ in tokens]
    if "@" not in kinds and "!" in kinds:
        bang = kinds.index("!")
        return _text(tokens[bang + 1 :]), _text(tokens[:bang])
    for mark in ("@", "%"):
        if mark in kinds:
            last = len(kinds) - 1 - kinds[::-1].index(mark)
            return _text(tokens[:last]), _text(tokens[last + 1 :])
    return _text(tokens), origin


def _text(tokens: list[_Token]) -> str:
    return "".join(text for _, text in tokens)


def _quoted(local: str) -> str:
    return '"' + re.sub(r'(["\\\r])', r"\\\1", local) + '"'


def _parse(value: str) -> list[list[_Token]]:
    if value in ("", "<>"):
        return [[(_WORD, "")]]  # mail_addr_crunch.c: the null address
    return _Parser(_tokens(value)).addresses()


def _tokens(value: str) -> list[_Token]:
    """tok822_scan_limit(): words, comments and single-character operators."""
    tokens: list[_Token] = []
    position = 0
    while position < len(value):
        char = value[position]
        if char in _SPACE:
            position += 1
        elif char == "(":
            position = _skip_comment(value, position + 1)
            tokens.append((_COMMENT, ""))
        elif char == "[":
            text, position = _collect(value, position + 1, "]")
            tokens.append((_WORD, f"[{text}]"))
        elif char == '"':
            text, position = _collect(value, position + 1, '"')
            tokens.append((_WORD, text))
        elif char != "\\" and char in _OPERATORS:
            tokens.append((char, char))
            position += 1
        else:
            text, position = _collect_atom(value, position)
            tokens.append((_WORD, text))
    return tokens


def _collect(value: str, position: int, end: str) -> tuple[str, int]:
    """Collect a quoted string or domain literal; a missing end is forgiven, as in COLLECT_SKIP_LAST."""
    text: list[str] = []
    while position < len(value) and value[position] != end:
        position += value[position] == "\\"
        text.append(_blank(value[position : position + 1]))
        position += 1
    return "".join(text), position + 1


def _collect_atom(value: str, position: int) -> tuple[str, int]:
    text: list[str] = []
    while position < len(value):
        if value[position] == "\\":
            position += 1
        elif value[position] in _SPACE or value[position] in _OPERATORS:
            break
        text.append(_blank(value[position : position + 1]))
        position += 1
    return "".join(text), position


def _blank(char: str) -> str:
    return " " if char in _SPACE and char else char


def _skip_comment(value: str, position: int) -> int:
    level = 1
    while position < len(value):
        char = value[position]
        position += 2 if char == "\\" else 1
        level += {"(": 1, ")": -1}.get(char, 0)
        if level == 0:
            break
    return position


class _Parser:
    """tok822_parse_limit(): walks the tokens from right to left and groups words into addresses."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = [token for token in tokens if token[0] != _COMMENT]
        self._group: list[_Token] = []  # the tokens right of here, last first, not yet an address
        self._found: list[list[_Token]] = []  # last first

    def addresses(self) -> list[list[_Token]]:
        word_ok, group_ok = True, False
        while self._tokens:
            kind, text = self._tokens.pop()
            if kind == ";":
                self._flush()
                word_ok = group_ok = True
            elif kind == ":" and group_ok:
                self._flush()
                self._skip_phrase(",")
            elif kind == ">":
                self._flush()
                self._route_address()
                word_ok = True
            elif kind == ",":
                self._flush()
                word_ok = True
            else:
                if kind == _WORD and not word_ok:
                    self._flush()  # a missing comma
                self._group.append((kind, text))
                word_ok = kind != _WORD
        self._flush()
        return self._found[::-1]

    def _flush(self) -> None:
        if self._group:
            self._found.append(self._group[::-1])
            self._group = []

    def _route_address(self) -> None:
        """Take `<address>`, then pass over the name left of it."""
        while self._tokens:
            kind, text = self._tokens.pop()
            if kind == "<":
                break
            self._group.append((kind, text))
        self._flush()
        self._skip_phrase(">;,:")

    def _skip_phrase(self, ends: str) -> None:
        while self._tokens and self._tokens[-1][0] not in tuple(ends):
            self._tokens.pop()
