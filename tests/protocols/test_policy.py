"""Policy delegation, byte for byte (SMTPD_POLICY_README; facts: src/smtpd/smtpd_check.c:3996-4196)."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.policy.action import DUNNO, Action, Word, cannot_say
from mailmaps.protocols.policy import LONGEST_REQUEST, PolicyDelegation, PolicyRequest
from mailmaps.protocols.request import ProtocolError

FIRST = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a=b@example.com\nrecipient=\n\n"
SECOND = b"protocol_state=DATA\nrequest=smtpd_access_policy\nnew_in_4.0=x\n\n"

REQUESTS = [
    PolicyRequest({
        b"request": b"smtpd_access_policy",
        b"protocol_state": b"RCPT",
        b"sender": b"a=b@example.com",
        b"recipient": b"",
    }),
    PolicyRequest({b"protocol_state": b"DATA", b"request": b"smtpd_access_policy", b"new_in_4.0": b"x"}),
]  # fmt: skip

# What access(5) takes for a permission, or for the name of a restriction.
PERMITS = re.compile(rb"action=\s*(OK|RELAY|[0-9]+\s*|PERMIT.*|)\n", re.IGNORECASE)


def test_split_at_every_byte_and_two_in_one_segment() -> None:
    dialog = FIRST + SECOND
    assert PolicyDelegation().feed(dialog) == REQUESTS
    for cut in range(len(dialog)):
        codec = PolicyDelegation()
        assert codec.feed(dialog[:cut]) + codec.feed(dialog[cut:]) == REQUESTS
    codec = PolicyDelegation()
    assert [one for byte in dialog for one in codec.feed(bytes([byte]))] == REQUESTS
    assert codec.is_between


def test_attributes_of_one_request_are_not_seen_by_the_next() -> None:
    assert b"sender" not in PolicyDelegation().feed(FIRST + SECOND)[1].attributes


def test_requests_of_one_shape_are_understood_as_the_first_was() -> None:
    codec = PolicyDelegation()
    first, second, third, fourth = codec.feed(
        FIRST + FIRST.replace(b"a=b@", b"c=\xff=") + FIRST.replace(b"RCPT", b"") + SECOND
    )
    assert [one.attributes[b"sender"] for one in (first, second, third)] == [
        b"a=b@example.com",
        b"c=\xff=example.com",
        b"a=b@example.com",
    ]
    assert (third.state, fourth) == ("", REQUESTS[1])
    for odd in (b"x\n", b"sender=twice\n", b"=\n"):
        assert codec.feed(FIRST[:-1] + odd + b"\n")[0].problem
    (more,) = codec.feed(FIRST[:-1] + b"new=x\n\n")
    assert (more.problem, more.attributes[b"new"]) == ("", b"x")


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (b"\n", "no attributes"),
        (b"no equals sign\n\n", "name=value"),
        (b"=value\n\n", "without a name"),
        (b"a=1\na=2\n\n", "twice"),
    ],
)
def test_what_is_not_understood_is_said_and_the_next_is_read(block: bytes, problem: str) -> None:
    first, second = PolicyDelegation().feed(block + FIRST)
    assert problem in first.problem
    assert second == REQUESTS[0]


def test_bytes_that_are_no_utf8_come_back_as_they_were() -> None:
    (request,) = PolicyDelegation().feed(b"sender=\xff\xc3\xbc@example.com\n\n")
    assert request.attributes[b"sender"] == b"\xff\xc3\xbc@example.com"


def test_a_request_without_end_is_refused_after_those_before_it() -> None:
    codec = PolicyDelegation()
    with pytest.raises(ProtocolError) as caught:
        codec.feed(FIRST + b"x=" + b"y" * LONGEST_REQUEST)
    assert caught.value.requests == REQUESTS[:1]
    assert caught.value.reply == b"action=451 4.3.0 the request is too long\n\n"


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        (DUNNO, b"action=DUNNO\n\n"),
        (Action(Word.NOT_YOURS, "not yours"), b"action=553 5.7.1 not yours\n\n"),
        (Action(Word.LATER, "limit\r\nof 5\n"), b"action=450 4.7.1 limit of 5\n\n"),
        (Action(Word.HOLD, ""), b"action=HOLD refused by policy\n\n"),
        (Action(Word.REJECT, "\n"), b"action=554 5.7.1 refused by policy\n\n"),
        (Action(Word.NOT_YOURS, "a\udcff\x00b\x7f"), b"action=553 5.7.1 a??b?\n\n"),
        (
            cannot_say("RCPT", "away"),
            b"action=DEFER_IF_PERMIT 4.3.0 Cannot say now, try again later (away)\n\n",
        ),
        (cannot_say("DATA", "away"), b"action=451 4.3.0 Cannot say now, try again later (away)\n\n"),
    ],
)
def test_replies(action: Action, reply: bytes) -> None:
    assert PolicyDelegation().encode(action) == reply


@given(word=st.sampled_from(Word), text=st.text(max_size=600))
def test_no_reply_permits_anything(word: Word, text: str) -> None:
    reply = PolicyDelegation().encode(Action(word, text))
    assert reply.startswith(b"action=")
    assert reply.endswith(b"\n\n")
    assert reply.count(b"\n") == 2
    assert len(reply) < 500
    assert not PERMITS.match(reply)
    reply.decode()


@given(st.lists(st.binary(max_size=200)), st.lists(st.sampled_from([b"\n", b"=", b"\n\n", FIRST])))
def test_bytes_at_random_raise_nothing_else_and_are_bounded(pieces: list[bytes], more: list[bytes]) -> None:
    codec = PolicyDelegation()
    found = []
    for piece in pieces + more:
        with suppress(ProtocolError):
            found += codec.feed(piece)
    whole = b"".join(pieces + more)
    again = PolicyDelegation()
    with suppress(ProtocolError):
        assert again.feed(whole) == found
