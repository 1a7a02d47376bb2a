"""The report as a mail: text and HTML, and a picture beside the HTML (RFC 2046, 2387, 2392).

The rules it keeps are those of notices: `Auto-Submitted: auto-generated`, the null envelope sender of
`mailmaps.notices.handover`, each header one printable line, nothing on the wire longer than 77 characters.
"""

from __future__ import annotations

from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import make_msgid

from mailmaps.notices.message import LONGEST_LINE, LONGEST_SUBJECT, as_address
from mailmaps.report.document import Document
from mailmaps.report.html import as_html
from mailmaps.report.reasons import printable
from mailmaps.report.text import as_text


def mail(
    document: Document, png: bytes, sender: str, to: str, host_name: str, when: datetime
) -> EmailMessage:
    """The mail; `when` has a time zone. A `to` without @ ("postmaster") is left to the server to complete.

    Raises `ValueError` for what is no address.
    """
    base = SMTP if (sender + to).isascii() else SMTPUTF8
    message = EmailMessage(policy=base.clone(max_line_length=LONGEST_LINE))
    message["From"] = _address(sender)
    message["To"] = _address(to)
    subject = printable(document.subject)
    message["Subject"] = subject if len(subject) <= LONGEST_SUBJECT else subject[:LONGEST_SUBJECT] + "..."
    message["Date"] = when
    message["Message-ID"] = make_msgid("mailmaps-report", host_name)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(as_text(document), charset="utf-8", cte="quoted-printable")
    picture = make_msgid("picture", host_name)
    page = as_html(document, picture.strip("<>") if png else "")
    message.add_alternative(page, subtype="html", charset="utf-8", cte="quoted-printable")
    if png:
        html = message.get_payload()[1]  # type: ignore[index]  # the alternative made just now
        html.add_related(png, "image", "png", cid=picture, disposition="inline", filename="report.png")  # type: ignore[union-attr]
    return message


def _address(text: str) -> Address:
    if "@" not in text:
        as_address(f"{text}@localhost")
        return Address(username=text)
    local, _, domain = as_address(text).rpartition("@")
    try:
        return Address(username=local.strip('"'), domain=domain)
    except MessageError as error:
        raise ValueError("not one mail address") from error
