"""Manual pages taken apart again, without the code that made them."""

from __future__ import annotations

import re
from functools import cache

from mailmaps.manual.pages import render

_GLYPHS = {"(rs": "\\", "(aq": "'", "(ga": "`", "(ha": "^", "(ti": "~", "(dq": '"', "(lq": "“", "(rq": "”"}
_ESCAPE = re.compile(r"\\(?:f([BIR])|(\([a-z]{2})|\[u([0-9A-F]{4,6})\]|(.))")
# Fonts that alternate between arguments leave no blank between these.
_JOINED = {"BR", "RB", "BI", "IB", "IR", "RI"}


def plain(roff: str) -> str:
    """Roff without its macros as the text that is read."""

    def one(match: re.Match[str]) -> str:
        font, glyph, number, other = match.groups()
        if font or other in ("&", ":"):
            return ""
        return _GLYPHS[glyph] if glyph else chr(int(number, 16)) if number else {"~": " "}.get(other, other)

    return _ESCAPE.sub(one, roff.replace("\\\n", ""))


def arguments(line: str) -> list[str]:
    """A macro line's words, its name first."""
    return [
        plain(quoted or word)
        for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line[1:].replace("\\ ", "\\~"))
    ]


@cache
def sections(page: str) -> dict[str, str]:
    """What a page says in each section and subsection, by its header; tags are lines of their own."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in render(page).replace("\\\n", "").splitlines():
        words = arguments(line) if line.startswith(".") else []
        if words and words[0] in ("SH", "SS"):
            lines = found.setdefault(words[1], [])
        elif words and words[0] in _JOINED:
            lines.append("".join(words[1:]))
        elif words and words[0] in ("B", "I", "SY"):
            lines.append(" ".join(words[1:]))
        elif not line.startswith("."):
            lines.append(plain(line))
    return {header: "\n".join(lines) for header, lines in found.items()}


def examples(page: str) -> str:
    """The lines that are shown as they are."""
    found = re.findall(r"^\.EX\n(.*?)^\.EE$", render(page), re.MULTILINE | re.DOTALL)
    return plain("".join(found))


@cache
def tags(page: str) -> dict[str, list[str]]:
    """The tags of lists (TP and TQ), by the section or subsection they are in."""
    found: dict[str, list[str]] = {}
    header = before = ""
    for line in render(page).replace("\\\n", "").splitlines():
        if line.startswith((".SH", ".SS")):
            header = arguments(line)[1]
        if before.startswith((".TP", ".TQ")):
            words = arguments(line) if line.startswith(".") else []
            tag = ("" if words and words[0] in _JOINED else " ").join(words[1:]) if words else plain(line)
            found.setdefault(header, []).append(tag)
        before = line
    return found
