"""The time a report is about: `since` up to, and without, `until`, both in this machine's local time.

A day is from midnight to midnight, be it of 23, 24 or 25 hours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

# Seconds up to which the picture and the table have a bar for each hour; longer periods have one for each
# day.
HOURLY = 50 * 3600

# Bars at most; a period of more days has as many bars, the last of which takes the rest.
MOST_SLOTS = 366


def moment(text: str, now: datetime) -> datetime:
    """ "yesterday", "today", "now", "2026-11-23", "2026-11-23 13:30", "24h", "7d" (ago). Raises `ValueError`.

    `now` is local, without a zone; so is the answer, unless the text names a zone.
    """
    word = text.strip().lower()
    if word == "now":
        return now
    if word in ("today", "yesterday"):
        return midnight(now.date() - timedelta(days=word == "yesterday"))
    if match := re.fullmatch(r"([0-9]{1,6})\s*([mhdw])", word):
        ago = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        try:  # on the clock of the epoch: "24h" are 24 hours on the day of a change to summer time too
            return datetime.fromtimestamp((now - timedelta(0)).timestamp() - ago.total_seconds())
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"{text!r} is too long ago") from None
    try:
        return datetime.fromisoformat(text.strip().replace("/", "-"))
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write yesterday, today, now, 2026-11-23, '2026-11-23 13:30', 24h or 7d"
        ) from None


def midnight(day: date) -> datetime:
    """Where a day begins, local."""
    return datetime(day.year, day.month, day.day)


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to and without `end` (epoch), in slots: `edges` are their beginnings."""

    start: float
    end: float
    edges: tuple[float, ...]
    hourly: bool

    def slot(self, when: float) -> int:
        """The number of the slot of a time within the period."""
        return max(0, bisect_right(self.edges, when) - 1)

    def label(self, slot: int) -> str:
        """What a slot is called: "13" for an hour, "11-23" for a day."""
        begin = datetime.fromtimestamp(self.edges[slot])
        return begin.strftime("%H" if self.hourly else "%m-%d")

    def __str__(self) -> str:
        first, last = (datetime.fromtimestamp(one).astimezone() for one in (self.start, self.end))
        if first.date() + timedelta(days=1) == last.date() and not any(
            (*first.timetuple()[3:6], *last.timetuple()[3:6])
        ):
            return first.strftime("%a %Y-%m-%d")
        return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} {last:%Z}".rstrip()


def period(since: str, until: str, now: datetime) -> Period:
    """The period between two words of `moment`. Raises `ValueError`."""
    first, last = moment(since, now).timestamp(), moment(until, now).timestamp()
    if first >= last:
        raise ValueError(f"--since {since} is not before --until {until}")
    hourly = last - first <= HOURLY
    return Period(first, last, tuple(_hours(first, last) if hourly else _days(first, last)), hourly)


def _hours(start: float, end: float) -> list[float]:
    edges = [start]
    following = (start // 3600 + 1) * 3600
    offset = datetime.fromtimestamp(start).astimezone().utcoffset() or timedelta(0)
    following -= offset.total_seconds() % 3600  # India's hours begin at half past of UTC's
    while following < end:
        if following > edges[-1]:
            edges.append(following)
        following += 3600
    return edges


def _days(start: float, end: float) -> list[float]:
    edges = [start]
    day = datetime.fromtimestamp(start).date() + timedelta(days=1)
    while (following := midnight(day).timestamp()) < end and len(edges) < MOST_SLOTS:
        edges.append(following)
        day += timedelta(days=1)
    return edges
