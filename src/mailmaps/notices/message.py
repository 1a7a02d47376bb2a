"""A notice as a mail (RFC 5322): plain text in UTF-8, and headers that keep programs from answering it.

`Auto-Submitted: auto-generated` (RFC 3834, 5) tells vacation programs and mailing lists to keep still; the
null return path is the envelope's (handover.py).

The rule it keeps: nothing that a client said makes a header or a line of SMTP. Each header is one line of
printable characters, an address is one address, and no line on the wire has more than 77 characters:
paragraphs are wrapped, and where a command or a name is longer the text goes as quoted-printable, whose soft
line breaks the reader's program takes out again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid

from mailmaps.notices.notice import Notice

WIDTH = 72  # of a paragraph: room for quotation marks in an answer
LONGEST_LINE = 77  # RFC 5322, 2.1.1: should be 78 at most, without CRLF
_ASCII = SMTP.clone(max_line_length=LONGEST_LINE)
_UTF8 = SMTPUTF8.clone(max_line_length=LONGEST_LINE)
LONGEST_SUBJECT = 200  # characters; more is shown by no program

# One mailbox, of which nothing can be taken for another address, a comment, a group or an option of RCPT.
_SPECIAL = r'@\s<>,"();:\\\[\]'
_ADDRESS = re.compile(rf'("[^"\\\s]+(?: [^"\\\s]+)*"|[^{_SPECIAL}]+)@[^{_SPECIAL}]+')


def to_postmaster(notice: Notice, sender: str, to: str, host_name: str, when: datetime) -> EmailMessage:
    """The mail for the postmaster; `when` has a time zone. Raises `ValueError` for what is no address."""
    footer = f"Noticed on {_one_line(host_name)}, {format_datetime(when)}, by mailmaps."
    return _message(notice.title, (*notice.lines, "", footer), (sender, to), host_name, when)


def to_user(notice: Notice, sender: str, postmaster: str, host_name: str, when: datetime) -> EmailMessage:
    """The user's own, shorter text for `notice.also_to`; an answer goes to the postmaster.

    Raises `ValueError` for what is no address.
    """
    message = _message(notice.also_title, notice.also_lines, (sender, notice.also_to), host_name, when)
    message["Reply-To"] = _address(postmaster)
    return message


def needs_smtputf8(message: EmailMessage) -> bool:
    """Whether an address of the headers is not ASCII (RFC 6531)."""
    return not all(message[name].addresses[0].addr_spec.isascii() for name in ("From", "To"))


def as_address(text: str) -> str:
    """The address as it is. Raises `ValueError` when it is not exactly one."""
    if not (text.isprintable() and _ADDRESS.fullmatch(text)):
        raise ValueError("not one mail address")
    return text


def _message(
    title: str, lines: Sequence[str], ends: tuple[str, str], host_name: str, when: datetime
) -> EmailMessage:
    sender, to = ends
    message = EmailMessage(policy=_ASCII if (sender + to).isascii() else _UTF8)
    message["From"] = _address(sender)
    message["To"] = _address(to)
    message["Subject"] = _subject(title)
    message["Date"] = when
    message["Message-ID"] = make_msgid("mailmaps", host_name)
    message["Auto-Submitted"] = "auto-generated"
    text = "\n".join(_wrapped(lines)) + "\n"
    short = text.isascii() and all(len(line) <= LONGEST_LINE for line in text.split("\n"))
    message.set_content(text, charset="utf-8", cte="7bit" if short else "quoted-printable")
    return message


def _address(text: str) -> Address:
    local, _, domain = as_address(text).rpartition("@")
    try:
        # In two parts: addr_spec= takes no local part that is not ASCII.
        return Address(username=local.strip('"'), domain=domain)
    except MessageError as error:  # HeaderParseError is no ValueError
        raise ValueError("not one mail address") from error


def _subject(title: str) -> str:
    line = "mailmaps: " + " ".join(_one_line(title).split())
    return line if len(line) <= LONGEST_SUBJECT else line[:LONGEST_SUBJECT] + "..."


def _wrapped(lines: Sequence[str]) -> list[str]:
    wrapped: list[str] = []
    for line in map(_one_line, lines):
        if line.startswith("  ") or not line.strip():
            wrapped.append(line)
        else:
            wrapped += textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    return wrapped


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
