"""A notice as a mail: what its headers say, and that nobody can put anything of his own into them."""

from __future__ import annotations

import email
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailmaps.notices.message import as_address, needs_smtputf8, to_postmaster, to_user
from mailmaps.notices.notice import Notice, foreign_senders, limit_reached
from mailmaps.notices.notice import test as a_test

WHEN = datetime(2026, 11, 23, 10, 40, 10, tzinfo=timezone(timedelta(hours=1)))
FROM, TO, HOST = "mailmaps@mx.ex.org", "postmaster@ex.org", "mx.ex.org"
HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
]


def mail(notice: Notice) -> EmailMessage:
    return to_postmaster(notice, FROM, TO, HOST, WHEN)


def received(message: EmailMessage) -> EmailMessage:
    """The message as the other side reads it, of lines that SMTP can carry."""
    raw = message.as_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) < 78
    policy = SMTPUTF8 if needs_smtputf8(message) else SMTP
    return email.message_from_bytes(raw, policy=policy)


def test_the_headers() -> None:
    got = received(mail(a_test()))
    assert got.keys() == HEADERS
    assert (got["From"], got["To"]) == (FROM, TO)
    assert got["Subject"] == "mailmaps: Test of notices"
    assert got["Date"].datetime == WHEN
    assert got["Message-ID"].endswith(".mailmaps@mx.ex.org>")
    assert got["Auto-Submitted"] == "auto-generated"
    assert got.get_content_type() == "text/plain"
    assert got.get_content_charset() == "utf-8"


def test_two_mails_have_two_ids() -> None:
    assert mail(a_test())["Message-ID"] != mail(a_test())["Message-ID"]


def test_the_text_says_when_and_where() -> None:
    text = received(mail(a_test())).get_content()
    assert text.endswith("Noticed on mx.ex.org, Mon, 23 Nov 2026 10:40:10 +0100, by mailmaps.\r\n")


def test_paragraphs_are_wrapped_and_commands_are_not() -> None:
    login = "j" * 90
    text = received(mail(foreign_senders(login, 3, [("ä@ex.org", "::1")]))).get_content()
    assert f"  mailmaps senders explain {login} 'ä@ex.org'\r\n" in text
    # Nor is a word in a paragraph, which somebody may want to copy.
    assert "\r\n" + login + "\r\n" in text
    paragraphs = [line for line in text.split("\r\n") if not line.startswith("  ") and login not in line]
    assert max(map(len, paragraphs)) <= 72


def test_the_users_mail_is_answered_to_the_postmaster() -> None:
    notice = limit_reached("login", "jan", 5, "messages", "a day", "defer", "jan@ex.org")
    got = received(to_user(notice, FROM, TO, HOST, WHEN))
    assert (got["To"], got["Reply-To"], got["Auto-Submitted"]) == ("jan@ex.org", TO, "auto-generated")
    assert "mailmaps limits" not in got.get_content()
    assert "Noticed on" not in got.get_content()


@pytest.mark.parametrize(
    "address",
    ["a@b.test", '"jan jansen"@ex.org', "jan+x@ex.org", "o'b=c/d@ex.org", "jané@ex.org", "a@é.test"],
)
def test_an_address_stays_what_it_is(address: str) -> None:
    message = to_postmaster(a_test(), FROM, address, HOST, WHEN)
    assert message["To"].addresses[0].addr_spec == address
    spelt = received(message)["To"].addresses[0].addr_spec
    assert spelt.encode(errors="surrogateescape") == address.encode()  # email reads headers as ASCII
    assert needs_smtputf8(message) is not address.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jan",
        "a@b, c@d",
        "a@b c@d",
        "<a@b>",
        "a@b>\r\nDATA",
        "a@b\nBcc: c@d",
        "a@b NOTIFY=SUCCESS",
        "x: a@b;",
        "a@b@c",
        "a(b)@c",
        '"a"b"@c',
        "a\u202e@b",
        "a\udc80@b",
    ],
)
def test_what_is_no_address_is_not_mailed(text: str) -> None:
    with pytest.raises(ValueError, match="not one mail address"):
        to_postmaster(a_test(), FROM, text, HOST, WHEN)


@settings(deadline=None)
@given(st.from_regex(r"[ -~é\n\r]{0,8}@[ -~é\n\r]{0,8}", fullmatch=True) | st.text(max_size=20))
def test_an_address_is_one_or_none(text: str) -> None:
    try:
        address = as_address(text)
    except ValueError:
        return
    message = to_postmaster(a_test(), FROM, address, HOST, WHEN)
    assert len(received(message)["To"].addresses) == 1


NAMES = st.text(max_size=150) | st.from_regex(r"[a-z@.=?_\r\n: -]{0,150}", fullmatch=True)


@settings(max_examples=300, deadline=None)
@given(title=NAMES, lines=st.lists(NAMES, max_size=4))
def test_nothing_makes_a_header_or_a_long_line(title: str, lines: list[str]) -> None:
    """Also of a notice whose maker forgot to clean what he was given."""
    got = received(mail(Notice("test", "test", title, tuple(lines))))
    assert got.keys() == HEADERS
    assert (got["From"], got["To"]) == (FROM, TO)
    assert len(got.get_content().split("\r\n")) >= len(lines)


def test_an_endless_title_is_cut() -> None:
    got = received(mail(Notice("test", "test", "x " * 500, ())))
    assert len(got["Subject"]) == 203
