"""What a codec hands to the service, and how it says that the bytes make no sense."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from mailmaps.maps.answer import Answer


class Request(NamedTuple):
    """One lookup: the name of a table and the key in the bytes the client means by it."""

    table: str
    key: bytes


# Bytes of a reason on the wire; Postfix logs some hundred of it. Quoting may make three times as many.
LONGEST_REASON = 1024


def reason_bytes(reason: str) -> bytes:
    """A reason as it goes out: UTF-8, one line, bounded, whatever it came from."""
    printable = "".join(char if char.isprintable() else "?" for char in reason)
    whole = printable.encode("utf-8", "replace")[:LONGEST_REASON]
    return whole.decode("utf-8", "ignore").encode()


class ProtocolError(Exception):
    """The client does not speak this protocol; send `reply`, if any, then close the connection.

    `requests` are those that were complete before the trouble, of the codec's own kind; they are
    answered first.
    """

    def __init__(self, reason: str, reply: bytes, requests: list[Any]) -> None:
        super().__init__(reason)
        self.reply = reply
        self.requests = requests


class Codec(Protocol):
    """One client's half of a protocol; every connection has one of its own."""

    @property
    def name(self) -> str:
        """The protocol, as logs and `mailmaps status` call it."""

    @property
    def is_between(self) -> bool:
        """Whether no request has begun, so that the next byte is the first of one."""

    def feed(self, data: bytes) -> list[Request]:
        """Take what arrived and return the requests now complete. Raises `ProtocolError` only."""

    def encode(self, request: Request, answer: Answer) -> bytes:
        """The reply to `request`."""

    def encode_no_table(self, request: Request) -> bytes:
        """The reply to a request that names a table we do not have."""
