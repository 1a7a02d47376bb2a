"""tcp_table(5): one question a line, one answer a line, one table a port.

    get KEY LF             ->  200 VALUE LF  |  500 TEXT LF  |  400 TEXT LF

KEY, VALUE and TEXT have `%`, white space, control and non-ASCII bytes written as %XX. The client
(src/util/dict_tcp.c) reads at most 4096 bytes, decodes the text of every reply, and takes a reply
without its blank, or with a stray `%`, for trouble; so `500 ` keeps its blank and texts are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from mailmaps.logs import events
from mailmaps.maps.answer import Answer, Found, NotFound
from mailmaps.protocols.request import ProtocolError, Request, reason_bytes

log = events(__name__)

# dict_tcp.c:111 DICT_TCP_MAXLEN, the line end included.
LONGEST_REPLY = 4096

# The client has no limit. An SMTP line has 2048 bytes (line_length_limit), three times that when all
# are quoted; results of an alias expansion are looked up again and have at most 1000.
LONGEST_LINE = 16 * 1024

_UNSAFE = re.compile(rb"[^!-$&-~]")  # printable ASCII without blank and `%` goes out as it is
_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_WHOLE_LINE = re.compile(rb"get [!-$&-~]*\n").fullmatch
_QUOTED_BYTE = re.compile(rb"%([0-9A-Fa-f]{2})")


def quote(value: bytes) -> bytes:
    """Write `%`, white space, control and non-ASCII bytes as %XX (src/util/hex_quote.c:63-78)."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], value)


def unquote(text: bytes) -> bytes | None:
    """Undo `quote`, reading hex digits of either case; None when a `%` is not followed by two."""
    if b"%" not in text:
        return text
    if _STRAY_PERCENT.search(text):
        return None
    return _QUOTED_BYTE.sub(lambda match: bytes((int(match[1], 16),)), text)


NOT_FOUND_REPLY = b"500 not%20found\n"


class TcpTable:
    """The server's half of tcp_table(5) on the port of one table."""

    name = "tcp_table"

    def __init__(self, table: str) -> None:
        self._table = table
        self._buffer = b""

    @property
    def is_between(self) -> bool:
        """Whether no line has begun."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that are complete. Raises `ProtocolError` on anything but `get KEY`."""
        if not self._buffer and _WHOLE_LINE(data) and len(data) <= LONGEST_LINE:
            return [Request(self._table, data[4:-1])]  # nearly always, and as the long way would have it
        requests: list[Request] = []
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._refuse_longer_than_limit(line, requests)
            requests.append(Request(self._table, self._key(line, requests)))
        self._refuse_longer_than_limit(self._buffer, requests)
        return requests

    def encode(self, request: Request, answer: Answer) -> bytes:
        """The reply line; a value that does not fit is a temporary error, never a cut value."""
        if isinstance(answer, NotFound):
            return NOT_FOUND_REPLY
        if not isinstance(answer, Found):
            return b"400 " + quote(reason_bytes(answer.reason)) + b"\n"
        reply = b"200 " + quote(answer.value.encode(errors="surrogateescape")) + b"\n"
        if len(reply) <= LONGEST_REPLY:
            return reply
        log.warning(
            "the value is too long for tcp_table; use socketmap",
            table=request.table,
            key=request.key,
            bytes=len(reply),
            most=LONGEST_REPLY,
        )
        return b"400 " + quote(b"the value is too long for tcp_table") + b"\n"

    def encode_no_table(self, request: Request) -> bytes:
        """Cannot happen on a port that has one table; says so rather than nothing."""
        return b"400 " + quote(f"no table {request.table}".encode()) + b"\n"

    def _key(self, line: bytes, requests: list[Request]) -> bytes:
        line = line.removesuffix(b"\r")  # a person with a telnet client; a key's own CR comes as %0D
        if not line.startswith(b"get "):
            raise _error("the request is not `get KEY`", requests)
        key = unquote(line[4:])
        if key is None:
            raise _error("a % in the key is not followed by two hex digits", requests)
        return key

    def _refuse_longer_than_limit(self, line: bytes, requests: list[Request]) -> None:
        if len(line) > LONGEST_LINE:
            self._buffer = b""
            raise _error(f"a line is longer than {LONGEST_LINE} bytes", requests)


def _error(reason: str, requests: list[Request]) -> ProtocolError:
    return ProtocolError(reason, b"400 " + quote(reason.encode()) + b"\n", requests)


def codec(table: str) -> Callable[[], TcpTable]:
    """A factory of codecs, one a connection, for the port of `table`."""
    return partial(TcpTable, table)
