"""tcp_table(5), byte for byte (facts: src/util/dict_tcp.c, hex_quote.c)."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.protocols.request import ProtocolError, Request
from mailmaps.protocols.tcp_table import LONGEST_LINE, LONGEST_REPLY, TcpTable, quote, unquote


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b"get user@example.com\n", b"user@example.com"),
        (b"get %22x%20y%22@example.com\n", b'"x y"@example.com'),
        (b"get gr%C3%BCn@example.com\n", "grün@example.com".encode()),
        (b"get gr%c3%bcn@example.com\n", "grün@example.com".encode()),
        (b"get 100%25\n", b"100%"),
        (b"get *\n", b"*"),
        (b"get <>\n", b"<>"),
        (b"get \n", b""),
        (b"get a b\n", b"a b"),
        (b"get a\r\n", b"a"),
        (b"get a%0D\r\n", b"a\r"),
        (b"get a%00b\n", b"a\0b"),
    ],
)
def test_requests(line: bytes, key: bytes) -> None:
    assert TcpTable("t").feed(line) == [Request("t", key)]


def test_split_at_every_byte_and_two_in_one_segment() -> None:
    dialog = b"get a%25@b\nget %C3%BC\n"
    expected = [Request("t", b"a%@b"), Request("t", "ü".encode())]
    assert TcpTable("t").feed(dialog) == expected
    for cut in range(len(dialog)):
        codec = TcpTable("t")
        assert codec.feed(dialog[:cut]) + codec.feed(dialog[cut:]) == expected
    codec = TcpTable("t")
    assert [one for byte in dialog for one in codec.feed(bytes([byte]))] == expected


@pytest.mark.parametrize(
    "line", [b"put a b\n", b"get\n", b"\n", b"GET a\n", b"get a%2\n", b"get a%zz\n", b"get %\n"]
)
def test_what_makes_no_sense_gets_a_temporary_error(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        TcpTable("t").feed(b"get ok\n" + line + b"get never\n")
    assert caught.value.requests == [Request("t", b"ok")]
    assert caught.value.reply.startswith(b"400 ")
    assert caught.value.reply.endswith(b"\n")


def test_a_line_has_a_limit() -> None:
    longest = b"get " + b"x" * (LONGEST_LINE - 4)
    assert len(TcpTable("t").feed(longest + b"\n")) == 1
    for endless in (longest + b"x", longest + b"x\n"):
        with pytest.raises(ProtocolError):
            TcpTable("t").feed(endless)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (Found("virtual:"), b"200 virtual:\n"),
        (Found(" a b%\n"), b"200 %20a%20b%25%0A\n"),
        (Found("ü"), b"200 %C3%BC\n"),
        (NOT_FOUND, b"500 not%20found\n"),
        (Unavailable("try 5% later"), b"400 try%205%25%20later\n"),
    ],
)
def test_replies(answer: Answer, reply: bytes) -> None:
    assert TcpTable("t").encode(Request("t", b"k"), answer) == reply


def test_a_value_that_does_not_fit_is_never_cut(caplog: pytest.LogCaptureFixture) -> None:
    codec = TcpTable("virtual_alias_maps")
    fits = Found("x" * (LONGEST_REPLY - 5))
    assert codec.encode(Request("t", b"k"), fits) == b"200 " + b"x" * (LONGEST_REPLY - 5) + b"\n"
    with caplog.at_level(logging.WARNING):
        reply = codec.encode(Request("virtual_alias_maps", b"k\n@b"), Found("x" * (LONGEST_REPLY - 4)))
    assert reply.startswith(b"400 ")
    assert r'table=virtual_alias_maps key="k\n@b"' in caplog.text


@given(st.binary())
def test_quoting_is_undone(value: bytes) -> None:
    quoted = quote(value)
    assert unquote(quoted) == value
    assert quoted.isascii()
    assert not set(quoted) & set(b" \t\r\n\x7f")


@given(st.lists(st.binary(max_size=50)))
def test_no_bytes_raise_anything_but_protocol_error(chunks: list[bytes]) -> None:
    codec = TcpTable("t")
    try:
        for chunk in chunks:
            codec.feed(chunk)
    except ProtocolError:
        pass
