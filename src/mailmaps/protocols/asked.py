"""What the codec of a login door hands on, and how it says that the bytes make no sense.

A codec is one client's half of a protocol, without input or output of its own. `feed` gives, in order, what
has to be written at once (bytes) and what has to be asked (`Asked`); `encode` makes the reply of a result, or
None, where the protocol has no word for it but the end of the connection.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mailmaps.auth.attempt import Question, Result


class Asked(NamedTuple):
    """One question; `tag` is what the codec needs to find its way back (an id, a dialect)."""

    question: Question
    tag: str = ""


class LoginProtocolError(Exception):
    """The client does not speak this protocol: close. The text holds nothing of what it said.

    `items` came before the trouble.
    """

    def __init__(self, reason: str, items: list[bytes | Asked]) -> None:
        super().__init__(reason)
        self.items = items


class LoginCodec(Protocol):
    """One client's half of a login protocol; every connection has one of its own."""

    @property
    def name(self) -> str:
        """The door, as logs and `mailmaps status` call it."""

    @property
    def greeting(self) -> bytes:
        """What is said before the client says anything."""

    @property
    def in_order(self) -> bool:
        """Whether replies have to come in the order of the questions."""

    def feed(self, data: bytes) -> list[bytes | Asked]:
        """Take what arrived. Raises `LoginProtocolError` only."""

    def encode(self, asked: Asked, result: Result) -> bytes | None:
        """The reply; None: close the connection instead. Empty: nobody waits for it any more."""

    @property
    def is_finished(self) -> bool:
        """Whether the connection ends with the last reply."""
