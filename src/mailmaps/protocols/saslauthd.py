"""The socket of saslauthd(8), for programs with Cyrus SASL (`pwcheck_method: saslauthd`).

    C: login, password, service, realm       each as a count of bytes (16 bits, big-endian) and the bytes
    S: OK or NO                              the same; "cannot say" is the end of the connection

libsasl takes that end for a failure of its own (SASL_FAIL), which Postfix tells as 454; everything that does
not begin with OK is a wrong password, 535 (cyrus-sasl lib/checkpw.c, xsasl_cyrus_server.c:505). Newer clients
send a fifth string, their client's address (`ip;port`): it is taken if it is there, and never waited for. One
question a connection.
"""

from __future__ import annotations

from mailmaps.auth.attempt import Accepted, Login, Password, Rejected, Result
from mailmaps.protocols.asked import Asked, LoginProtocolError

# libsasl's own limit for a question (lib/checkpw.c, query[8192]).
LONGEST_QUESTION = 8192

STRINGS = 4  # login, password, service, realm


class Saslauthd:
    """One client of the mux socket."""

    name = "saslauthd"
    greeting = b""
    in_order = True

    def __init__(self) -> None:
        self._read = b""
        self.is_finished = False

    def feed(self, data: bytes) -> list[bytes | Asked]:
        """Take what arrived. Raises `LoginProtocolError`."""
        if self.is_finished:  # the rest of a fifth string
            return []
        self._read += data
        strings = _strings(self._read)
        if len(strings) < STRINGS:
            if len(self._read) > LONGEST_QUESTION:
                raise LoginProtocolError(f"the question is longer than {LONGEST_QUESTION} bytes", [])
            return []
        self.is_finished, self._read = True, b""
        user, password, service, realm = strings[:STRINGS]
        client = strings[STRINGS].partition(b";")[0] if len(strings) > STRINGS else b""
        login = Login(_text(user), Password(password), _text(service), _text(client), _text(realm))
        return [Asked(login)]

    def encode(self, asked: Asked, result: Result) -> bytes | None:
        """The reply; None: close."""
        match result:
            case Accepted():
                return b"\0\2OK"
            case Rejected():
                return b"\0\2NO"
            case _:
                return None


def _strings(data: bytes) -> list[bytes]:
    """The counted strings that are complete."""
    strings: list[bytes] = []
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            break
        strings.append(data[at + 2 : end])
        at = end
    return strings


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
