"""Our own login protocol, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.auth.attempt import (
    REJECTED,
    UNKNOWN,
    Accepted,
    Account,
    Listed,
    Listing,
    Login,
    Lookup,
    Result,
)
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.asked import Asked, LoginProtocolError
from mailmaps.protocols.login import LONGEST_LINE, LoginLines
from mailmaps.protocols.tab_escaped import escape, unescape

LOGIN = (
    b"LOGIN\tuser=anna@second.example\tpassword=a\x01tb\x011c=d\tservice=imap\trip=2001:db8::1"
    b"\tlater=x\tdovecot=2.3\n"
)


def only(data: bytes) -> Asked:
    [asked] = LoginLines().feed(data)
    assert isinstance(asked, Asked)
    return asked


def test_a_login() -> None:
    asked = only(LOGIN)
    assert isinstance(asked.question, Login)
    assert (asked.question.user, asked.question.service, asked.question.client, asked.tag) == (
        "anna@second.example", "imap", "2001:db8::1", "2.3",
    )  # fmt: skip
    assert asked.question.password.reveal() == b"a\tb\x01c=d"
    assert "c=d" not in repr(asked)


def test_a_lookup_and_a_list() -> None:
    assert only(b"LOOKUP\tuser=jawi_lx\tservice=lmtp\tdovecot=2.4\r\n") == (Lookup("jawi_lx", "lmtp"), "2.4")
    assert only(b"LIST\n").question == Listing()


@pytest.mark.parametrize(
    ("account", "of_23", "of_24"),
    [
        (
            Account("jan", 5001, 5002, "/home/jan", "/mail/ex.org/jan", 25),
            b"OK\tuser=jan\tuid=5001\tgid=5002\thome=/home/jan\tmail=maildir:/mail/ex.org/jan\tquota_rule=*:storage=25M\n",
            b"OK\tuser=jan\tuid=5001\tgid=5002\thome=/home/jan\tmail_driver=maildir\tmail_path=/mail/ex.org/jan"
            b"\tquota_storage_size=25M\n",
        ),
        (Account("jan"), b"OK\tuser=jan\n", b"OK\tuser=jan\n"),
        (
            Account("jan", mail="/mail/a:INDEX=/etc"),
            b"OK\tuser=jan\tmail=maildir:/mail/a::INDEX=/etc\n",
            b"OK\tuser=jan\tmail_driver=maildir\tmail_path=/mail/a:INDEX=/etc\n",
        ),
        (
            Account("jan", quota=0),
            b"OK\tuser=jan\tquota_rule=*:storage=0M\n",
            b"OK\tuser=jan\tquota_storage_size=0M\n",
        ),
    ],
)
def test_the_fields_of_each_dovecot(account: Account, of_23: bytes, of_24: bytes) -> None:
    codec = LoginLines()
    lookup = Lookup("jan")
    assert codec.encode(Asked(lookup, "2.3"), Accepted(account)) == of_23
    assert codec.encode(Asked(lookup, "2.4"), Accepted(account)) == of_24


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (REJECTED, b"NO\n"),
        (UNKNOWN, b"UNKNOWN\n"),
        (Unavailable("away\nfor long"), b"LATER\taway?for long\n"),
        (Listed(()), b"OK\n"),
        (Listed(("anna", "b\tc")), b"USER\tanna\nUSER\tb\x01tc\nOK\n"),
    ],
)
def test_the_other_results(result: Result, reply: bytes) -> None:
    assert LoginLines().encode(Asked(Listing()), result) == reply


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"login\tuser=x\n",
        b"LOGIN\tuser=x\n",
        b"LOOKUP\n",
        b"x" * LONGEST_LINE,
        b"LIST\t" + b"x" * LONGEST_LINE + b"\n",
    ],
)
def test_nonsense_ends_the_connection(line: bytes) -> None:
    with pytest.raises(LoginProtocolError) as error:
        LoginLines().feed(b"LIST\n" + line)
    assert len(error.value.items) == 1


def test_split_at_every_byte() -> None:
    dialog = LOGIN + b"LIST\n"
    whole = str(LoginLines().feed(dialog))
    for cut in range(len(dialog)):
        codec = LoginLines()
        assert str(codec.feed(dialog[:cut]) + codec.feed(dialog[cut:])) == whole


@given(st.binary())
def test_any_bytes_survive_a_field(value: bytes) -> None:
    assert not set(escape(value)) & set(b"\0\t\r\n")
    assert unescape(escape(value)) == value


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"LOGIN\tuser=", b"\tpassword=", b"\n", b"\x01"])))
def test_garbage_raises_nothing_else(pieces: list[bytes]) -> None:
    codec = LoginLines()
    try:
        for piece in pieces:
            codec.feed(piece)
    except LoginProtocolError:
        pass
