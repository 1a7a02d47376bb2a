"""The sentences that people read when mail is refused: one line of text with a few fields.

The rule they keep: what was loaded can be sent. A text is checked when it is read (fields, line ends,
length), and what is put in for a field, which may be anything that a client said, becomes printable and
short.
"""

from __future__ import annotations

import string

# Characters. smtpd(8) cuts a reply at 510 bytes (smtpd_check.c:1138), and puts the address in front of it.
LONGEST_TEXT = 250
LONGEST_FIELD = 100


def check_text(text: str, fields: tuple[str, ...]) -> str:
    """The text as it will be used: one line, `{field}` only of `fields`. Raises `ValueError`."""
    line = " ".join(text.split())
    if not line:
        raise ValueError("the text is empty")
    if len(line) > LONGEST_TEXT:
        raise ValueError(f"the text is longer than {LONGEST_TEXT} characters")
    if not line.isprintable():
        raise ValueError("the text has characters that cannot be printed")
    try:
        parts = list(string.Formatter().parse(line))
    except ValueError:
        raise ValueError("the text has a single { or }; write {{ or }}") from None
    known = ", ".join(f"{{{field}}}" for field in fields)
    for _, name, form, conversion in parts:
        if name is not None and (name not in fields or form or conversion):
            raise ValueError(f"the text has a field that there is not; there are {known}")
    return line


def fill(text: str, **fields: str) -> str:
    """The text with its fields; `text` is one that `check_text` gave."""
    return text.format(**{name: shown(value) for name, value in fields.items()})


def shown(value: str) -> str:
    """A value of a client for people and logs: printable, well-formed, bounded."""
    printable = "".join(
        char if char.isprintable() and not "\ud800" <= char <= "\udfff" else "?" for char in value
    )
    return printable if len(printable) <= LONGEST_FIELD else printable[:LONGEST_FIELD] + "..."
