"""Clients that mean no good, or mean nothing: idle ones, ones that never read, ones that trickle or babble.

Each works on plain sockets, from the test's own process, and knows nothing of the daemon but its ports.
"""

from __future__ import annotations

import re
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Self

PATIENCE = 30.0
"""Seconds after which a socket that says nothing is a failed test."""

AT_ONCE = 500
"""Connections that are made before the last of them must have been served: half the daemon's queue."""

SENT_AT_ONCE = 64 * 1024


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection to `port` of this machine from one of its many addresses."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))


def memory(pid: int) -> int:
    """Bytes of memory that a process has now, files mapped into it included (VmRSS of proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert resident is not None, status
    return int(resident[1]) * 1024


def reset(sock: socket.socket) -> None:
    """Close with a RST: SO_LINGER of no seconds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """As many bytes; fewer when the other side closed."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return bytes(received)


def read_to_end(sock: socket.socket) -> bytes:
    """All until the other side closes, which it may do with a RST: it has not read all that we sent."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := sock.recv(SENT_AT_ONCE):
            received += data
    return bytes(received)


@contextmanager
def crowd(
    ports: Sequence[int], count: int, serve: Callable[[socket.socket], None]
) -> Iterator[list[socket.socket]]:
    """`count` connections, spread over the ports and over a source address for every thousand.

    `serve` is called with the last two connections of each batch and returns when they were served: those
    before them in the queue were accepted then. Half of all end with a RST.
    """
    socks: list[socket.socket] = []
    try:
        for number in range(count):
            socks.append(connect(ports[number % len(ports)], f"127.0.0.{2 + number // 1000}"))
            if len(socks) % AT_ONCE == 0 or len(socks) == count:
                for sock in socks[-len(ports) :]:
                    serve(sock)
        yield socks
    finally:
        for number, sock in enumerate(socks):
            if number % 2:
                reset(sock)
            else:
                sock.close()


@dataclass
class NeverReader:
    """A client that asks as long as the daemon lets it, and reads nothing. Asks in a thread of its own.

    `stalled` is set when the daemon has taken nothing for `PAUSE` seconds.
    """

    PAUSE = 0.5

    port: int
    request: bytes
    sent: int = 0
    stalled: Event = field(default_factory=Event)
    _ended: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel takes megabytes
        self.sock.connect(("127.0.0.1", self.port))
        self.sock.setblocking(False)
        self._thread = Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        reset(self.sock)

    def _ask(self) -> None:
        wire = self.request * (SENT_AT_ONCE // len(self.request))
        rest = wire
        while not self._ended.is_set():
            if select.select([], [self.sock], [], self.PAUSE)[1]:
                sent = self.sock.send(rest)
                self.sent += sent
                rest = rest[sent:] or wire
            else:
                self.stalled.set()


def ask_once(sock: socket.socket, request: bytes) -> bytes:
    """The line that answers one request."""
    sock.sendall(request)
    reply = bytearray()
    while not reply.endswith(b"\n") and (byte := sock.recv(1)):
        reply += byte
    return bytes(reply)


def count_down(sock: socket.socket, size: int, ended: Event) -> None:
    """Read as many bytes, or to the end, and then tell."""
    with suppress(OSError):
        while size > 0 and (data := sock.recv(SENT_AT_ONCE)):
            size -= len(data)
    ended.set()


def trickle(exchanges: dict[int, tuple[bytes, bytes]], clients: int) -> None:
    """Ask each port its question a byte at a time, all clients by turns, and expect its reply."""
    with ExitStack() as stack:
        socks = {port: [stack.enter_context(connect(port)) for _ in range(clients)] for port in exchanges}
        for turn in range(max(len(question) for question, _ in exchanges.values())):
            for port, (question, _) in exchanges.items():
                for sock in socks[port]:
                    sock.sendall(question[turn : turn + 1])
        for port, (_, reply) in exchanges.items():
            assert [read_exactly(sock, len(reply)) for sock in socks[port]] == [reply] * clients


def send_until_refused(port: int, start: bytes, forever: bytes, most: int) -> tuple[int, bytes]:
    """Send `start`, then `forever` again and again until the other side says something or `most` is sent;
    then no more. How many bytes were sent, and what it said until it closed."""
    sent = len(start)
    with connect(port) as sock:
        with suppress(OSError):  # it closed while we sent
            sock.sendall(start)
            while sent < most and not select.select([sock], [], [], 0)[0]:
                sock.sendall(forever)
                sent += len(forever)
            sock.shutdown(socket.SHUT_WR)
        return sent, read_to_end(sock)
