"""socketmap_table(5), byte for byte (facts: src/util/dict_sockmap.c, netstring.c)."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.protocols.netstring import NetstringReader, netstring
from mailmaps.protocols.request import ProtocolError, Request
from mailmaps.protocols.socketmap import LONGEST_REPLY, LONGEST_REQUEST, Socketmap


@pytest.mark.parametrize(
    ("wire", "request_"),
    [
        (b"19:aliases user@ex.org,", Request("aliases", b"user@ex.org")),
        (b"9:a x y\n%00,", Request("a", b"x y\n%00")),
        (b"2:a ,", Request("a", b"")),
        (b"4:\xff b\xff,", Request("\\xff", b"b\xff")),
    ],
)
def test_requests(wire: bytes, request_: Request) -> None:
    assert Socketmap().feed(wire) == [request_]


def test_split_at_every_byte_and_two_in_one_segment() -> None:
    dialog = netstring(b"a x@y") + netstring("b ü,z".encode())
    expected = [Request("a", b"x@y"), Request("b", "ü,z".encode())]
    assert Socketmap().feed(dialog) == expected
    for cut in range(len(dialog)):
        codec = Socketmap()
        assert codec.feed(dialog[:cut]) + codec.feed(dialog[cut:]) == expected
    codec = Socketmap()
    assert [one for byte in dialog for one in codec.feed(bytes([byte]))] == expected


@pytest.mark.parametrize(
    "wire",
    [
        b"3:abc,",
        b":,",
        b"x",
        b"-1:,",
        b"+3:a b,",
        b" 3:a b,",
        b"03:a b,",
        b"3:a bX",
        b"999999",
        b"20000:",
        b"9" * 5000,
        "٣:a b,".encode(),
    ],
)
def test_what_makes_no_sense_gets_an_answer_and_is_no_verdict(wire: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        Socketmap().feed(netstring(b"a ok") + wire)
    assert caught.value.requests == [Request("a", b"ok")]
    reader = NetstringReader(LONGEST_REPLY)
    reader.feed(caught.value.reply)
    reply = reader.next()
    assert reply is not None
    assert reply.startswith(b"PERM ")


def test_a_request_has_a_limit() -> None:
    fits = b"a " + b"x" * (LONGEST_REQUEST - 2)
    assert Socketmap().feed(netstring(fits)) == [Request("a", fits[2:])]
    with pytest.raises(ProtocolError):
        Socketmap().feed(b"%d:" % (LONGEST_REQUEST + 1))


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (Found("a b%\n"), b"8:OK a b%\n,"),
        (Found("ü"), b"5:OK \xc3\xbc,"),
        (NOT_FOUND, b"9:NOTFOUND ,"),
        (Unavailable("later"), b"10:TEMP later,"),
        (Unavailable("two\nlines \udcff"), b"16:TEMP two?lines ?,"),
        (Unavailable("x" + "ü" * 600), netstring(b"TEMP x" + "ü".encode() * 511)),
    ],
)
def test_replies(answer: Answer, reply: bytes) -> None:
    assert Socketmap().encode(Request("a", b"k"), answer) == reply


def test_an_unknown_name_is_a_configuration_error() -> None:
    assert Socketmap().encode_no_table(Request("nope", b"k")) == b"18:PERM no table nope,"


def test_a_value_that_does_not_fit_is_never_cut(caplog: pytest.LogCaptureFixture) -> None:
    fits = "x" * (LONGEST_REPLY - 3)
    assert Socketmap().encode(Request("a", b"k"), Found(fits)).startswith(b"100000:OK x")
    with caplog.at_level(logging.WARNING):
        reply = Socketmap().encode(Request("a", b"k"), Found(fits + "x"))
    assert b"TEMP " in reply[:10]
    assert "table=a key=k" in caplog.text


@given(st.lists(st.binary(max_size=50)))
def test_no_bytes_raise_anything_but_protocol_error(chunks: list[bytes]) -> None:
    codec = Socketmap()
    try:
        for chunk in chunks:
            codec.feed(chunk)
    except ProtocolError:
        pass
