"""Log lines for the tests of the report, and a tally of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from mailmaps.config.settings import Settings
from mailmaps.report.entry import LineReader
from mailmaps.report.making import of_settings
from mailmaps.report.period import Period, period
from mailmaps.report.tally import Tally

NOW = datetime(2026, 11, 23, 14, 0)


def yesterday() -> Period:
    return period("yesterday", "today", NOW)


def tally_of(lines: Iterable[str], over: Period | None = None) -> Tally:
    """What these lines of 22 November count; a line may begin with its time, "09:30:00 "."""
    tally = Tally(over or yesterday(), of_settings(Settings()))
    reader = LineReader(NOW.timestamp())
    for line in lines:
        stamp, rest = ("12:00:00", line) if line[2:3] != ":" else (line[:8], line[9:])
        entry = reader.read(f"Nov 22 {stamp} mx {rest}\n")
        assert entry is not None, line
        tally.take(entry)
    return tally


def mail(
    queue_id: str = "4ABCDEF",
    sender: str = "a@ours.test",
    login: str = "",
    size: int = 1000,
    outcomes: Iterable[str] = (),
    message_id: str = "",
    client: str = "mx.far.test[192.0.2.1]",
) -> list[str]:
    """One mail from smtpd(8) to its removal."""
    who = f", sasl_method=PLAIN, sasl_username={login}" if login else ""
    outcomes = list(outcomes)
    count = max(1, len(outcomes))
    return [
        f"postfix/smtpd[1]: {queue_id}: client={client}{who}",
        f"postfix/cleanup[2]: {queue_id}: message-id=<{message_id or queue_id}@far.test>",
        f"postfix/qmgr[3]: {queue_id}: from=<{sender}>, size={size}, nrcpt={count} (queue active)",
        *outcomes,
        f"postfix/qmgr[3]: {queue_id}: removed",
    ]


def outcome(
    recipient: str = "b@far.test",
    status: str = "sent",
    reason: str = "250 2.0.0 Ok",
    queue_id: str = "4ABCDEF",
    program: str = "smtp",
    relay: str = "mx.far.test[192.0.2.1]:25",
    asked: str = "",
) -> str:
    """What became of one recipient."""
    orig = f" orig_to=<{asked}>," if asked else ""
    return (
        f"postfix/{program}[4]: {queue_id}: to=<{recipient}>,{orig} relay={relay}, delay=0.1, "
        f"delays=0.1/0/0/0, dsn=2.0.0, status={status} ({reason})"
    )
