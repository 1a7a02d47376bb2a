"""Dovecot's auth protocol as Postfix speaks it, byte for byte (src/xsasl/xsasl_dovecot_server.c)."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.auth.attempt import REJECTED, UNKNOWN, Accepted, Account, Login, Result
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.asked import Asked, LoginProtocolError
from mailmaps.protocols.dovecot_auth import LONGEST_LINE, MOST_BEGUN, DovecotAuth

HELLO = b"VERSION\t1\t0\nCPID\t4711\n"
PLAIN = base64.b64encode(b"\0anna@second.example\0s e\xc3\xa9cret")
JAN = Accepted(Account("jawi_lx"))


def auth(number: int, mechanism: bytes, resp: bytes | None = None) -> bytes:
    line = b"AUTH\t%d\t%s\tservice=smtp\tnologin\tlip=192.0.2.1\trip=198.51.100.7\tsecured" % (
        number,
        mechanism,
    )
    return line + (b"" if resp is None else b"\tresp=" + resp) + b"\n"


def login(item: bytes | Asked) -> tuple[str, bytes]:
    assert isinstance(item, Asked)
    assert isinstance(item.question, Login)
    return item.question.user, item.question.password.reveal()


def test_the_greeting_has_every_mechanism_before_spid() -> None:
    greeting = DovecotAuth().greeting.decode()
    words = [line.split("\t")[0] for line in greeting.splitlines()]
    assert words == ["VERSION", "MECH", "MECH", "SPID", "CUID", "COOKIE", "DONE"]
    assert greeting.startswith("VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n")
    assert re.search(r"\nCOOKIE\t[0-9a-f]{32}\nDONE\n$", greeting)
    assert greeting != DovecotAuth().greeting.decode()


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"plain", b"Plain"])
def test_plain_with_an_initial_response(mechanism: bytes) -> None:
    codec = DovecotAuth()
    [asked] = codec.feed(HELLO + auth(7, mechanism, PLAIN))
    assert login(asked) == ("anna@second.example", "s eécret".encode())
    assert isinstance(asked, Asked)
    assert isinstance(asked.question, Login)
    assert (asked.question.service, asked.question.client) == ("smtp", "198.51.100.7")
    assert codec.encode(asked, JAN) == b"OK\t7\tuser=jawi_lx\n"


def test_plain_without_an_initial_response() -> None:
    codec = DovecotAuth()
    assert codec.feed(auth(1, b"PLAIN")) == [b"CONT\t1\t\n"]  # the tab is required
    [asked] = codec.feed(b"CONT\t1\t" + PLAIN + b"\n")
    assert login(asked) == ("anna@second.example", "s eécret".encode())


@pytest.mark.parametrize("initial", [False, True])
def test_login(initial: bool) -> None:
    codec = DovecotAuth()
    user = base64.b64encode(b"jawi_lx")
    if initial:
        assert codec.feed(auth(2, b"LOGIN", user)) == [b"CONT\t2\tUGFzc3dvcmQ6\n"]
    else:
        assert codec.feed(auth(2, b"LOGIN")) == [b"CONT\t2\tVXNlcm5hbWU6\n"]
        assert codec.feed(b"CONT\t2\t" + user + b"\n") == [b"CONT\t2\tUGFzc3dvcmQ6\n"]
    [asked] = codec.feed(b"CONT\t2\t" + base64.b64encode(b"pw") + b"\n")
    assert login(asked) == ("jawi_lx", b"pw")


def test_the_results() -> None:
    codec = DovecotAuth()
    replies: list[tuple[Result, bytes | None]] = [
        (JAN, b"OK\t0\tuser=jawi_lx\n"),
        (Accepted(Account("a\tb")), b"OK\t1\tuser=a\x01tb\n"),
        (REJECTED, b"FAIL\t2\n"),
        (Unavailable("the database is away"), None),
        (UNKNOWN, None),
    ]
    for number, (result, reply) in enumerate(replies):
        [asked] = codec.feed(auth(number, b"PLAIN", PLAIN))
        assert isinstance(asked, Asked)
        assert codec.encode(asked, result) == reply


@pytest.mark.parametrize(
    "said",
    [
        b"!!!",
        b"YWJj",  # no NUL
        base64.b64encode(b"\0a\0b\0c"),
        base64.b64encode(b"root\0anna\0pw"),  # to act for somebody else
        b"",
    ],
)
def test_what_is_no_plain_response_fails(said: bytes) -> None:
    assert DovecotAuth().feed(auth(3, b"PLAIN", said)) == [b"FAIL\t3\n"]


def test_an_empty_response_and_an_authorization_for_oneself() -> None:
    assert DovecotAuth().feed(auth(3, b"PLAIN", b"=")) == [b"FAIL\t3\n"]
    codec = DovecotAuth()
    assert codec.feed(auth(4, b"LOGIN", b"=")) == [b"CONT\t4\tUGFzc3dvcmQ6\n"]
    [asked] = codec.feed(auth(5, b"PLAIN", base64.b64encode(b"anna\0anna\0pw")))
    assert login(asked) == ("anna", b"pw")


def test_unknown_mechanisms_ids_and_words() -> None:
    codec = DovecotAuth()
    assert codec.feed(auth(1, b"CRAM-MD5")) == [b"FAIL\t1\n"]
    assert codec.feed(b"CONT\t99\tYWJj\n") == [b"FAIL\t99\n"]
    assert codec.feed(b"SOMETHING\tnew\nCPID\n") == []


def test_a_cancelled_login_has_no_reply() -> None:
    codec = DovecotAuth()
    [asked] = codec.feed(auth(1, b"PLAIN", PLAIN))
    assert isinstance(asked, Asked)
    assert codec.feed(b"CANCEL\t1\n") == []
    assert codec.encode(asked, JAN) == b""


def test_an_abandoned_dialog_does_not_stay_for_ever() -> None:
    codec = DovecotAuth()
    for number in range(MOST_BEGUN + 1):
        codec.feed(auth(number, b"LOGIN"))
    assert codec.feed(b"CONT\t0\tYWJj\n") == [b"FAIL\t0\n"]
    assert codec.feed(b"CONT\t1\tYWJj\n") == [b"CONT\t1\tUGFzc3dvcmQ6\n"]


@pytest.mark.parametrize(
    "line",
    [
        b"VERSION\t2\t0\n",
        b"VERSION\n",
        b"AUTH\n",
        b"AUTH\t1\n",
        b"AUTH\tx\tPLAIN\n",
        b"AUTH\t-1\tPLAIN\n",
        "AUTH\t\N{SUPERSCRIPT TWO}\tPLAIN\n".encode(),
        b"CONT\n",
        b"x" * LONGEST_LINE,
        b"AUTH\t1\tPLAIN\tresp=" + b"A" * LONGEST_LINE + b"\n",
    ],
)
def test_nonsense_ends_the_connection_and_is_not_repeated(line: bytes) -> None:
    codec = DovecotAuth()
    with pytest.raises(LoginProtocolError) as error:
        codec.feed(auth(50, b"PLAIN", PLAIN) + line)
    assert [login(item) for item in error.value.items] == [("anna@second.example", "s eécret".encode())]
    assert "AAAA" not in str(error.value)


def test_a_number_in_use() -> None:
    codec = DovecotAuth()
    codec.feed(auth(1, b"LOGIN"))
    with pytest.raises(LoginProtocolError):
        codec.feed(auth(1, b"LOGIN"))


def test_split_at_every_byte() -> None:
    dialog = HELLO + auth(1, b"PLAIN", PLAIN) + auth(2, b"LOGIN") + b"CANCEL\t2\r\n"
    whole = DovecotAuth().feed(dialog)
    assert len(whole) == 2
    for cut in range(len(dialog)):
        codec = DovecotAuth()
        assert str(codec.feed(dialog[:cut]) + codec.feed(dialog[cut:])) == str(whole)


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"AUTH\t1\tPLAIN\t", b"CONT\t1\t", b"\n", b"resp=", PLAIN])
    )
)
def test_garbage_raises_nothing_else(pieces: list[bytes]) -> None:
    codec = DovecotAuth()
    try:
        for piece in pieces:
            codec.feed(piece)
    except LoginProtocolError:
        pass


def test_a_password_does_not_show() -> None:
    [asked] = DovecotAuth().feed(auth(1, b"PLAIN", PLAIN))
    assert "cret" not in repr(asked)


@pytest.mark.parametrize(
    ("said", "meant"),
    [(b"smtp", "smtp"), (b"mail", "smtp"), (b"", "smtp"), (b"imap", "imap"), (b"lmtp", "smtp")],
)
def test_whoever_asks_here_sends_mail_unless_he_says_otherwise(said: bytes, meant: str) -> None:
    [asked] = DovecotAuth().feed(b"AUTH\t1\tPLAIN\tservice=%s\tresp=%s\n" % (said, PLAIN))
    assert isinstance(asked, Asked)
    assert isinstance(asked.question, Login)
    assert asked.question.service == meant
