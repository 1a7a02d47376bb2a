"""The lines of our own daemon, and its sentences where Postfix logs them.

    mailmaps.policy.limits: limit reached scope=login name=jan limit=50 unit=recipients window="an hour" ...
    mailmaps.policy.sender_check: sender refused login=jan sender=a@example.org ...   (or: would be refused)
    mailmaps.auth.service: login door=login service=imap user=jan                     (or: login rejected)

That is the form of `mailmaps.logs.events`; its level stands in front where it is not the journal's. The
sentences are settings (limits.text, senders.refusal): they are looked for as they are set now, and as they
are by default.
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from mailmaps.policy.texts import LONGEST_FIELD
from mailmaps.report.events import Complaint, Event, LimitReached, LoggedIn, Rejection, SentAsOther

_LINE = re.compile(
    r"(?:(CRITICAL|ERROR|WARNING|INFO|DEBUG) )?(?:mailmaps[\w.]{0,100}: )?"
    r"([a-z][a-z ,']{0,100}?)(?: (?=\w+=)|$)(.*)",
    re.DOTALL,
)
_FIELD = re.compile(r'(\w{1,40})=("(?:[^"\\]|\\.)*"|[^\s"]*)')
# What smtpd(8) puts before the text of a policy service (smtpd_check.c, check_table_result).
_BEFORE = re.compile(
    r'(?:[45]\d\d \d\.\d{1,3}\.\d{1,3} )?<(?:"(?:[^"\\]|\\.)*"|[^">])*>: '
    r"(?:Client host|Helo command|Sender address|Recipient address|Data command|End-of-data)(?: rejected:)? ",
)

# Events that are counted one by one (`mailmaps.logs.repeats`).
_COUNTED = ("limit reached", "sender refused", "sender would be refused", "login", "login rejected")

_LEVELS = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


def read(text: str) -> Event | None:
    """The event of one line of mailmaps, or None."""
    line = _LINE.match(text)
    if line is None:
        return None
    level, event, rest = line.groups()
    fields = {name: _value(value) for name, value in _FIELD.findall(rest)}
    if "repeated" in fields and event in _COUNTED:  # a flood: most of its lines were not written
        return Complaint("warning", "mailmaps", f"{fields['repeated']} more lines of this kind: {event}")
    match event:
        case "limit reached":
            limit = " ".join(fields[word] for word in ("limit", "unit", "window") if word in fields)
            return LimitReached(fields.get("name", ""), limit)
        case "sender refused" | "sender would be refused":
            login, sender = fields.get("login", ""), fields.get("sender", "")
            return SentAsOther(login, sender, event != "sender refused")
        case "login":
            return LoggedIn(fields.get("door", ""), fields.get("user", ""))
        case "login rejected":
            return Rejection(fields.get("door", ""))
    return Complaint(_LEVELS[level], "mailmaps", text.partition(" ")[2]) if level in _LEVELS else None


def _value(text: str) -> str:
    """As it was before `mailmaps.logs.events.rendered` put it into quotes."""
    return re.sub(r"\\([\\\"])", r"\1", text[1:-1]) if text.startswith('"') else text


class Sentences(NamedTuple):
    """Finds our sentences in what Postfix refused."""

    limits: tuple[re.Pattern[str], ...]
    senders: tuple[re.Pattern[str], ...]
    unauthenticated: tuple[re.Pattern[str], ...]

    def limit(self, text: str) -> tuple[str, str] | None:
        """(name, "50 recipients an hour") of a refusal over a limit."""
        said = _said(text)
        for pattern in self.limits:
            if match := pattern.fullmatch(said):
                found = match.groupdict(default="")
                words = (found.get(field, "") for field in ("limit", "unit", "window"))
                return found.get("name", ""), " ".join(word for word in words if word)
        return None

    def sender(self, text: str) -> tuple[str, str] | None:
        """(login, sender) of a refused sender; without a login, of one who did not log in."""
        said = _said(text)
        for pattern in self.senders + self.unauthenticated:
            if match := pattern.fullmatch(said):
                found = match.groupdict(default="")
                login = found.get("login", "") if pattern in self.senders else ""
                return login, found.get("sender", "")
        return None


def sentences(
    limit: tuple[str, ...], refusal: tuple[str, ...], unauthenticated: tuple[str, ...]
) -> Sentences:
    """Patterns of these texts, which `policy.texts.check_text` has seen; the same one twice counts once."""
    return Sentences(
        *(tuple(map(_pattern, dict.fromkeys(texts))) for texts in (limit, refusal, unauthenticated))
    )


def _said(text: str) -> str:
    before = _BEFORE.match(text)
    return text[before.end() :] if before else text


def _pattern(text: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts = []
    for literal, field, _, _ in string.Formatter().parse(text):
        parts.append(re.escape(literal))
        if field is not None:  # a field a second time stands for the same: any text will do
            some = rf".{{1,{LONGEST_FIELD + 3}}}?"
            parts.append(some if field in seen else f"(?P<{field}>{some})")
            seen.add(field)
    return re.compile("".join(parts))
