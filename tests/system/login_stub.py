"""The daemon's login socket with scripted answers: what Dovecot's programs ask, and what they make of it.

Contract: the wire of src/mailmaps/protocols/login.py, both ways in its bare form, one LF-terminated line for
each question and each line of an answer. `answers` has the answer by the question's first word and user
("LOGIN jan", or "LIST"); a question that has none is answered by `otherwise`. The answer "" is no answer: the
connection is closed; one without a final LF is sent as it is, and then the connection is closed.

The socket is ours, its mode 0660, its group the one given.
"""

from __future__ import annotations

import asyncio
import grp
import os
from pathlib import Path
from typing import Self

CODES = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


class LoginStub:
    """The server at `path`: `async with LoginStub(path) as stub`, then `stub.answers` and `stub.asked`."""

    def __init__(self, path: Path, group: str = "") -> None:
        """`group` may connect besides us, "dovecot" for a real Dovecot; empty: our own group."""
        self.path = path
        self.group = group
        self.answers: dict[str, bytes] = {}
        self.otherwise = b"LATER\tthe stub knows no answer\n"
        self.asked: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        """Listen; the socket must not be there yet."""
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 16)
        if self.group:
            os.chown(self.path, -1, grp.getgrnam(self.group).gr_gid)
        self.path.chmod(0o660)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                question = parse(line)
                self.asked.append(question)
                name = " ".join(filter(None, (question["kind"], question.get("user"))))
                answer = self.answers.get(name, self.otherwise)
                writer.write(answer)
                await writer.drain()
                if not answer.endswith(b"\n"):
                    break
        except ConnectionError:
            pass  # the client is gone, which some tests want
        finally:
            writer.close()


def parse(line: bytes) -> dict[str, str]:
    """The fields of a question, unescaped; its first word is `kind`."""
    word, *fields = line.removesuffix(b"\n").split(b"\t")
    pairs = (field.partition(b"=") for field in fields)
    return {"kind": word.decode()} | {name.decode(): unescaped(value) for name, _, value in pairs}


def unescaped(value: bytes) -> str:
    """Undo Dovecot's tab-escape; a byte that is no UTF-8 is kept as a surrogate."""
    first, *rest = value.split(b"\1")
    return (first + b"".join(CODES[part[:1]] + part[1:] for part in rest)).decode(errors="surrogateescape")


def escaped(value: str) -> bytes:
    """The other way."""
    codes = {plain: b"\1" + code for code, plain in CODES.items()}
    return b"".join(codes.get(bytes((byte,)), bytes((byte,))) for byte in value.encode())


def accepted(user: str, **fields: object) -> bytes:
    """The answer OK with `user` and `fields`."""
    pairs = [f"{name}=".encode() + escaped(str(value)) for name, value in {"user": user, **fields}.items()]
    return b"\t".join([b"OK", *pairs]) + b"\n"
