"""The report as headings, figures and tables: what the text, the HTML and the JSON have in common.

Problems come first. A section without anything in it becomes a word in one line, so that a quiet night is a
short mail; nothing that was looked at is left unsaid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from mailmaps.report.logins import DAY, Logins
from mailmaps.report.reasons import printable
from mailmaps.report.site import Dormant
from mailmaps.report.tally import Tally
from mailmaps.report.top import Top

# Characters of a cell.
LONGEST_CELL = 160


@dataclass(frozen=True)
class Table:
    """`numbers` columns of numbers, then one of text; `rest` says what the table leaves out."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    rest: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, tables. `problem`: it goes to the top."""

    title: str
    lead: str
    tables: list[Table] = field(default_factory=list)
    problem: bool = False


@dataclass(frozen=True)
class Figure:
    """One number of the first line; `level` is "bad" where it is a problem that there is one."""

    label: str
    value: str
    detail: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Document:
    """The whole report. `slots` are (label, delivered, deferred and bounced, refused) for the picture."""

    title: str
    subject: str
    host: str
    source: str
    notes: list[str]
    figures: list[Figure]
    sections: list[Section]
    nothing: list[str]
    slots: list[tuple[str, int, int, int]]
    hourly: bool


@dataclass(frozen=True)
class Around:
    """What the report knows besides the log: `ours` are domains or why they are not known."""

    host: str
    source: str
    notes: list[str]
    ours: frozenset[str] | str
    logins: Logins | None
    dormant: Dormant | None


def document(tally: Tally, around: Around, top: int) -> Document:
    """The report, with at most `top` rows in each table."""
    build = _Build(tally, around, top)
    sections = [_without_empty_tables(one) for one in (*build.problems(), *build.volumes())]
    shown = [one for one in sections if one.tables or not one.problem]
    slots = [
        (tally.period.label(number), counts[1], counts[2] + counts[3], counts[4])
        for number, counts in enumerate(tally.slots)
    ]
    return Document(
        title=f"Mail report of {around.host}, {tally.period}",
        # One line: a longer one is folded (RFC 5322), which some programs show.
        subject=f"Mail report of {around.host.partition('.')[0]}, {tally.period}",
        host=around.host,
        source=around.source,
        notes=around.notes + build.notes(),
        figures=build.figures(),
        sections=shown,
        nothing=[one.title.lower() for one in sections if one.problem and not one.tables],
        slots=slots,
        hourly=tally.period.hourly,
    )


def _without_empty_tables(section: Section) -> Section:
    """A table's head alone says nothing."""
    return replace(section, tables=[table for table in section.tables if table.rows])


def size(number: int) -> str:
    """Bytes for people: 512 B, 1.5 MB."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


class _Build:
    """Tables out of counters."""

    def __init__(self, tally: Tally, around: Around, top: int) -> None:
        self.tally = tally
        self.around = around
        self.top = top
        self.queue = [one for one in tally.messages.open().values() if one.is_in_queue]

    def figures(self) -> list[Figure]:
        tally = self.tally
        failed = tally.failed_doors.totals[0]
        return [
            Figure("received", f"{tally.received:,}", size(tally.received_bytes)),
            Figure("delivered", f"{tally.delivered:,}", size(tally.delivered_bytes)),
            Figure(
                "deferred",
                f"{tally.deferred_reasons.totals[0]:,}",
                _many(tally.deferred_tries, "try"),
                bool(tally.deferred_tries),
            ),
            Figure(
                "bounced",
                f"{tally.bounced_reasons.totals[0]:,}",
                "recipients",
                bool(tally.bounced_reasons.totals[0]),
            ),
            Figure("refused", f"{tally.refused_reasons.totals[0]:,}", "at SMTP"),
            Figure("failed logins", f"{failed:,}", "", bool(failed)),
            Figure("in the queue", f"{len(self.queue):,}", "at the end", bool(self.queue)),
        ]

    def notes(self) -> list[str]:
        tally, found = self.tally, []
        if not tally.lines:
            found.append("There is not one line of this time in the log.")
        if tally.messages.forgotten:
            found.append(
                f"More mails were under way than are remembered; {tally.messages.forgotten:,} were forgotten."
            )
        if tally.unsized:
            found.append(f"The size of {tally.unsized:,} delivered mails is not in the log that was read.")
        if isinstance(self.around.ours, str):
            found.append(f"Which domains are ours is guessed from who delivered: {self.around.ours}.")
        return found

    def problems(self) -> list[Section]:
        tally = self.tally
        levels = [(level, top) for level, top in tally.complaints.items() if len(top)]
        worst = [(level, top) for level, top in levels if level != "warning"]
        mild = levels[len(worst) :]
        return [
            self._complaints("Panics and errors", worst),
            self._limits(),
            self._senders(),
            self._logins(),
            self._deferred(),
            self._bounced(),
            self._in_queue(),
            self._held(),
            self._refused(),
            self._complaints("Warnings", mild),
        ]

    def _complaints(self, title: str, levels: list[tuple[str, Top]]) -> Section:
        lead = ", ".join(f"{top.totals[0]:,} {level}" for level, top in levels)
        return Section(title, lead, [self._counts(level, top) for level, top in levels], True)

    def _counts(self, what: str, top: Top, column: str = "times") -> Table:
        rows = [(f"{numbers[0]:,}", _cell(key)) for key, numbers in top.most(self.top) if numbers[0]]
        return Table((column, what), rows, self._rest(top))

    def _rest(self, top: Top) -> str:
        more = len(top) - self.top
        if top.forgotten:
            return "and more than can be counted"
        return f"and {more:,} more" if more > 0 else ""

    def _limits(self) -> Section:
        rows = [
            (f"{refused:,}", f"{told:,}", _cell(f"{name}: {self.tally.limit_of.get(name, '')}".rstrip(": ")))
            for name, (refused, told) in self.tally.limits.most(self.top)
        ]
        table = Table(("refused", "told", "login or domain, limit"), rows, self._rest(self.tally.limits))
        lead = "Refused by Postfix (put off, refused or held), and how often mailmaps told it in its log."
        return Section("Senders over their limit", lead, [table] if rows else [], True)

    def _senders(self) -> Section:
        top = self.tally.senders
        rows = [
            (f"{max(refused, told):,}", f"{observed:,}", _cell(pair))
            for pair, (refused, told, observed) in top.most(self.top)
        ]
        table = Table(("refused", "observed", "login and sender"), rows, self._rest(top))
        lead = "Observed ones were let through (senders.mode or senders.unauthenticated = observe)."
        return Section("Senders that were not theirs", lead, [table] if rows else [], True)

    def _logins(self) -> Section:
        tally = self.tally
        doors = ", ".join(f"{numbers[0]:,} {door}" for door, numbers in tally.failed_doors.most(self.top))
        if tally.mailmaps_rejections:
            own = f"mailmaps itself tells of {tally.mailmaps_rejections:,} (the same, as it saw them)"
            doors = f"{doors}; {own}" if doors else own
        tables = [
            self._counts("user", tally.failed_users, "failed"),
            self._counts("client", tally.failed_clients, "failed"),
        ]
        if tally.mailmaps_rejections and not any(table.rows for table in tables):  # nobody else logged them
            rows = [(f"{tally.mailmaps_rejections:,}", "mailmaps, which names nobody in its log")]
            tables = [Table(("failed", "told by"), rows)]
        return Section("Logins that failed", doors, tables, True)

    def _deferred(self) -> Section:
        tally = self.tally
        columns = ("recipients", "tries")
        tables = [
            Table((*columns, name), self._pairs(top), self._rest(top))
            for name, top in (("reason", tally.deferred_reasons), ("domain", tally.deferred_domains))
        ]
        lead = (
            "Mail that could not be delivered yet and is tried again; a recipient counts once for "
            "each reason."
        )
        return Section("Deferred", lead, tables if tally.deferred_tries else [], True)

    def _pairs(self, top: Top) -> list[tuple[str, ...]]:
        return [(f"{first:,}", f"{second:,}", _cell(key)) for key, (first, second) in top.most(self.top)]

    def _bounced(self) -> Section:
        tally = self.tally
        tables = [
            self._counts("reason", tally.bounced_reasons, "recipients"),
            self._counts("domain", tally.bounced_domains, "recipients"),
        ]
        lead = "Recipients for whom mail was given up."
        if tally.expired:
            lead += f" {tally.expired:,} mails were returned because they were too old."
        sent = ", ".join(f"{count[0]:,} {what}s" for what, count in tally.notices.most(5))
        lead += f" Postfix sent {sent}." if sent else ""
        return Section("Bounced", lead, tables if len(tally.bounced_reasons) else [], True)

    def _in_queue(self) -> Section:
        if not self.queue:
            return Section("Still in the queue", "", [], True)
        reasons, domains = Top(), Top()
        for message in self.queue:
            waiting = message.waiting or {}
            for reason in set(waiting.values()) or {
                "on hold" if message.held else "under way, or not tried in this time"
            }:
                reasons.add(reason)
            for domain in {recipient.rpartition("@")[2].lower() for recipient in waiting}:
                domains.add(printable(domain))
        oldest = min(message.since for message in self.queue)
        tables = [self._counts("why", reasons, "mails"), self._counts("domain", domains, "mails")]
        lead = f"At the end of this time, as far as the log tells; the oldest is known since {_time(oldest)}."
        return Section("Still in the queue", lead, [one for one in tables if one.rows], True)

    def _held(self) -> Section:
        table = self._counts("why", self.tally.held)
        return Section(
            "Put on hold",
            "mailq lists it with a !, postsuper -H releases it.",
            [table] if table.rows else [],
            True,
        )

    def _refused(self) -> Section:
        tally = self.tally
        tables = [
            self._counts("stage, reply", tally.refused_reasons),
            self._counts("client", tally.refused_clients),
            self._counts("would have been refused (warn_if_reject)", tally.warned_reasons),
            self._counts("other actions of restrictions, header_checks and milters", tally.content),
        ]
        codes = {"4": 0, "5": 0}
        for key, (count,) in tally.refused_reasons.most(len(tally.refused_reasons)):
            code = key.partition(": ")[2][:1]
            if code in codes:
                codes[code] += count
        lead = f"Refused at SMTP: {codes['5']:,} for good (5xx), {codes['4']:,} for now (4xx)."
        return Section("Refused by SMTP", lead, [table for table in tables if table.rows], True)

    def volumes(self) -> list[Section]:
        return [self._domains(), self._users(), self._slots(), *self._dormant()]

    def _domains(self) -> Section:
        tally, ours = self.tally, self.around.ours
        here, elsewhere = Top(2), Top(2)
        for top, is_here in ((tally.domains_here, True), (tally.domains_elsewhere, False)):
            for domain in top:
                mine = domain in ours if isinstance(ours, frozenset) else is_here
                (here if mine else elsewhere).add(domain, *top[domain])
        senders = Top(2)
        known = ours if isinstance(ours, frozenset) else here
        for domain in tally.sender_domains:
            if domain in known:
                senders.add(domain, *tally.sender_domains[domain])
        tables = [
            Table(("mails", "bytes", name), self._sized(top), self._rest(top))
            for name, top in (
                ("to our domains", here),
                ("from our domains", senders),
                ("to other domains", elsewhere),
            )
            if len(top)
        ]
        local = f"{tally.submitted:,} of them by local programs, {tally.internal:,} by Postfix itself"
        lead = (
            f"{_many(tally.received, 'mail')} received ({size(tally.received_bytes)}), {local}; "
            f"{_many(tally.delivered, 'delivery')} ({size(tally.delivered_bytes)}), one for each recipient; "
            f"{_many(tally.connections, 'connection')}."
        )
        if tally.passed:
            lead += (
                f" {tally.passed:,} were passed on within (a content filter, a forward) and are counted once."
            )
        if tally.probes:
            lead += f" {tally.probes:,} were probes of addresses, and are not counted."
        return Section("Volumes", lead, tables)

    def _sized(self, top: Top) -> list[tuple[str, ...]]:
        return [(f"{count:,}", size(amount), _cell(key)) for key, (count, amount) in top.most(self.top)]

    def _users(self) -> Section:
        tally = self.tally
        rows = [
            (f"{count:,}", f"{recipients:,}", size(amount), _cell(user))
            for user, (count, recipients, amount) in tally.users.most(self.top)
            if count
        ]
        tables = [
            Table(("mails", "recipients", "bytes", "sent by the login"), rows, self._rest(tally.users)),
            Table(
                ("mails", "bytes", "received by"), self._sized(tally.recipients), self._rest(tally.recipients)
            ),
        ]
        return Section("Busiest users", "", [table for table in tables if table.rows])

    def _slots(self) -> Section:
        period = self.tally.period
        rows = [
            (*(f"{count:,}" if count else "." for count in counts), period.label(number))
            for number, counts in enumerate(self.tally.slots)
        ]
        name = "hour" if period.hourly else "day"
        columns = ("received", "delivered", "deferred", "bounced", "refused", name)
        return Section(f"{name.capitalize()} by {name}", "", [Table(columns, rows)])

    def _dormant(self) -> list[Section]:
        dormant, logins = self.around.dormant, self.around.logins
        if dormant is None or logins is None:
            return []
        title = "Dormant accounts"
        since = _day(int(logins.since // DAY))
        if dormant.why == "too early":
            first = _day(int(logins.since // DAY) + dormant.days)
            lead = f"Not known before {first}: logins are remembered since {since}, of {dormant.days} days."
            return [Section(title, lead)]
        if dormant.why:
            return [Section(title, f"Not known: {dormant.why}")]
        lead = (
            f"{dormant.count:,} of {dormant.accounts:,} accounts had no login for {dormant.days} days or "
            f"more (logins are remembered since {since})."
        )
        rows = [
            (_day(day) if day >= 0 else "never seen", _cell(name)) for day, name in dormant.named[: self.top]
        ]
        more = dormant.count - len(rows)
        table = Table(("last login", "account"), rows, f"and {more:,} more" if more else "")
        return [Section(title, lead, [table] if rows else [])]


def _many(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _cell(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 3] + "..."


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")


def _time(when: float) -> str:
    return datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")
