"""Plain text to man(7) source, as groff_man(7) and mandoc's man(7) both read it.

Contract: what goes in is text, what comes out shows exactly that text: every hyphen is `\\-` (a command line
is copied from a page), quotes and backslashes are escaped, nothing begins a line as a control character, and
what is not ASCII becomes `\\[uXXXX]`, which needs no preconv(1). Lines are short, and each sentence begins
one (`mandoc -Tlint`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# Bytes of a source line; mandoc notes longer ones than 80.
WIDTH = 78

# What a line of a page has for text in a subsection.
COLUMNS = 70

_ESCAPES = {
    "\\": "\\(rs",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    "\N{NO-BREAK SPACE}": "\\ ",
}

# `code`, or the name of a page with its section: postmap(1).
_MARKED = re.compile(r"`([^`]+)`|\b([A-Za-z][\w.-]*[\w])(\([1-8]\))")

# The blank between two sentences. What stands before "." there is no abbreviation of ours.
_SENTENCES = re.compile(r'(?:(?<=[A-Za-z0-9)`"\]>:][.!?])|(?<=[a-z0-9][.!?][")])) +(?=["`(<]?[A-Z])')


def escape(text: str) -> str:
    """`text` as it is to be seen, wherever it stands in a line but in a macro's quoted argument."""
    return "".join(
        _ESCAPES.get(char) or (char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text
    )


def argument(text: str) -> str:
    """`text` as one argument of a macro."""
    return '"' + escape(text).replace('"', "\\(dq") + '"'


def bold(text: str) -> str:
    """`text` in bold."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """`text` underlined."""
    return f"\\fI{escape(text)}\\fR"


def marked(text: str, variables: Collection[str] = ()) -> str:
    """One line of roff: `code` and names of pages bold, the words in `variables` underlined."""
    found, end = [], 0
    for match in _MARKED.finditer(text):
        found.append(_variables(text[end : match.start()], variables))
        code, page, section = match.groups()
        found.append(bold(code) if code else bold(page) + section)
        end = match.end()
    found.append(_variables(text[end:], variables))
    return "".join(found)


def _variables(text: str, variables: Collection[str]) -> str:
    if not variables:
        return escape(text)
    words = "|".join(re.escape(word) for word in sorted(variables, key=len, reverse=True))
    parts = re.split(rf"(?<![\w$])({words})(?!\w)", text)
    return "".join(italic(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def filled(text: str, variables: Collection[str] = ()) -> list[str]:
    """The source lines of one paragraph of plain text; its own line ends do not count."""
    lines: list[str] = []
    for sentence in _SENTENCES.split(" ".join(text.split(" ")).replace("\n", " ")):
        line = ""
        for word in marked(sentence, variables).split():
            if line and len(line) + 1 + len(word) > WIDTH:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
        lines.append(line)
    return [_no_macro(line) for line in lines if line]


def _no_macro(line: str) -> str:
    """A line of text never begins with a control character; "'" is escaped anyway."""
    return f"\\&{line}" if line.startswith(".") else line


def split(line: str, columns: int) -> str:
    """A line of roff that goes on in another line of the source after each `|` where it is long.

    `columns` is what it takes in a page; where that is more than a line has, the page may go on there too.
    """
    if len(line) <= WIDTH:
        return line
    return line.replace("|", "|\\:\\\n" if columns > COLUMNS else "|\\\n")


def example(lines: Iterable[str]) -> list[str]:
    """Lines that are shown as they are, indented."""
    return [".sp", ".RS 4", ".EX", *(_no_macro(escape(line)) for line in lines), ".EE", ".RE"]


def item(tag: str, body: list[str], *more_tags: str) -> list[str]:
    """An entry of a list. `tag` and `more_tags` are roff lines that share the body, which may be empty."""
    lines = [".TP", _no_macro(tag)]
    for more in more_tags:
        lines += [".TQ", _no_macro(more)]
    return lines + (body or ["\\&"])


def close(items: list[list[str]]) -> list[str]:
    """A list without empty lines between its items."""
    first, rest = items[:1], items[1:]
    return [line for one in first for line in one] + [".PD 0", *(line for one in rest for line in one), ".PD"]
