"""When a line was written: years, zones, summer time; and which lines are none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from mailmaps.report.entry import LONGEST_TEXT, LineReader
from mailmaps.report.period import moment, period


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def when(line: str, newest: datetime) -> datetime | None:
    entry = LineReader(newest.timestamp()).read(f"{line} mx postfix/smtpd[1]: x")
    return None if entry is None else datetime.fromtimestamp(entry.when)


def test_the_year_is_the_latest_that_fits() -> None:
    new_year = datetime(2027, 1, 1, 0, 5)
    assert when("Dec 31 23:59:58", new_year) == datetime(2026, 12, 31, 23, 59, 58)
    assert when("Jan  1 00:00:01", new_year) == datetime(2027, 1, 1, 0, 0, 1)
    assert when("Nov 23 13:00:00", datetime(2026, 11, 23, 13, 0)) == datetime(2026, 11, 23, 13)
    assert when("Feb 29 12:00:00", datetime(2026, 3, 1)) == datetime(2024, 2, 29, 12)
    assert when("Feb 30 12:00:00", new_year) is None


def test_rfc_3339_has_its_own_zone(berlin: None) -> None:
    for stamp in (
        "2026-11-23T13:33:06.123456+00:00",
        "2026-11-23T13:33:06Z",
        "2026-11-23T08:33:06-05:00",
        "2026-11-23T14:33:06+0100",
    ):
        assert when(stamp, datetime(2030, 1, 1)) == datetime(2026, 11, 23, 14, 33, 6)


def test_the_hour_that_comes_twice(berlin: None) -> None:
    reader = LineReader(datetime(2026, 10, 26).timestamp())
    times = []
    for stamp in "01:59:00 02:00:00 02:30:00 02:59:59 02:00:00 02:30:00 02:29:00 02:59:00 03:00:00".split():
        entry = reader.read(f"Oct 25 {stamp} mx postfix/smtpd[1]: x")
        assert entry is not None
        times.append(entry.when - datetime(2026, 10, 25, 2).timestamp())
    assert times == [-60, 0, 1800, 3599, 3600, 5400, 5340, 7140, 7200]


def test_a_day_of_25_hours(berlin: None) -> None:
    day = period("2026-10-25", "2026-10-26", datetime(2026, 11, 1))
    assert day.end - day.start == 25 * 3600
    assert [day.label(number) for number in range(4)] == ["00", "01", "02", "02"]
    assert len(day.edges) == 25
    assert period("yesterday", "today", datetime(2026, 10, 26, 1)).edges == day.edges


@pytest.mark.parametrize(
    "line",
    ["", "x", "Nov 23 13:00:00", "Nov 23 13:00:00 mx postfix", "Xyz 23 13:00:00 mx a[1]: b", "\x00" * 100],
)
def test_what_is_no_line(line: str) -> None:
    assert LineReader(0).read(line) is None


def test_a_long_line_is_cut_in_no_time() -> None:
    line = f"Nov 23 13:00:00 mx postfix/smtpd[1]: {'<' * 60_000}"
    entry = LineReader(datetime(2026, 11, 24).timestamp()).read(line)
    assert entry is not None
    assert len(entry.text) == LONGEST_TEXT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yesterday", datetime(2026, 11, 22)),
        ("today", datetime(2026, 11, 23)),
        ("now", datetime(2026, 11, 23, 14, 30)),
        ("24h", datetime(2026, 11, 22, 14, 30)),
        ("7d", datetime(2026, 11, 16, 14, 30)),
        ("2026-11-01", datetime(2026, 11, 1)),
        ("2026-11-01 13:30", datetime(2026, 11, 1, 13, 30)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert moment(text, datetime(2026, 11, 23, 14, 30)) == expected


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "999999w", "-1d"])
def test_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="time|ago"):
        moment(text, datetime(2026, 11, 23))


def test_the_end_is_after_the_beginning() -> None:
    with pytest.raises(ValueError, match="is not before"):
        period("today", "yesterday", datetime(2026, 11, 23))
    weeks = period("30d", "now", datetime(2026, 11, 23, 12))
    assert not weeks.hourly
    assert len(weeks.edges) == 31
