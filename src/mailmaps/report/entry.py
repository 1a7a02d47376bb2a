"""One line of a log taken apart: when, which host, which program, what it said.

    Nov 23 13:33:06 mx postfix/smtpd[12]: text                      syslog(3), postlogd(8) (maillog_file)
    2026-11-23T13:33:06.123456+00:00 mx postfix/smtpd[12]: text     rsyslog since Debian 12 (RFC 3339)

The classic stamp has neither a year nor a zone. The zone is this machine's. The year is the latest that does
not put the line after the file's last change (logrotate and gzip keep that time); in the hour that comes
twice when summer time ends, a clock that seems to go back has come to the second one.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

# Characters of one text that are looked at. Postfix cuts at 2000 bytes (msg_syslog.c, MSG_SYSLOG_RECLEN).
LONGEST_TEXT = 4096

# Seconds by which lines of one file may be out of order: several programs write at once.
DISORDER = 120.0

# Seconds that a line may seem newer than its file: clocks are set.
AHEAD = 86_400.0

_LINE = re.compile(
    r"(?:([A-Z][a-z]{2} [ \d]\d \d\d:\d\d):(\d\d)"
    r"|(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)?)"
    r" ([^\s]{1,255}) ([^\s\[:]{1,100})(?:\[\d{1,10}\])?: (.*)",
    re.ASCII | re.DOTALL,
)
_MONTHS = {
    name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}


class Entry(NamedTuple):
    """`when` is in seconds since the epoch; `text` is at most `LONGEST_TEXT` characters."""

    when: float
    host: str
    program: str
    text: str


class LineReader:
    """Reads the lines of one file in their order; `newest` is when the file was changed last (epoch)."""

    def __init__(self, newest: float) -> None:
        self._newest = newest
        self._minute = ""
        self._minute_starts: float | None = None
        self._last = float("-inf")

    def read(self, line: str) -> Entry | None:
        """The entry, or None for what is no line of a syslog."""
        match = _LINE.match(line)
        if match is None:
            return None
        classic, second, iso, iso_second, zone, host, program, text = match.groups()
        minute = classic or f"{iso}{zone or ''}"
        if minute != self._minute:
            self._minute = minute
            self._minute_starts = self._classic(classic) if classic else _iso(minute)
        if self._minute_starts is None:
            return None
        when = self._minute_starts + int(second or iso_second)
        self._last = when
        return Entry(when, host, program, text[:LONGEST_TEXT].rstrip("\r\n"))

    def _classic(self, stamp: str) -> float | None:
        month = _MONTHS.get(stamp[:3])
        if month is None:
            return None
        day, hour, minute = int(stamp[4:6]), int(stamp[7:9]), int(stamp[10:12])
        latest = datetime.fromtimestamp(self._newest + AHEAD).year
        for year in range(latest, latest - 9, -1):  # 29 February is eight years back at most
            try:
                moment = datetime(year, month, day, hour, minute)
            except ValueError:
                continue
            when = self._in_order(moment)
            if when <= self._newest + AHEAD:
                return when
        return None

    def _in_order(self, moment: datetime) -> float:
        """Local time to epoch; of two hours with the same name the first that does not go back."""
        first, second = moment.timestamp(), moment.replace(fold=1).timestamp()
        return second if second > first and first + 60 < self._last - DISORDER else first


def _iso(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None
