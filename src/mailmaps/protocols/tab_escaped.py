"""Dovecot's lines of fields: separated by TAB, ended by LF; five bytes that cannot stand there are escaped.

src/lib/strescape.c, str_tabescape(): \\001 and then `0` for NUL, `1` for \\001, `t` TAB, `r` CR, `n` LF.
"""

from __future__ import annotations

import re

_ESCAPES = {b"\0": b"\x010", b"\x01": b"\x011", b"\t": b"\x01t", b"\r": b"\x01r", b"\n": b"\x01n"}
_MEANINGS = {b"0": b"\0", b"1": b"\x01", b"t": b"\t", b"r": b"\r", b"n": b"\n"}
_TO_ESCAPE = re.compile(rb"[\0\x01\t\r\n]")
_ESCAPED = re.compile(rb"\x01(.?)", re.DOTALL)


def escape(value: bytes) -> bytes:
    """Any bytes as one field."""
    return _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], value)


def unescape(field: bytes) -> bytes:
    """The bytes that a field means; what else comes after \\001 stands for itself (str_tabunescape())."""
    return _ESCAPED.sub(lambda match: _MEANINGS.get(match[1], match[1]), field)


def parameters(fields: list[bytes]) -> dict[str, bytes]:
    """name=value, or name alone (then empty); the last of a name counts. Names are ASCII or nobody's."""
    found: dict[str, bytes] = {}
    for field in fields:
        name, _, value = field.partition(b"=")
        found[name.decode("ascii", "replace")] = unescape(value)
    return found


class Lines:
    """Cuts what arrives into lines of at most `longest` bytes, LF included; CR before LF is dropped.

    Dovecot 2.4 ends some lines in CR LF (src/auth/auth-master-request.c:262).
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""
        self.is_over = False  # a line was longer: neither it nor what came after it is given

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are now complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        good: list[bytes] = []
        for line in lines:
            if len(line) >= self._longest:
                self.is_over = True
                return good
            good.append(line.removesuffix(b"\r"))
        self.is_over = len(self._rest) >= self._longest
        return good
