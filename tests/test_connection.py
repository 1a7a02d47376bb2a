"""One client, with a fake transport: order, hits without an event loop, misses, back-pressure, ends."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mailmaps.connection import LOOK, Connection, Trust
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.memo import Memo
from mailmaps.ordered_connection import MOST_AT_ONCE, MOST_PER_TURN
from mailmaps.protocols.socketmap import Socketmap
from mailmaps.protocols.tcp_table import TcpTable


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed or not data
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closed

    @property
    def text(self) -> bytes:
        return b"".join(self.written)


class FakeTable:
    """Knows keys beginning with "hit"; others wait for the gate."""

    steady = False

    def __init__(self) -> None:
        self.counts = LookupCounts()
        self.answered: list[bytes] = []
        self.gate = asyncio.Event()
        self.fault: Exception | None = None

    def begin(self, key: bytes) -> Answer | asyncio.Future[Answer]:
        self.answered.append(key)
        return Found(key.decode()) if key.startswith(b"hit") else asyncio.ensure_future(self.answer())

    async def answer(self) -> Answer:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return NOT_FOUND


class LongTable(FakeTable):
    """Has long values."""

    def begin(self, key: bytes) -> Answer:
        return Found("x" * 1000)


def trust() -> Trust:
    return Trust(lambda: None)


def connected(table: FakeTable) -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = Connection(TcpTable("t"), {"t": table}, Memo(), trust())
    connection.connection_made(transport)
    return connection, transport


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_hits_need_no_event_loop_and_go_out_in_one_write() -> None:
    connection, transport = connected(FakeTable())
    connection.data_received(b"get hit1\nget hit2\nget hi")
    connection.data_received(b"t3\n")
    assert transport.written == [b"200 hit1\n200 hit2\n", b"200 hit3\n"]


async def test_replies_keep_the_order_of_the_requests() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.data_received(b"get hit1\nget miss\nget hit2\n")
    connection.data_received(b"get hit3\n")
    await settle()
    assert transport.text == b"200 hit1\n"
    table.gate.set()
    await settle()
    assert transport.text == b"200 hit1\n500 not%20found\n200 hit2\n200 hit3\n"
    connection.data_received(b"get hit4\n")
    assert transport.written[-1] == b"200 hit4\n", "back on the fast path"


async def test_what_makes_no_sense_is_answered_last_and_closes() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.data_received(b"get miss\nnonsense\nget hit\n")
    connection.data_received(b"get hit\n")
    table.gate.set()
    await settle()
    assert transport.text.startswith(b"500 not%20found\n400 ")
    assert transport.text.count(b"\n") == 2
    assert transport.is_closing()


def test_an_unknown_socketmap_name_is_answered_and_the_connection_stays() -> None:
    transport = FakeTransport()
    connection = Connection(Socketmap(), {"t": FakeTable()}, Memo(), trust())
    connection.connection_made(transport)
    connection.data_received(b"5:x key,5:t hit,")
    assert transport.text == b"15:PERM no table x,6:OK hit,"
    assert not transport.is_closing()


async def test_a_client_that_pipelines_without_end_is_not_read_from() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    count = MOST_PER_TURN // len(b"get miss\n")
    connection.data_received(b"get miss\n" * count)
    assert transport.is_reading()
    connection.data_received(b"get miss\n" * 2 * count)
    assert not transport.is_reading()
    table.gate.set()
    for _ in range(3 * count):
        await settle()
    assert transport.is_reading()
    assert transport.text.count(b"\n") == 3 * count


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.pause_writing()
    assert not transport.is_reading()
    connection.data_received(b"get miss1\nget miss2\n")
    table.gate.set()
    await settle()
    assert not transport.text
    connection.resume_writing()
    await settle()
    assert transport.is_reading()
    assert transport.text.count(b"\n") == 2


async def test_a_flood_waits_for_a_slow_reader_and_for_the_others() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.pause_writing()
    connection.data_received((b"get hit" + b"x" * 1000 + b"\n") * 200)
    await settle()
    assert len(transport.text) < 2 * MOST_PER_TURN, "what was read waits as it came"
    assert not transport.reading
    connection.resume_writing()
    turns = 0
    while transport.text.count(b"\n") < 200:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 200_000 / MOST_PER_TURN, "others have their turn"
    await settle()
    assert transport.reading


async def test_long_replies_to_short_requests_do_not_come_all_at_once() -> None:
    table = LongTable()
    connection, transport = connected(table)
    connection.data_received(b"get hit\n" * 400)
    assert MOST_AT_ONCE <= len(transport.text) < MOST_AT_ONCE + 2000
    for _ in range(400):
        await settle()
    assert transport.text.count(b"\n") == 400


async def test_draining_answers_what_was_asked_and_takes_no_more() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.data_received(b"get miss\n")
    connection.drain()
    assert not transport.is_closing()
    connection.data_received(b"get hit\n")
    table.gate.set()
    await settle()
    assert transport.text == b"500 not%20found\n"
    assert transport.is_closing()
    idle, idle_transport = connected(table)
    idle.drain()
    assert idle_transport.is_closing()


async def test_a_client_that_has_said_all_it_will_still_gets_its_reply() -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.data_received(b"get miss\n")
    assert connection.eof_received() is True
    assert not transport.is_closing()
    table.gate.set()
    await settle()
    assert transport.text == b"500 not%20found\n"
    assert transport.is_closing()


async def test_what_cannot_be_answered_before_the_end_is_told_to_come_later() -> None:
    connection, transport = connected(FakeTable())
    connection.data_received(b"get miss\nget other\n")
    await settle()
    connection.cut()
    assert transport.text == b"400 mailmaps%20is%20stopping\n" * 2
    assert transport.is_closing()


async def test_a_fault_of_ours_is_cannot_say(caplog: pytest.LogCaptureFixture) -> None:
    table = FakeTable()
    table.fault = RuntimeError("a bug")
    table.gate.set()
    connection, transport = connected(table)
    with caplog.at_level(logging.ERROR):
        connection.data_received(b"get miss\n")
        await settle()
    assert transport.text == TcpTable("t").encode(None, Unavailable("internal error"))  # type: ignore[arg-type]
    assert "a bug" in caplog.text


async def test_nobody_waits_for_the_answer_to_a_client_that_has_left() -> None:
    table = FakeTable()
    gone: list[Connection] = []
    transport = FakeTransport()
    connection = Connection(TcpTable("t"), {"t": table}, Memo(), trust(), gone.append)
    connection.connection_made(transport)
    connection.data_received(b"get miss\n")
    await settle()
    connection.connection_lost(None)
    await settle()
    assert gone == [connection]
    table.gate.set()
    await settle()
    assert not transport.text


def test_a_reply_out_of_steady_memory_is_kept_until_the_memo_is_cleared() -> None:
    table, memo, transport = FakeTable(), Memo(), FakeTransport()
    connection = Connection(TcpTable("t"), {"t": table}, memo, trust())
    connection.connection_made(transport)
    connection.data_received(b"get hit\n")
    connection.data_received(b"get hit\n")
    assert table.answered == [b"hit", b"hit"], "not steady, not kept"
    table.steady = True
    connection.data_received(b"get hit\n")
    connection.data_received(b"get hit\n")
    assert table.answered == [b"hit"] * 3
    memo.clear()
    connection.data_received(b"get hit\n")
    assert table.answered == [b"hit"] * 4
    assert transport.text == b"200 hit\n" * 5


def test_an_answer_that_is_no_answer_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(FakeTable):
        def begin(self, key: bytes) -> Answer | asyncio.Future[Answer]:
            if self.fault is not None:
                raise self.fault
            return super().begin(key)

    table, transport = Faulty(), FakeTransport()
    table.steady, table.fault = True, RuntimeError("a bug")
    connection = Connection(TcpTable("t"), {"t": table}, Memo(), trust())
    connection.connection_made(transport)
    connection.data_received(b"get hit\n")
    table.fault = None
    connection.data_received(b"get hit\n")
    assert transport.text.endswith(b"200 hit\n")
    assert "a bug" in caplog.text


async def test_the_last_words_are_said_once() -> None:
    connection, transport = connected(FakeTable())
    connection.pause_writing()
    connection.data_received(b"nonsense\n")
    connection.resume_writing()
    connection.resume_writing()
    connection.drain()
    assert transport.text.count(b"400 ") == 1


def test_only_a_request_that_is_whole_is_kept_and_recognized() -> None:
    table, memo, transport = FakeTable(), Memo(), FakeTransport()
    table.steady = True
    connection = Connection(TcpTable("t"), {"t": table}, memo, trust())
    connection.connection_made(transport)
    connection.data_received(b"get hit\n")
    connection.data_received(b"get hit")  # a key that goes on with what is a request by itself
    connection.data_received(b"get hit\n")
    connection.data_received(b"get hit1\nget hit2\n")
    assert table.answered == [b"hit", b"hitget hit", b"hit1", b"hit2"]
    assert memo.get(b"get hit\n") == b"200 hit\n"
    assert memo.get(b"get hit1\nget hit2\n") is None
    assert transport.text == b"200 hit\n200 hitget%20hit\n200 hit1\n200 hit2\n"


async def test_nothing_overtakes_a_request_that_waits() -> None:
    table, memo, transport = FakeTable(), Memo(), FakeTransport()
    table.steady = True
    connection = Connection(TcpTable("t"), {"t": table}, memo, trust())
    connection.connection_made(transport)
    connection.data_received(b"get hit\n")
    connection.data_received(b"get miss\n")
    connection.data_received(b"get hit\n")
    assert transport.text == b"200 hit\n"
    table.gate.set()
    await asyncio.sleep(0.01)
    assert transport.text == b"200 hit\n500 not%20found\n200 hit\n"


def test_before_anything_is_answered_somebody_looks_whether_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("mailmaps.connection.monotonic", lambda: now)
    table, memo, transport = FakeTable(), Memo(), FakeTransport()
    table.steady = True
    looked: list[bytes] = []

    def look() -> None:
        memo.clear()
        looked.append(transport.text)

    connection = Connection(TcpTable("t"), {"t": table}, memo, Trust(look))
    connection.connection_made(transport)
    connection.data_received(b"get hit\n")
    connection.data_received(b"get hit\n")
    assert (looked, len(table.answered)) == ([b""], 1)
    now += LOOK + 0.1
    connection.data_received(b"get hit\n")
    assert (looked, len(table.answered)) == ([b"", b"200 hit\n" * 2], 2)


def test_what_begins_behind_a_request_is_not_taken_for_it() -> None:
    table, memo = FakeTable(), Memo()
    table.steady = True
    for _ in range(2):  # by one client, and by another
        transport = FakeTransport()
        connection = Connection(TcpTable("t"), {"t": table}, memo, trust())
        connection.connection_made(transport)
        connection.data_received(b"get hit\nget hi")
        connection.data_received(b"t2\n")
        assert transport.text == b"200 hit\n200 hit2\n"


def test_a_request_before_nonsense_is_answered_and_the_connection_closed() -> None:
    connection, transport = connected(FakeTable())
    connection.data_received(b"get hit\nnonsense\n")
    assert transport.text.startswith(b"200 hit\n400 ")
    assert transport.is_closing()


async def test_after_nonsense_a_flood_ends() -> None:
    connection, transport = connected(FakeTable())
    connection.data_received(b"get hit\n" * MOST_PER_TURN + b"nonsense\n" + b"get hit\n" * MOST_PER_TURN)
    for _ in range(20):
        await settle()
    assert transport.text.count(b"200 ") == MOST_PER_TURN
    assert transport.text.count(b"400 ") == 1
    assert transport.is_closing()


async def test_an_answer_that_comes_after_the_end_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    table = FakeTable()
    connection, transport = connected(table)
    connection.data_received(b"get miss\nget other\n")
    connection.cut()
    said = transport.text
    table.fault = RuntimeError("late")
    table.gate.set()
    with caplog.at_level(logging.ERROR):
        await settle()
    assert transport.text == said
    assert not caplog.records
