"""Counts events; what it has at the end is the report.

One event changes a few counters (`Top`, bounded) and the mail it is about (`Messages`, bounded). Lines
before the period (`LEAD_IN`) teach it which mails are on their way, and count nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from mailmaps.report import dovecot, own, postfix
from mailmaps.report.entry import Entry
from mailmaps.report.events import (
    Came,
    Complaint,
    Connected,
    Ended,
    Event,
    Held,
    LimitReached,
    LoggedIn,
    LoginFailed,
    Named,
    Notified,
    Outcome,
    Queued,
    Refused,
    Rejection,
    SentAsOther,
)
from mailmaps.report.logins import MOST_NAMES
from mailmaps.report.messages import Message, Messages
from mailmaps.report.own import Sentences
from mailmaps.report.period import Period
from mailmaps.report.reasons import normalised, printable
from mailmaps.report.top import Top

# Seconds before the period that are read, too. A mail that waits is tried again, and named anew with sender
# and size, within maximal_backoff_time (4000 s by default).
LEAD_IN = 2 * 3600.0

# The programs that deliver to mailboxes here; smtp(8) is for elsewhere.
_HERE = frozenset(("virtual", "local", "lmtp", "pipe"))

RECEIVED, DELIVERED, DEFERRED, BOUNCED, REJECTED = range(5)


class Tally:
    """`take` for each entry in order; then look at the counters. `sentences` finds our refusals."""

    def __init__(self, period: Period, sentences: Sentences) -> None:
        self.period = period
        self.lines = 0
        self.first: float | None = None  # the oldest line, of whatever time
        self.slots = [[0] * 5 for _ in period.edges]
        self.messages = Messages()
        self.received = self.received_bytes = self.submitted = self.internal = self.passed = 0
        self.delivered = self.delivered_bytes = self.unsized = self.probes = self.connections = 0
        self.deferred_tries = self.expired = 0
        self.mailmaps_rejections = 0
        self.users = Top(3)  # messages, recipients, bytes
        self.recipients = Top(2)  # deliveries, bytes
        self.domains_here, self.domains_elsewhere = Top(2), Top(2)
        self.sender_domains = Top(2)
        self.deferred_reasons, self.deferred_domains = Top(2), Top(2)  # recipients, tries
        self.bounced_reasons, self.bounced_domains = Top(), Top()
        self.refused_reasons, self.refused_clients = Top(), Top()
        self.warned_reasons, self.content = Top(), Top()
        self.held = Top()
        self.failed_users, self.failed_clients, self.failed_doors = Top(), Top(), Top()
        self.limits = Top(2)  # refused by Postfix, told by mailmaps
        self.limit_of: dict[str, str] = {}
        self.senders = Top(3)  # refused by Postfix, refused and observed as mailmaps tells
        self.complaints: dict[str, Top] = {level: Top() for level in ("panic", "fatal", "error", "warning")}
        self.notices = Top()
        self.logins: dict[str, float] = {}
        self._sentences = sentences
        self._counts = False
        self._slot = [0] * 5
        self._where = ""
        self._logged_by = ("", "")
        self._now = 0.0
        self._handlers: dict[type, Callable[..., None]] = {
            Came: self._came,
            Named: self._named,
            Queued: self._queued,
            Outcome: self._outcome,
            Ended: self._ended,
            Held: self._held,
            Notified: self._notified,
            Refused: self._refused,
            LoginFailed: self._login_failed,
            LoggedIn: self._logged_in,
            Connected: self._connected,
            LimitReached: self._limit_reached,
            SentAsOther: self._sent_as_other,
            Rejection: self._rejection,
            Complaint: self._complaint,
        }

    def take(self, entry: Entry) -> None:
        """Count one entry; those after the period, and long before, are passed over."""
        when, host, program, text = entry
        period = self.period
        if self.first is None:
            self.first = when
        if when < period.start - LEAD_IN or when >= period.end:
            return
        self._counts = when >= period.start
        if self._counts:
            self.lines += 1
        event = _event(program, text)
        if event is None:
            return
        self._now = when
        if self._counts:
            self._slot = self.slots[period.slot(when)]
        if (host, program) != self._logged_by:
            self._logged_by = (host, program)
            self._where = f"{host}\t{postfix.instance_of(program)}\t"
        self._handlers[type(event)](event)

    # The way of a mail.

    def _came(self, event: Came) -> None:
        message = self.messages.begin(self._where, event.queue_id, self._now)
        message.origin = event.program
        message.login = event.login
        if login := postfix.login_of(event):
            self._logged_in(login)
        if event.earlier:
            earlier = self.messages.find(self._where, event.earlier)
            if earlier is not None and earlier is not message:
                earlier.passed = message.same_as_before = True
                message.login = message.login or earlier.login
            elif event.program == "pickup":  # orig_id=: a requeued mail, which was received before
                message.same_as_before = True

    def _named(self, event: Named) -> None:
        message = self.messages.get(self._where, event.queue_id, self._now)
        message.named = True
        message.message_id = event.message_id

    def _queued(self, event: Queued) -> None:
        message = self.messages.get(self._where, event.queue_id, self._now)
        is_first = not message.queued
        message.queued, message.held = True, False
        message.sender, message.size, message.recipients = event.sender, event.size, event.recipients
        if is_first and message.named and self._counts and not message.same_as_before:
            self._receive(message, 1)

    def _receive(self, message: Message, sign: int) -> None:
        """Count a mail, or (sign -1) take it back: it was an old one under another id."""
        if sign > 0:
            message.counted = self.period.slot(self._now)
        assert message.counted is not None
        size = (message.size or 0) * sign
        self.slots[message.counted][RECEIVED] += sign
        self.received += sign
        self.received_bytes += size
        self.submitted += sign * (message.origin == "pickup")
        self.internal += sign * (not message.origin)
        if message.login:
            self.users.add(printable(message.login), sign, sign * message.recipients, size)
        if message.sender:
            self.sender_domains.add(_domain(message.sender), sign, size)
        if sign < 0:
            message.counted = None

    def _outcome(self, event: Outcome) -> None:
        message = self.messages.get(self._where, event.queue_id, self._now)
        status = event.status
        if status == "deferred":
            self._deferred(message, event)
            return
        self.messages.settle(message, event.recipient)
        if status == "sent":
            self._sent(message, event)
        elif status in ("bounced", "expired"):
            self._bounced(message, event)
        elif status in ("deliverable", "undeliverable"):
            self._probed(message)

    def _sent(self, message: Message, event: Outcome) -> None:
        following = self.messages.next_of(self._where, message, event.reason, self._now)
        if following is not None:
            message.passed = True
            following.same_as_before = True
            if following.counted is not None:
                self._receive(following, -1)
        is_passed = following is not None or (message.passed and event.program in ("smtp", "lmtp", "pipe"))
        if not self._counts:
            return
        if is_passed:
            self.passed += 1
            return
        size = message.size or 0
        self._slot[DELIVERED] += 1
        self.delivered += 1
        self.delivered_bytes += size
        self.unsized += message.size is None
        domain = _domain(event.recipient)
        if event.program in _HERE:
            self.domains_here.add(domain, 1, size)
            self.recipients.add(printable(event.recipient).lower(), 1, size)
        else:
            self.domains_elsewhere.add(domain, 1, size)

    def _deferred(self, message: Message, event: Outcome) -> None:
        reason = normalised(event.reason)
        is_new = self.messages.defer(message, event.recipient, reason)
        message.queued = True
        if self._counts:
            self._slot[DEFERRED] += 1
            self.deferred_tries += 1
            self.deferred_reasons.add(reason, int(is_new), 1)
            self.deferred_domains.add(_domain(event.recipient), int(is_new), 1)

    def _bounced(self, message: Message, event: Outcome) -> None:
        message.bounced = True
        if self._counts:
            self._slot[BOUNCED] += 1
            self.bounced_reasons.add(normalised(event.reason))
            self.bounced_domains.add(_domain(event.recipient))

    def _probed(self, message: Message) -> None:
        message.same_as_before = True
        if self._counts:
            self.probes += 1
        if message.counted is not None:
            self._receive(message, -1)

    def _ended(self, event: Ended) -> None:
        if event.how == "expired":
            if self._counts:
                self.expired += 1
            return
        self.messages.end(self._where, event.queue_id)

    def _held(self, event: Held) -> None:
        self.messages.get(self._where, event.queue_id, self._now).held = event.held

    def _notified(self, event: Notified) -> None:
        if self._counts:
            self.notices.add(event.what)

    # What was refused.

    def _refused(self, event: Refused) -> None:
        held = "hold" in event.kind or "quarantine" in event.kind
        if held and event.queue_id:
            self.messages.get(self._where, event.queue_id, self._now).held = True
        if not self._counts:
            return
        over = self._sentences.limit(event.text)
        if over is not None:
            name = printable(over[0])
            self.limits.add(name, 1, 0)
            self._limit_is(name, over[1])
        foreign = self._sentences.sender(event.text)
        if foreign is not None:
            self.senders.add(_pair(*foreign), 1, 0, 0)
        if held:
            self.held.add(f"{event.stage}: {normalised(event.text)}")
        elif event.kind in ("reject", "milter-reject", "proxy-reject"):
            self._slot[REJECTED] += 1
            self.refused_reasons.add(_refusal(event, over is not None, foreign is not None))
            if event.client:
                self.refused_clients.add(event.client)
        elif event.kind == "reject_warning":
            self.warned_reasons.add(f"{event.stage}: {normalised(event.text)}")
        else:
            self.content.add(f"{event.kind}: {normalised(event.text)}")

    def _limit_reached(self, event: LimitReached) -> None:
        if self._counts:
            name = printable(event.name)
            self.limits.add(name, 0, 1)
            self._limit_is(name, event.limit)

    def _limit_is(self, name: str, limit: str) -> None:
        if limit and (name in self.limit_of or len(self.limit_of) < 10_000):
            self.limit_of[name] = printable(limit)

    def _sent_as_other(self, event: SentAsOther) -> None:
        if self._counts:
            self.senders.add(
                _pair(event.login, event.sender), 0, int(not event.observed), int(event.observed)
            )

    # Logins, and what programs complain about.

    def _login_failed(self, event: LoginFailed) -> None:
        if self._counts:
            self.failed_doors.add(event.door, event.times)
            self.failed_users.add(printable(event.user) or "(no name)", event.times)
            self.failed_clients.add(event.client or "(no address)", event.times)

    def _logged_in(self, event: LoggedIn) -> None:
        user = event.user[:320]
        if self._counts and user and (user in self.logins or len(self.logins) < MOST_NAMES):
            self.logins[user] = max(self._now, self.logins.get(user, 0.0))

    def _connected(self, event: Connected) -> None:
        self.connections += self._counts

    def _rejection(self, event: Rejection) -> None:
        self.mailmaps_rejections += self._counts

    def _complaint(self, event: Complaint) -> None:
        if self._counts:
            self.complaints[event.level].add(f"{event.program}: {normalised(event.text)}")


def _event(program: str, text: str) -> Event | None:
    if "/" in program:
        return postfix.read(program, text)
    if program == "dovecot":
        return dovecot.read(text)
    return own.read(text) if program == "mailmaps" else None


def _domain(address: str) -> str:
    return printable(address.rpartition("@")[2]).lower() if "@" in address else "(no domain)"


def _pair(login: str, sender: str) -> str:
    return f"{printable(login) or '(nobody logged in)'} as {printable(sender)}"


def _refusal(event: Refused, is_limit: bool, is_sender: bool) -> str:
    """The reason; a sentence of ours names people, who have lists of their own."""
    code = event.text[:3] if event.text[:3].isdigit() else "---"
    if is_limit:
        return f"{event.stage}: {code} over a sending limit"
    if is_sender:
        return f"{event.stage}: {code} may not send as that sender"
    return f"{event.stage}: {normalised(event.text)}"
