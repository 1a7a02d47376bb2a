"""The mux socket of saslauthd(8), byte for byte (cyrus-sasl lib/checkpw.c; facts/dovecot.md 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.auth.attempt import REJECTED, Accepted, Account, Login
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.asked import Asked, LoginProtocolError
from mailmaps.protocols.saslauthd import LONGEST_QUESTION, Saslauthd


def question(*strings: bytes) -> bytes:
    return b"".join(len(one).to_bytes(2, "big") + one for one in strings)


JAN = question(b"jawi_lx", b"s\xc3\xa9cret", b"smtp", b"lxtreme.nl")


def login(items: list[bytes | Asked]) -> Login:
    [asked] = items
    assert isinstance(asked, Asked)
    assert isinstance(asked.question, Login)
    return asked.question


def test_a_question() -> None:
    asked = login(Saslauthd().feed(JAN))
    assert (asked.user, asked.realm, asked.service, asked.client) == ("jawi_lx", "lxtreme.nl", "smtp", "")
    assert asked.password.reveal() == b"s\xc3\xa9cret"
    assert "cret" not in repr(asked)


def test_a_fifth_string_is_the_client_and_is_never_waited_for() -> None:
    assert login(Saslauthd().feed(JAN + question(b"198.51.100.7;4711"))).client == "198.51.100.7"
    codec = Saslauthd()
    assert login(codec.feed(JAN + b"\0")).client == ""
    assert codec.is_finished
    assert codec.feed(b"\x07more of it") == []


def test_split_at_every_byte() -> None:
    for cut in range(len(JAN)):
        codec = Saslauthd()
        assert codec.feed(JAN[:cut]) == []
        assert login(codec.feed(JAN[cut:])).user == "jawi_lx"


def test_the_results() -> None:
    codec = Saslauthd()
    [asked] = codec.feed(JAN)
    assert isinstance(asked, Asked)
    assert codec.encode(asked, Accepted(Account("jawi_lx"))) == b"\0\2OK"
    assert codec.encode(asked, REJECTED) == b"\0\2NO"
    assert codec.encode(asked, Unavailable("the database is away")) is None


def test_empty_strings_are_a_question() -> None:
    assert login(Saslauthd().feed(question(b"", b"", b"", b""))).user == ""


def test_too_long_a_question() -> None:
    codec = Saslauthd()
    assert codec.feed(b"\xff" * LONGEST_QUESTION) == []
    with pytest.raises(LoginProtocolError):
        codec.feed(b"\xff")


@given(st.lists(st.binary(max_size=300)))
def test_garbage_raises_nothing_else(pieces: list[bytes]) -> None:
    codec = Saslauthd()
    try:
        for piece in pieces:
            codec.feed(piece)
    except LoginProtocolError:
        pass
