"""Asks a lookup endpoint over the wire, like `postmap -q`: for `mailmaps query` and the tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.protocols import tcp_table
from mailmaps.protocols.netstring import NetstringError, NetstringReader, netstring
from mailmaps.protocols.socketmap import LONGEST_REPLY

# Postfix waits 100 s (dict_tcp.c:110); a person does not, and the daemon answers within its deadline.
TIMEOUT = 15.0


class TcpTableClient:
    """One connection to the tcp_table(5) endpoint of a table."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def ask(self, key: str) -> Answer:
        """Ask one key. Whatever goes wrong is `Unavailable`."""
        try:
            self._sock.sendall(b"get " + tcp_table.quote(key.encode(errors="surrogateescape")) + b"\n")
            line = self._file.readline(tcp_table.LONGEST_REPLY + 1)
        except OSError as error:
            return Unavailable(f"no answer: {error}")
        text = tcp_table.unquote(line[4:-1]) if line.endswith(b"\n") else None
        if text is None or line[3:4] != b" ":
            return Unavailable("mailmaps closed the connection" if not line else "not a tcp_table reply")
        return _answer({b"2": "OK", b"5": "NOTFOUND"}.get(line[:1], ""), text)


class SocketmapClient:
    """One connection to a socketmap_table(5) endpoint, asking one of its tables."""

    def __init__(self, sock: socket.socket, table: str) -> None:
        self._sock = sock
        self._table = table
        self._reader = NetstringReader(LONGEST_REPLY)

    def ask(self, key: str) -> Answer:
        """Ask one key. Whatever goes wrong is `Unavailable`."""
        request = self._table.encode() + b" " + key.encode(errors="surrogateescape")
        try:
            self._sock.sendall(netstring(request))
            while (payload := self._reader.next()) is None:
                data = self._sock.recv(65536)
                if not data:
                    return Unavailable("mailmaps closed the connection")
                self._reader.feed(data)
        except (OSError, NetstringError) as error:
            return Unavailable(f"no answer: {error}")
        word, _, text = payload.partition(b" ")
        return _answer(word.decode("ascii", "replace"), text)


def _answer(word: str, text: bytes) -> Answer:
    if word == "NOTFOUND":
        return NOT_FOUND
    decoded = text.decode(errors="surrogateescape")
    return Found(decoded) if word == "OK" else Unavailable(decoded)


@contextmanager
def open_inet(host: str, port: int) -> Iterator[socket.socket]:
    """Connect to a TCP endpoint. Raises `OSError`."""
    with socket.create_connection((host, port), timeout=TIMEOUT) as sock:
        yield sock


@contextmanager
def open_unix(path: str) -> Iterator[socket.socket]:
    """Connect to a unix socket. Raises `OSError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        yield sock
