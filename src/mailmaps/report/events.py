"""What a line of a log tells, as far as the report wants it."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Came(NamedTuple):
    """smtpd(8) opens a queue file for a client, pickup(8) takes one from maildrop.

    `earlier` is the queue id that the same mail had before (a content filter that speaks XFORWARD, a
    requeue).
    """

    queue_id: str
    login: str
    earlier: str
    program: str


class Named(NamedTuple):
    """cleanup(8) has read the header: the Message-ID, empty where there is none."""

    queue_id: str
    message_id: str


class Queued(NamedTuple):
    """qmgr(8) takes a mail into the active queue: once, and again for each try."""

    queue_id: str
    sender: str
    size: int
    recipients: int


class Outcome(NamedTuple):
    """What became of one recipient; `status` is Postfix's (sent, deferred, bounced, expired,
    deliverable...).
    """

    queue_id: str
    recipient: str
    asked: str
    relay: str
    status: str
    reason: str
    program: str


class Ended(NamedTuple):
    """A mail is no longer in the queue ("removed"), or goes on under another id ("requeued")."""

    queue_id: str
    how: Literal["removed", "requeued", "expired"]


class Held(NamedTuple):
    """A mail is put on hold, or released."""

    queue_id: str
    held: bool


class Notified(NamedTuple):
    """bounce(8) makes a mail about another: "sender non-delivery notification: NEW"."""

    what: str
    new_id: str


class Refused(NamedTuple):
    """smtpd(8), cleanup(8) or postscreen(8) refuse, put off, hold or only warn; `kind` is Postfix's word.

    `text` begins with the code of the reply, where there is one.
    """

    queue_id: str
    kind: str
    stage: str
    client: str
    text: str
    recipient: str


class LoginFailed(NamedTuple):
    """`times` refusals of one name (empty: not known) from one client; `door` is smtp, imap, ..."""

    door: str
    user: str
    client: str
    times: int


class LoggedIn(NamedTuple):
    """Somebody logged in."""

    door: str
    user: str


class Connected(NamedTuple):
    """A client connected to smtpd(8) or postscreen(8)."""


class LimitReached(NamedTuple):
    """Our daemon says so, once in a while for each name; `limit` is "50 recipients an hour"."""

    name: str
    limit: str


class SentAsOther(NamedTuple):
    """Our daemon refused a sender, or, with `observed`, would have."""

    login: str
    sender: str
    observed: bool


class Rejection(NamedTuple):
    """Our daemon rejected a login; it does not say whose."""

    door: str


class Complaint(NamedTuple):
    """A program of the mail system warns or worse."""

    level: str
    program: str
    text: str


Event = (
    Came | Named | Queued | Outcome | Ended | Held | Notified | Refused | LoginFailed | LoggedIn | Connected
    | LimitReached | SentAsOther | Rejection | Complaint
)  # fmt: skip
