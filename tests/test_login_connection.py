"""One client of a login door, with a transport of the test's own."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from tests.protocols.test_saslauthd import JAN as SASL_QUESTION

from mailmaps.auth.attempt import REJECTED, Accepted, Account, Listed, Login, Question, Result
from mailmaps.login_connection import MOST_AT_ONCE, NAMES_AT_ONCE, LoginConnection
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.dovecot_auth import DovecotAuth
from mailmaps.protocols.login import LoginLines
from mailmaps.protocols.saslauthd import Saslauthd

JAN = Accepted(Account("jan"))


class Transport:
    """What was written, and whether it is open."""

    def __init__(self) -> None:
        self.written = b""
        self.state = {"closed": False, "paused": False}

    def closed(self) -> bool:
        return self.state["closed"]

    def paused(self) -> bool:
        return self.state["paused"]

    def write(self, data: bytes) -> None:
        assert not self.closed()
        self.written += data

    def close(self) -> None:
        self.state["closed"] = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed()

    def pause_reading(self) -> None:
        self.state["paused"] = True

    def resume_reading(self) -> None:
        self.state["paused"] = False


class Service:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, asyncio.Future[Result]]] = []

    async def __call__(self, question: Question, door: str) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.asked.append((question, future))
        return await future


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def connect(codec: Any) -> tuple[LoginConnection, Transport, Service]:
    transport, service = Transport(), Service()
    connection = LoginConnection(codec, service)
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport, service


def auth(number: int) -> bytes:
    resp = base64.b64encode(b"\0jan\0%d" % number)
    return b"AUTH\t%d\tPLAIN\tservice=smtp\tresp=%s\n" % (number, resp)


async def test_answers_of_the_auth_protocol_come_as_they_are_known() -> None:
    connection, transport, service = connect(DovecotAuth())
    assert transport.written.endswith(b"DONE\n")
    transport.written = b""
    connection.data_received(auth(1) + auth(2))
    await settle()
    service.asked[1][1].set_result(JAN)
    await settle()
    service.asked[0][1].set_result(REJECTED)
    await settle()
    assert transport.written == b"OK\t2\tuser=jan\nFAIL\t1\n"
    assert not transport.closed()


async def test_cannot_say_closes_the_connection_of_postfix() -> None:
    connection, transport, service = connect(DovecotAuth())
    transport.written = b""
    connection.data_received(auth(1))
    await settle()
    service.asked[0][1].set_result(Unavailable("away"))
    await settle()
    assert transport.closed()
    assert transport.written == b""


async def test_the_login_protocol_answers_in_order() -> None:
    connection, transport, service = connect(LoginLines())
    connection.data_received(b"LOOKUP\tuser=a\nLOOKUP\tuser=b\n")
    await settle()
    assert len(service.asked) == 1
    service.asked[0][1].set_result(Unavailable("away"))
    await settle()
    assert transport.written == b"LATER\taway\n"
    service.asked[1][1].set_result(JAN)
    await settle()
    assert transport.written.endswith(b"\nOK\tuser=jan\n")
    assert not transport.closed()


async def test_saslauthd_has_one_question_a_connection() -> None:
    for result, reply in ((JAN, b"\0\2OK"), (REJECTED, b"\0\2NO"), (Unavailable("away"), b"")):
        connection, transport, service = connect(Saslauthd())
        connection.data_received(SASL_QUESTION)
        await settle()
        assert not transport.closed()
        connection.data_received(b"\0\4more")
        assert isinstance(service.asked[0][0], Login)
        service.asked[0][1].set_result(result)
        await settle()
        assert transport.written == reply
        assert transport.closed()


async def test_nonsense_ends_the_connection_after_what_came_before(caplog: Any) -> None:
    connection, transport, service = connect(LoginLines())
    connection.data_received(b"LOOKUP\tuser=a\nthe secret\n")
    await settle()
    assert not transport.closed()
    service.asked[0][1].set_result(JAN)
    await settle()
    assert transport.written == b"OK\tuser=jan\n"
    assert transport.closed()
    assert "secret" not in caplog.text
    connection.data_received(b"LOOKUP\tuser=a\n")
    assert len(service.asked) == 1


async def test_at_the_end_of_its_words_the_client_gets_its_answer() -> None:
    connection, transport, service = connect(LoginLines())
    connection.data_received(b"LOOKUP\tuser=a\n")
    await settle()
    assert connection.eof_received()
    assert not transport.closed()
    service.asked[0][1].set_result(JAN)
    await settle()
    assert transport.written == b"OK\tuser=jan\n"
    assert transport.closed()


async def test_an_idle_client_is_closed_when_we_stop() -> None:
    connection, transport, _ = connect(DovecotAuth())
    connection.drain()
    assert transport.closed()


async def test_who_asks_much_is_not_read_from() -> None:
    connection, transport, service = connect(DovecotAuth())
    connection.data_received(b"".join(map(auth, range(2 * MOST_AT_ONCE))))
    await settle()
    assert len(service.asked) == MOST_AT_ONCE
    assert transport.paused()
    for _, future in list(service.asked):
        future.set_result(JAN)
    await settle()
    assert not transport.paused()
    assert len(service.asked) == 2 * MOST_AT_ONCE


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    connection, transport, _ = connect(DovecotAuth())
    connection.pause_writing()
    assert transport.paused()
    connection.resume_writing()
    assert not transport.paused()


async def test_nothing_is_begun_and_no_list_goes_on_for_a_client_that_does_not_read() -> None:
    connection, transport, service = connect(LoginLines())
    connection.data_received(b"LIST\nLIST\n")
    await settle()
    names = tuple(f"user{number}" for number in range(5 * NAMES_AT_ONCE))
    service.asked[0][1].set_result(Listed(names))
    await asyncio.sleep(0)
    connection.pause_writing()
    for _ in range(5):
        await settle()
    assert transport.written.count(b"\n") < len(names)
    assert len(service.asked) == 1
    connection.resume_writing()
    for _ in range(5):
        await settle()
    assert transport.written.count(b"\n") == len(names) + 1
    assert len(service.asked) == 2


async def test_a_client_that_left_has_nothing_more_asked() -> None:
    connection, _, service = connect(LoginLines())
    connection.data_received(b"LOOKUP\tuser=a\nLOOKUP\tuser=b\n")
    await settle()
    connection.connection_lost(None)
    await settle()
    assert service.asked[0][1].cancelled()
    assert len(service.asked) == 1


async def test_a_long_list_is_whole_and_lets_others_have_their_turn() -> None:
    connection, transport, service = connect(LoginLines())
    connection.data_received(b"LIST\nLOOKUP\tuser=a\n")
    await settle()
    names = tuple(f"user{number}" for number in range(2 * NAMES_AT_ONCE + 7))
    service.asked[0][1].set_result(Listed(names))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < transport.written.count(b"\n") < len(names)
    await settle()
    await settle()
    expected = b"".join(b"USER\t%s\n" % name.encode() for name in names) + b"OK\n"
    assert transport.written == expected
    service.asked[1][1].set_result(JAN)
    await settle()
    assert transport.written == expected + b"OK\tuser=jan\n"
