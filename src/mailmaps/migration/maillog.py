"""Recipients, senders and clients out of the lines that Postfix logs.

    postfix/smtp[1]: 4XyZ: to=<a@example.com>, orig_to=<"b c"@example.com>, relay=...
    postfix/qmgr[1]: 4XyZ: from=<s@example.org>, size=1, nrcpt=1 (queue active)
    postfix/smtpd[1]: NOQUEUE: reject: RCPT from mx.example.org[192.0.2.1]: 550 ...; from=<s@...> to=<a@...>

A `>` inside a quoted local part is part of the address. What Postfix could not print is `?` in the log
(src/util/printable.c), and is then taken as `?`.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

_ADDRESS = re.compile(r'\b(?:orig_to|to|from)=<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
# Where a quote has no end (a long address is cut in the log), the next `>` ends it.
_BROKEN = re.compile(r"\b(?:orig_to|to|from)=<([^>]*)>")
_CLIENT = re.compile(
    r"(?:\b(?:connect|RCPT|MAIL|EHLO|HELO|CONNECT|DATA) from |\bclient=)([\w.-]+)\[([0-9A-Fa-f:.]+)\]"
)
_HELO = re.compile(r"\bhelo=<([^<>]*)>")


class Found(NamedTuple):
    """What a line names. Addresses are as logged; the null sender is an empty one."""

    addresses: list[str]
    hosts: list[str]


def read_line(line: str) -> Found:
    """Everything in one line that a table may be asked."""
    addresses = [_ADDRESS.match(line, at) or _BROKEN.match(line, at) for at in _starts(line)]
    clients = [part for match in _CLIENT.finditer(line) for part in match.groups() if part != "unknown"]
    helo = [match[1] for match in _HELO.finditer(line) if match[1]]
    return Found([match[1] for match in addresses if match is not None], clients + helo)


def _starts(line: str) -> Iterator[int]:
    """Where addresses begin, without looking inside one for the next."""
    position = 0
    while (begin := _BEGIN.search(line, position)) is not None:
        yield begin.start()
        match = _ADDRESS.match(line, begin.start())
        position = match.end() if match is not None else begin.end()


_BEGIN = re.compile(r"\b(?:orig_to|to|from)=<")


def read(path: Path) -> Iterator[Found]:
    """The lines of a log, `.gz` or not. Raises `OSError`, `EOFError`, `zlib.error`."""
    with _open(path) as lines:
        yield from map(read_line, lines)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape")
    return path.open(encoding="utf-8", errors="surrogateescape")
