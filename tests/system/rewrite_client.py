"""What the real trivial-rewrite(8) makes of an address, asked as smtpd(8) asks it (smtpd_resolve.c:118-128).

Contract: `Rewriter` talks to the socket private/rewrite of a Postfix under test: attributes `name NUL value
NUL`, a request or reply ends in one more NUL (src/util/attr_print0.c); trivial-rewrite speaks first. Only
what smtpd looks at is given back: the address in internal form, or None when it cannot be resolved now.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from mailmaps.maps.address import quote, unquote

LIMIT = 60.0
"""Seconds for one reply."""

RESOLVE_FLAG_FAIL = 1 << 3
"""src/global/resolve_clnt.h."""


class Rewriter:
    """One connection: `with Rewriter(queue_directory) as rewriter`."""

    def __init__(self, queue: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(LIMIT)
        self._socket.connect(str(queue / "private" / "rewrite"))
        self._buffer = b""

    def __enter__(self) -> Self:
        assert self._reply()["protocol"] == b"trivial_rewrite_protocol"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._socket.close()

    def resolved(self, address: str) -> str | None:
        """Rewrite and resolve an address in internal form."""
        reply = self._ask(request="rewrite", rule="local", address=quote(address))
        rewritten = unquote(_text(reply["address"]))
        reply = self._ask(request="resolve", sender="", address=rewritten)
        return None if int(reply["flags"]) & RESOLVE_FLAG_FAIL else _text(reply["recipient"])

    def _ask(self, **attributes: str) -> dict[str, bytes]:
        words = (f"{name}\0{value}\0" for name, value in attributes.items())
        self._socket.sendall("".join(words).encode(errors="surrogateescape") + b"\0")
        return self._reply()

    def _reply(self) -> dict[str, bytes]:
        while not self._buffer.endswith(b"\0\0") or self._is_in_value():
            data = self._socket.recv(65536)
            assert data, "trivial-rewrite is gone"
            self._buffer += data
        words = self._buffer[:-1].split(b"\0")[:-1]
        self._buffer = b""
        return {name.decode(): value for name, value in zip(words[::2], words[1::2], strict=True)}

    def _is_in_value(self) -> bool:
        """Whether the last NUL ends an empty value, and not the reply."""
        return len(self._buffer[:-1].split(b"\0")[:-1]) % 2 == 1


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
