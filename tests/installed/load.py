"""Lookups without end by clients that behave as Postfix's dict_tcp.c does, and a count of what went wrong.

A client has one connection and one question out. Where the connection ends without a whole reply it connects
again and asks again, as dict_tcp.c does (which sleeps a second before; here it goes on at once, so that more
comes in while the daemon restarts). What Postfix would feel is counted: a refused connection, a wrong answer
or 4xx, a question that hung for `TIMEOUT`, one that ten attempts did not answer.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

# As dict_tcp.c: DICT_TCP_TMOUT (100 s each) is too long to wait for here; DICT_TCP_MAXTRY.
TIMEOUT = 30.0
ATTEMPTS = 10

LONGEST = 4096


@dataclass(frozen=True)
class Question:
    """`port`, the key, and the only right reply."""

    port: int
    key: str
    reply: bytes


@dataclass
class Tally:
    """What all clients saw together."""

    answered: int = 0
    reconnected: int = 0
    refused: int = 0
    hung: int = 0
    unanswered: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> str:
        return (
            f"{self.answered} answers, {self.reconnected} connections made anew, {self.refused} refused, "
            f"{self.hung} hung, {len(self.wrong)} wrong, {self.unanswered} without an answer"
        )


class Load:
    """Several clients; `with` starts and ends them. `pause`: seconds before each question."""

    def __init__(self, questions: Sequence[Question], clients: int, pause: float = 0.0) -> None:
        self._pause = pause
        self.tally = Tally()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(list(questions[number:]) + list(questions[:number]),))
            for number in range(clients)
        ]

    def __enter__(self) -> Tally:
        for thread in self._threads:
            thread.start()
        return self.tally

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, questions: list[Question]) -> None:
        connections: dict[int, socket.socket] = {}
        while not self._over.is_set():
            for question in questions:
                self._over.wait(self._pause)
                self._ask(question, connections)
        for connection in connections.values():
            connection.close()

    def _ask(self, question: Question, connections: dict[int, socket.socket]) -> None:
        for _ in range(ATTEMPTS):
            reply = self._attempt(question, connections)
            if not reply:
                continue
            with self.tally.lock:
                self.tally.answered += 1
                if reply != question.reply:
                    self.tally.wrong.append(f"{question.port} {question.key}: {reply!r}")
            return
        with self.tally.lock:
            self.tally.unanswered += 1

    def _attempt(self, question: Question, connections: dict[int, socket.socket]) -> bytes:
        """The whole reply; nothing where the connection ended before."""
        connection = connections.pop(question.port, None)
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", question.port), timeout=TIMEOUT)
            connection.sendall(f"get {question.key}\n".encode())
            reply = b""
            while not reply.endswith(b"\n") and len(reply) < LONGEST:
                if not (more := connection.recv(LONGEST)):
                    break
                reply += more
        except ConnectionRefusedError:
            self._count("refused")
            return b""
        except TimeoutError:
            self._count("hung")
            reply = b""
        except OSError:
            reply = b""
        if reply.endswith(b"\n"):
            connections[question.port] = connection  # type: ignore[assignment]  # it has answered
            return reply
        if connection is not None:
            connection.close()
        self._count("reconnected")
        return b""

    def _count(self, name: str) -> None:
        with self.tally.lock:
            setattr(self.tally, name, getattr(self.tally, name) + 1)
