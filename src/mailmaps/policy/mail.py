"""One mail as policy delegation tells of it: what the checks need of a request, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

REQUEST = b"smtpd_access_policy"

# Those with a sender; CONNECT, HELO, EHLO, VRFY and ETRN have none (smtpd_check.c:4077-4103).
WITH_SENDER = frozenset({"MAIL", "RCPT", "DATA", "END-OF-MESSAGE"})

# Those that know how many recipients there are. BDAT is sent as DATA (smtpd_check.c:4080).
COUNTING = frozenset({"DATA", "END-OF-MESSAGE"})

WITHOUT_SENDER = frozenset({"CONNECT", "HELO", "EHLO", "VRFY", "ETRN"})


# The names that `read` looks at.
USED = frozenset({
    b"request",
    b"protocol_state",
    b"sender",
    b"sasl_username",
    b"client_address",
    b"instance",
    b"recipient_count",
})  # fmt: skip


class Mail(NamedTuple):
    """`sender` in internal form, as the client typed it, empty for <>; `login` is empty if nobody logged in.

    `instance` is the same in all requests of one mail transaction; `recipients` is 0 before DATA.
    """

    state: str
    sender: str
    login: str
    client: str
    instance: str
    recipients: int


def read(attributes: Mapping[bytes, bytes]) -> Mail:
    """Raises `ValueError`: what is missing or makes no sense, in words for the log of Postfix."""
    get = attributes.get
    if get(b"request") != REQUEST:
        raise ValueError(f"no request={REQUEST.decode()}")
    state = get(b"protocol_state", b"").decode(errors="replace")
    has_sender = state in WITH_SENDER
    if not has_sender and state not in WITHOUT_SENDER:
        raise ValueError("no protocol_state that is known")
    sender = get(b"sender")
    if sender is None and has_sender:
        raise ValueError(f"no sender at {state}")
    return Mail(
        state,
        (sender or b"").decode(errors="surrogateescape"),
        get(b"sasl_username", b"").decode(errors="surrogateescape"),
        get(b"client_address", b"unknown").decode(errors="replace"),
        get(b"instance", b"").decode(errors="replace"),
        _recipients(get(b"recipient_count", b"")) if state in COUNTING else 0,
    )


def _recipients(text: bytes) -> int:
    if not (text.isdigit() and len(text) < 10):
        raise ValueError("no recipient_count")
    return max(1, int(text))
