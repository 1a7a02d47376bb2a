"""The policy connection with a fake transport: order, segments, stopping; only DUNNO lets mail pass."""

from __future__ import annotations

import asyncio

from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy_connection import PolicyConnection
from mailmaps.protocols.policy import LONGEST_REQUEST, PolicyRequest


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.text = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.text += data

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 5) if name == "peername" else None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Checks:
    """Answers `hit` at once, `fault` not at all, and all else when the gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def begin(self, request: PolicyRequest) -> Action | asyncio.Future[Action]:
        sender = request.attributes.get(b"sender", b"").decode()
        if sender == "fault":
            raise RuntimeError("ours")
        return DUNNO if sender == "hit" else asyncio.ensure_future(self.answer(sender))

    async def answer(self, sender: str) -> Action:
        await self.gate.wait()
        return Action(Word.NOT_YOURS, sender)


def connected() -> tuple[PolicyConnection, FakeTransport, Checks]:
    checks, transport = Checks(), FakeTransport()
    connection = PolicyConnection(checks.begin)
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport, checks


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def asked(sender: str) -> bytes:
    return f"request=smtpd_access_policy\nprotocol_state=RCPT\nsender={sender}\n\n".encode()


def test_what_is_known_needs_no_event_loop() -> None:
    connection, transport, _ = connected()
    connection.data_received(asked("hit") + asked("hit")[:7])
    assert transport.text == b"action=DUNNO\n\n"
    connection.data_received(asked("hit")[7:])
    assert transport.text == b"action=DUNNO\n\n" * 2


async def test_replies_keep_the_order_of_the_requests() -> None:
    connection, transport, checks = connected()
    for byte in asked("hit") + asked("later") + asked("hit"):
        connection.data_received(bytes([byte]))
    await settle()
    assert transport.text == b"action=DUNNO\n\n"
    checks.gate.set()
    await settle()
    assert transport.text == b"action=DUNNO\n\naction=553 5.7.1 later\n\naction=DUNNO\n\n"
    assert not transport.is_closed


async def test_a_fault_of_ours_defers() -> None:
    connection, transport, _ = connected()
    connection.data_received(asked("fault"))
    assert transport.text.startswith(b"action=DEFER_IF_PERMIT 4.3.0 ")


async def test_a_request_without_end_is_answered_and_the_connection_closed() -> None:
    connection, transport, _ = connected()
    connection.data_received(asked("hit") + b"x" * 4000)
    while not transport.is_closed:
        connection.data_received(b"x" * LONGEST_REQUEST)
        await settle()
    assert transport.text == b"action=DUNNO\n\naction=451 4.3.0 the request is too long\n\n"


async def test_stopping_tells_who_waits_to_try_later() -> None:
    connection, transport, _ = connected()
    connection.data_received(asked("later") + asked("hit"))
    await settle()
    connection.drain()
    assert not transport.is_closed
    connection.cut()
    assert transport.text.count(b"action=DEFER_IF_PERMIT 4.3.0 Cannot say now") == 2
    assert transport.is_closed
