"""The text, the page, the picture and the mail, with what strangers put into a log."""

from __future__ import annotations

import re
from datetime import datetime
from email import message_from_bytes
from email.policy import SMTP
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image
from tests.report.lines import NOW, mail, outcome, tally_of

from mailmaps.report.document import Around, Document, document
from mailmaps.report.html import as_html
from mailmaps.report.mail import mail as as_mail
from mailmaps.report.picture import picture
from mailmaps.report.reasons import LONGEST_SHOWN, normalised
from mailmaps.report.text import as_text

EVIL = '<script>alert(1)</script>&"\x1b[31m\u202e\x00'


def hostile() -> Document:
    """Everything that a stranger can put into a log, in every place."""
    lines = [
        *mail(login=f"jan{EVIL}", outcomes=[outcome(f"x{EVIL}@{EVIL}", "bounced", EVIL)]),
        *mail("4BBBBBB", outcomes=[outcome(f"y{EVIL}@{EVIL}", "deferred", EVIL, "4BBBBBB")])[:-1],
        f"postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 554 5.7.1 {EVIL}; from=<{EVIL}>",
        f"postfix/smtpd[1]: warning: a[192.0.2.1]: SASL PLAIN authentication failed: x, sasl_username={EVIL}",
        f"postfix/smtpd[1]: fatal: {EVIL}",
        f"dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<{EVIL}>, rip=::1",
    ]
    around = Around("mx.ours.test", "a log", [], frozenset({"ours.test"}), None, None)
    return document(tally_of(lines), around, 10)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_nothing_of_a_stranger_is_markup_or_control() -> None:
    found = hostile()
    tags = _Tags()
    page = as_html(found, "cid@x")
    tags.feed(page)
    assert "script" not in tags.tags
    assert "b" in tags.tags, "the figures are bold"
    for text in (page, as_text(found)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert "://" not in page, "nothing is fetched"


def test_the_mail_is_small_and_its_lines_short() -> None:
    found = hostile()
    png = picture(found.slots)
    message = as_mail(found, png, "m@ours.test", "postmaster", "mx.ours.test", NOW.astimezone())
    data = message.as_bytes()
    assert len(data) < 60_000
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 78
    read = message_from_bytes(data, policy=SMTP)
    assert (read["To"], read["Auto-Submitted"]) == ("postmaster", "auto-generated")
    assert read.get_body(("plain",)) is not None


def test_no_address_is_an_error() -> None:
    found = hostile()
    for to in ("a@b@c", "a b", "x\r\ny", "", "a,b"):
        with pytest.raises(ValueError, match="address"):
            as_mail(found, b"", "m@ours.test", to, "mx.ours.test", datetime.now().astimezone())


@pytest.mark.parametrize("slots", [[], [("00", 0, 0, 0)], [(str(n), n * 10**7, n, n) for n in range(366)]])
def test_the_picture(slots: list[tuple[str, int, int, int]]) -> None:
    data = picture(slots)
    assert len(data) < 25_000
    with Image.open(BytesIO(data)) as image:
        assert image.size == (1440, 400)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            "host mx.a.org[192.0.2.1] said: 550 5.1.1 <jan@a.org>: unknown (in reply to RCPT TO command)",
            "host HOST said: 550 5.1.1 <...>: unknown (in reply to RCPT TO command)",
        ),
        (
            "connect to mx.a.org[2001:db8::1]:25: Connection timed out",
            "connect to HOST: Connection timed out",
        ),
        (
            "Host or domain name not found. Name service error for name=a.org type=MX: Host not found",
            "Host or domain name not found. Name service error for name=HOST type=MX: Host not found",
        ),
        ('unknown user: "jan"', 'unknown user: "..."'),
        (
            "delivery failed: create file /var/mail/x/1: No space",
            "delivery failed: create file FILE: No space",
        ),
        ("451 4.7.1 try later a1b2c3d4e5f6-12 x@y.z", "451 4.7.1 try later ID ADDRESS"),
    ],
)
def test_reasons(reason: str, expected: str) -> None:
    assert normalised(reason) == expected


@pytest.mark.parametrize("text", ["<" * 5000, "a=" * 3000, "[1" * 3000, '"' * 5000, "x.y" * 2000, "/" * 5000])
def test_long_reasons_are_cut(text: str) -> None:
    assert len(normalised(text)) <= LONGEST_SHOWN


def test_a_quiet_night_is_short() -> None:
    around = Around("mx.ours.test", "a log", [], frozenset(), None, None)
    text = as_text(document(tally_of(mail(outcomes=[outcome()])), around, 10))
    assert "Nothing to tell of: panics and errors, senders over their limit" in text
    assert len(text.splitlines()) < 70


# Each line alone in a log: one figure has something, the tables beside it nothing.
ALONE = (
    "mailmaps[1]: mailmaps.auth.service: login rejected door=login service=imap",
    "mailmaps[1]: mailmaps.auth.service: login door=login service=imap user=jan",
    "mailmaps[1]: mailmaps.policy.limits: limit reached scope=login name=jan limit=5 unit=mails window=day",
    "mailmaps[1]: mailmaps.policy.sender_check: sender refused login=jan sender=a@ours.test",
    "mailmaps[1]: mailmaps.policy.sender_check: sender would be refused login=jan sender=a@ours.test",
    "mailmaps[1]: WARNING mailmaps.auth.service: cannot say for a login reason=x",
    "postfix/smtpd[1]: warning: a[192.0.2.1]: SASL PLAIN authentication failed: x",
    "postfix/smtpd[1]: connect from a[192.0.2.1]",
    "postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 554 5.7.1 no",
    "postfix/smtpd[1]: NOQUEUE: reject_warning: RCPT from a[192.0.2.1]: 554 5.7.1 no",
    "postfix/smtpd[1]: NOQUEUE: hold: RCPT from a[192.0.2.1]: 554 5.7.1 no",
    "postfix/smtpd[1]: NOQUEUE: discard: RCPT from a[192.0.2.1]: 554 5.7.1 no",
    "postfix/cleanup[1]: 4ABCDEF: hold: header Subject: x from a[192.0.2.1]; from=<a@b> to=<c@d>: why",
    "postfix/postsuper[1]: 4ABCDEF: placed on hold",
    "postfix/qmgr[1]: 4ABCDEF: from=<a@ours.test>, size=1, nrcpt=1 (queue active)",
    "postfix/qmgr[1]: 4ABCDEF: from=<a@ours.test>, status=expired, returned to sender",
    "postfix/bounce[1]: 4ABCDEF: sender non-delivery notification: 4GHIJKL",
    *(outcome(status=status) for status in ("sent", "deferred", "bounced", "expired", "deliverable")),
    "postfix/master[1]: fatal: x",
    "dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<>, rip=::1",
)


@pytest.mark.parametrize("line", ["", *ALONE])
def test_one_line_alone_can_be_reported(line: str) -> None:
    around = Around("mx.ours.test", "a log", [], frozenset(), None, None)
    found = document(tally_of([line] if line else []), around, 10)
    assert as_text(found)
    assert as_html(found, "cid@x")
    assert all(table.rows for section in found.sections for table in section.tables)


def test_rejections_that_only_mailmaps_tells_of_are_a_problem() -> None:
    around = Around("mx.ours.test", "a log", [], frozenset(), None, None)
    found = document(tally_of(ALONE[:1] * 3), around, 10)
    assert "Logins that failed" in [section.title for section in found.sections]
    assert "mailmaps itself tells of 3" in as_text(found)
    assert "mailmaps itself tells of 3" in as_html(found)
