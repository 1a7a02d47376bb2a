r"""Postfix's policy delegation, sans I/O (SMTPD_POLICY_README; src/smtpd/smtpd_check.c:3996-4196).

    request=smtpd_access_policy\nprotocol_state=RCPT\n...\n\n   ->   action=DUNNO\n\n

Lines end in LF alone, no blank stands around `=`, a value may hold `=` and is encoded in no way; names may
come in any order, may be missing, and those of later versions are unknown. A reply is one `action`, which is
never empty: an empty one would be OK, which lets everything pass (smtpd_check.c:2770).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from mailmaps.policy.action import Action, Word
from mailmaps.policy.mail import USED
from mailmaps.protocols.request import ProtocolError

# Bytes of one request. The longest values that Postfix has, sender and recipient, are bounded by
# line_length_limit (2048); a certificate's names may be some hundred.
LONGEST_REQUEST = 64 * 1024

# Names of a request whose shape is remembered; Postfix has some thirty.
MOST_NAMES = 60

# Bytes of an action's text. smtpd(8) cuts a reply at 510 (smtpd_check.c:1138).
LONGEST_TEXT = 400


class PolicyRequest(NamedTuple):
    """One request: its attributes, at least those in `USED`. `problem` says what makes no sense."""

    attributes: dict[bytes, bytes]
    problem: str = ""

    @property
    def state(self) -> str:
        """Its protocol_state, whatever else is wrong with it."""
        return self.attributes.get(b"protocol_state", b"").decode(errors="replace")


class PolicyDelegation:
    """The server's half of the protocol; every connection has one of its own."""

    name = "policy"

    def __init__(self) -> None:
        self._buffer = b""
        self._shape: _Shape | None = None  # of the client's requests, once there was a good one

    @property
    def is_between(self) -> bool:
        """Whether no request has begun."""
        return not self._buffer

    def feed(self, data: bytes) -> list[PolicyRequest]:
        """The requests that are complete. Raises `ProtocolError` for one without end."""
        data = self._buffer + data
        requests: list[PolicyRequest] = []
        begin = 0
        while (end := _end(data, begin)) >= 0:
            requests.append(self._request(data[begin:end]))
            begin = end + 1
        self._buffer = data[begin:]
        if len(self._buffer) > LONGEST_REQUEST:
            self._buffer = b""
            reply = self.encode(Action(Word.CANNOT_SAY, "the request is too long"))
            raise ProtocolError(f"a request of more than {LONGEST_REQUEST} bytes", reply, requests)
        return requests

    def _request(self, block: bytes) -> PolicyRequest:
        """Postfix sends the same names in the same order each time: then one look is enough."""
        shape = self._shape
        if shape is not None and (match := shape.fullmatch(block)):
            return PolicyRequest(dict(zip(shape.names, match.groups(), strict=True)))
        request = _request(block)
        if shape is None and not request.problem and len(request.attributes) <= MOST_NAMES:
            self._shape = _shape(tuple(request.attributes))
        return request

    def encode(self, action: Action) -> bytes:
        """The reply: one line and an empty one."""
        if action.word is Word.DUNNO:
            return b"action=DUNNO\n\n"
        return b"action=%s %s\n\n" % (action.word.value.encode(), _text(action.text))


class _Shape(NamedTuple):
    """Requests with certain names in a certain order: what matches them, and the names of its groups."""

    fullmatch: Callable[[bytes], re.Match[bytes] | None]
    names: tuple[bytes, ...]


@lru_cache(maxsize=64)
def _shape(names: tuple[bytes, ...]) -> _Shape:
    lines = (re.escape(name) + (b"=([^\n]*)\n" if name in USED else b"=[^\n]*\n") for name in names)
    return _Shape(re.compile(b"".join(lines)).fullmatch, tuple(name for name in names if name in USED))


def _end(data: bytes, begin: int) -> int:
    """Where the empty line is that ends the request at `begin`; -1: it is not there yet."""
    if data.startswith(b"\n", begin):
        return begin
    end = data.find(b"\n\n", begin)
    return end + 1 if end >= 0 else -1


def _request(block: bytes) -> PolicyRequest:
    """Take one request apart; `block` is its lines, each with its LF."""
    lines = block.split(b"\n")[:-1]
    try:
        attributes = dict([line.split(b"=", 1) for line in lines])  # a generator takes twice as long
    except ValueError:
        return PolicyRequest({}, "a line that is not of the form name=value")
    if not lines or b"" in attributes:
        return PolicyRequest(attributes, "an attribute without a name" if lines else "no attributes")
    return PolicyRequest(attributes, "" if len(attributes) == len(lines) else "an attribute that comes twice")


def _text(text: str) -> bytes:
    """The text on one line, never empty: a code alone would let the mail pass (smtpd_check.c:2704)."""
    printable = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    cut = printable.encode("utf-8", "replace")[:LONGEST_TEXT].decode("utf-8", "ignore").strip()
    return (cut or "refused by policy").encode()
