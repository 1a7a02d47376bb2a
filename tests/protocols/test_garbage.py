"""Both codecs against bytes that nobody sane sends, and every way of cutting those that somebody does.

The rules under test: only `ProtocolError` leaves a codec; what it keeps is bounded by its limit; the requests
are those of a plain model of the format (below, written without the codecs), however the bytes are cut. The
work is linear, since a byte more costs at most a copy of what is kept, and that is bounded.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailmaps.protocols import tcp_table
from mailmaps.protocols.netstring import NetstringReader, netstring
from mailmaps.protocols.request import Codec, ProtocolError, Request
from mailmaps.protocols.socketmap import LONGEST_REQUEST, Socketmap
from mailmaps.protocols.tcp_table import LONGEST_LINE, TcpTable


class Outcome(NamedTuple):
    """What became of some bytes: the requests, and whether they ended in an error or between two requests."""

    requests: list[Request]
    failed: bool
    is_between: bool


def model_of_tcp_table(data: bytes) -> Outcome:
    """One line a request; the last one is not whole."""
    *lines, rest = data.split(b"\n")
    requests: list[Request] = []
    for line in lines:
        whole = re.fullmatch(rb"get ((?:[^%]|%[0-9A-Fa-f]{2})*?)\r?", line, re.DOTALL)
        if whole is None or len(line) > LONGEST_LINE:
            return Outcome(requests, failed=True, is_between=False)
        requests.append(Request("t", unquote_to_bytes(whole[1])))
    failed = len(rest) > LONGEST_LINE
    return Outcome(requests, failed, not rest and not failed)


def model_of_socketmap(data: bytes) -> Outcome:
    """Netstrings of a name, a blank and a key; the last one is not whole."""
    requests: list[Request] = []
    while head := re.match(rb"(0|[1-9][0-9]{0,4}):", data):
        length, start = int(head[1]), head.end()
        payload, comma = data[start : start + length], data[start + length : start + length + 1]
        if length > LONGEST_REQUEST or comma not in (b"", b",") or (comma and b" " not in payload):
            return Outcome(requests, failed=True, is_between=False)
        if not comma:
            return Outcome(requests, failed=False, is_between=False)
        name, key = payload.split(b" ", 1)
        requests.append(Request(name.decode("ascii", "backslashreplace"), key))
        data = data[start + length + 1 :]
    failed = re.fullmatch(rb"(0|[1-9][0-9]{0,4})?", data) is None
    return Outcome(requests, failed, not data)


@dataclass(frozen=True)
class Protocol:
    """A codec, its model, the most bytes it may keep, and pieces of what its clients say."""

    codec: Callable[[], Codec]
    model: Callable[[bytes], Outcome]
    most_kept: int
    reply: bytes  # to what makes no sense, its beginning
    pieces: Sequence[bytes]


PROTOCOLS = {
    "tcp_table": Protocol(
        tcp_table.codec("t"),
        model_of_tcp_table,
        LONGEST_LINE,
        b"400 ",
        (
            *(
                b"get a@b.test\n",
                b"get %41%c3%BC\n",
                b"get \xff \x00\n",
                b"get a\r\n",
                b"get \n",
                b"get a\r\r\n",
            ),
            *(b"get ", b"get", b"g", b"%", b"%4", b"%zz", b"\n", b"\r", b" ", b"\x00", b"\x80", b"put a b\n"),
            *(b"x" * (LONGEST_LINE - 5), b"x" * LONGEST_LINE, b"get %\n", b"GET a\n", b"200 OK\n", b"2:a ,"),
        ),
    ),
    "socketmap": Protocol(
        Socketmap,
        model_of_socketmap,
        LONGEST_REQUEST + len(f"{LONGEST_REQUEST}:"),
        b"PERM ",
        (
            *(
                netstring(b"a x@y.test"),
                netstring(b"a "),
                netstring(b" "),
                netstring(b"\xff \x00,\n"),
                b"2:a ,",
            ),
            *(b"0", b"1", b"9", b":", b",", b" ", b"-", b"+", b"0:,", b"0:", b"3:abc,", b"5:a b", b"03:a b,"),
            *(
                netstring(b"a " + b"x" * (LONGEST_REQUEST - 2)),
                netstring(b"a " + b"x" * (LONGEST_REQUEST - 1)),
            ),
            *(
                b"99999:",
                b"999999",
                b"16384:a ",
                b"16385:",
                b"get a\n",
                b"\x00",
                b"\xd9\xa3:a b,",
                b"x" * 9000,
            ),
        ),
    ),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[str(request.param)]


def kept(codec: Codec) -> int:
    """How many bytes the codec keeps."""
    holder = codec._reader if isinstance(codec, Socketmap) else codec
    assert isinstance(holder, NetstringReader | TcpTable)
    return len(holder._buffer)


def feed(protocol: Protocol, chunks: Sequence[bytes]) -> Outcome:
    """What becomes of the chunks, as a connection feeds them; nothing is fed after an error."""
    codec = protocol.codec()
    requests: list[Request] = []
    for chunk in chunks:
        try:
            requests += codec.feed(chunk)
        except ProtocolError as error:
            requests += error.requests
            reply = error.reply
            break
        assert kept(codec) <= protocol.most_kept
        assert codec.is_between == (kept(codec) == 0)
    else:
        return Outcome(requests, failed=False, is_between=codec.is_between)
    assert protocol.reply in reply[:10]
    assert len(reply) < 200
    return Outcome(requests, failed=True, is_between=False)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The same bytes in chunks."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


places = st.lists(st.integers(0, 1 << 20), max_size=20)


def garbage(protocol: Protocol) -> st.SearchStrategy[bytes]:
    """Bytes at random, and pieces of requests in any order with bytes at random between them."""
    pieces = st.sampled_from(protocol.pieces) | st.binary(max_size=4)
    return st.binary(max_size=200) | st.lists(pieces, max_size=12).map(b"".join)


@given(garbage(PROTOCOLS["tcp_table"]), places)
@example(b"get " + b"x" * (LONGEST_LINE - 5) + b"\n", [])  # as long as the fast way takes
@example(b"get " + b"x" * (LONGEST_LINE - 4) + b"\n", [])  # as long as the long way takes
@example(b"get " + b"x" * (LONGEST_LINE - 3) + b"\n", [])  # too long
@example(b"get aget b\n", [5])  # what comes second is a whole line by itself
def test_lines_are_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    tcp = PROTOCOLS["tcp_table"]
    assert feed(tcp, cut(data, places)) == feed(tcp, [data]) == tcp.model(data)


@given(garbage(PROTOCOLS["socketmap"]), places)
def test_netstrings_are_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    sockets = PROTOCOLS["socketmap"]
    assert feed(sockets, cut(data, places)) == feed(sockets, [data]) == sockets.model(data)


@given(st.binary(max_size=30).map(lambda key: b"get " + key.replace(b"\n", b"") + b"\n"))
def test_the_fast_way_for_one_whole_line_is_the_long_way(line: bytes) -> None:
    tcp = PROTOCOLS["tcp_table"]
    assert feed(tcp, [line]) == feed(tcp, [line[:-1], b"\n"]) == feed(tcp, [b"g", line[1:]])


def streams(protocol: Protocol, chance: random.Random) -> Iterator[bytes]:
    """Half of it bytes at random, half of it pieces of requests with some bytes changed."""
    for _ in range(40):
        yield chance.randbytes(25_000)
    for _ in range(150):
        stream = bytearray(b"".join(chance.choices(protocol.pieces, k=15)))
        for _ in range(chance.randrange(3)):
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        yield bytes(stream)
    for sound in protocol.pieces[:5]:
        for _ in range(40):
            yield sound * chance.randrange(200) + chance.randbytes(50)


def test_millions_of_bytes(protocol: Protocol) -> None:
    """Read as by a server whose client starts anew after each error, with the rest of what it had to say."""
    chance = random.Random(4)
    size = asked = failures = 0
    for data in streams(protocol, chance):
        size += len(data)
        while data:
            chunks = cut(data, [chance.randrange(1 << 20) for _ in range(chance.randrange(8))])
            outcome = feed(protocol, chunks)
            assert outcome == protocol.model(data)
            asked += len(outcome.requests)
            failures += outcome.failed
            data = data[1 + chance.randrange(4000) :] if outcome.failed else b""
    assert size > 2_000_000
    assert asked > 10_000
    assert failures > 1000


LONGEST_REQUESTS = {
    "tcp_table": b"get " + b"x" * (LONGEST_LINE - 4) + b"\n",
    "socketmap": netstring(b"t " + b"x" * (LONGEST_REQUEST - 2)),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_longest_request_a_byte_at_a_time(name: str) -> None:
    """What is kept after each byte is what came, so each byte copies no more than the limit."""
    codec, wire = PROTOCOLS[name].codec(), LONGEST_REQUESTS[name]
    for count, byte in enumerate(wire[:-1], 1):
        assert codec.feed(bytes([byte])) == []
        assert kept(codec) == count
    assert codec.feed(wire[-1:]) == [Request("t", b"x" * (LONGEST_LINE - 4 + 2 * (name == "socketmap")))]
    assert codec.is_between


@pytest.mark.parametrize(
    ("name", "wire"),
    [("tcp_table", b"get " + b"x" * 40_000), ("tcp_table", b"\x00" * 40_000), ("socketmap", b"9" * 40_000)],
)
def test_what_never_ends_is_refused_at_the_limit(name: str, wire: bytes) -> None:
    codec = PROTOCOLS[name].codec()
    for count in range(0, len(wire), 100):
        try:
            assert codec.feed(wire[count : count + 100]) == []
        except ProtocolError:
            break
    assert count <= PROTOCOLS[name].most_kept, "refused"


def steps(codec: Codec, data: bytes) -> int:
    """How many functions the codec calls for `data`: its work, but for copies of what it keeps."""
    counted = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        codec.feed(data)
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize(("name", "request_"), [("tcp_table", b"get a%40b\n"), ("socketmap", b"5:t a@b,")])
def test_work_grows_as_the_bytes_do(name: str, request_: bytes) -> None:
    codec = PROTOCOLS[name].codec
    few, many = steps(codec(), request_ * 1000), steps(codec(), request_ * 8000)
    assert many < 8.1 * few
