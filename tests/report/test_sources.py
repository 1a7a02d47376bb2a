"""Files in the order of their time, whatever they are called; the journal as journalctl prints it."""

from __future__ import annotations

import gzip
import json
import os
from datetime import datetime
from io import BytesIO
from pathlib import Path

import pytest

from mailmaps.config.settings import Settings
from mailmaps.report import logins
from mailmaps.report.journal import entries
from mailmaps.report.logins import DAY, Logins, update
from mailmaps.report.making import Wanted, make
from mailmaps.report.period import period
from mailmaps.report.sources import SourceError, default_files, in_order, read


def log(path: Path, day: int, zipped: bool = False) -> Path:
    """A log whose one line is of that day of November."""
    line = f"Nov {day:2} 12:00:00 mx postfix/smtpd[1]: of {day}\n".encode()
    path.write_bytes(gzip.compress(line) if zipped else line)
    changed = datetime(2026, 11, day, 12, 1).timestamp()
    os.utime(path, (changed, changed))
    return path


def test_rotated_files_come_in_order(tmp_path: Path) -> None:
    log(tmp_path / "mail.log", 23)
    log(tmp_path / "mail.log.1", 22)
    log(tmp_path / "mail.log.2.gz", 21, zipped=True)
    log(tmp_path / "mail.log.10.gz", 13, zipped=True)
    log(tmp_path / "mail.log-20261112.gz", 12, zipped=True)
    log(tmp_path / "mail.err", 23)
    (tmp_path / "mail.log.empty").write_bytes(b"")
    found, without = in_order(default_files(tmp_path), datetime(2026, 11, 13).timestamp())
    assert [path.name for path in found] == ["mail.log.10.gz", "mail.log.2.gz", "mail.log.1", "mail.log"]
    assert [path.name for path in without] == ["mail.log.empty"]
    texts = [entry.text for path in found for entry in read(path, float("inf")) if entry]
    assert texts == ["of 13", "of 21", "of 22", "of 23"]


def test_bytes_that_are_no_text_and_lines_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"Nov 23 12:00:00 mx postfix/smtpd[1]: a \xff\xfe b\nrubbish\n" + b"x" * 200_000 + b"\n")
    found = list(read(path, float("inf")))
    assert found[0] is not None
    assert "\ufffd" in found[0].text
    assert set(found[1:]) == {None}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = log(tmp_path / "mail.log.1.gz", 22, zipped=True)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"mail\.log\.1\.gz: it ends in the middle"):
        list(read(path, float("inf")))
    path.write_bytes(b"\x1f\x8b\x08 no gzip at all")
    for broken in (path, tmp_path / "missing", tmp_path):
        with pytest.raises(SourceError, match=broken.name):
            in_order([broken], 0)


def test_the_journal() -> None:
    def line(**fields: object) -> bytes:
        found = {"__REALTIME_TIMESTAMP": "1795392000000000", "_HOSTNAME": "mx", **fields}
        return json.dumps(found).encode() + b"\n"

    lines = [
        line(SYSLOG_IDENTIFIER="postfix/smtpd", MESSAGE="connect from x[1.2.3.4]"),
        line(SYSLOG_IDENTIFIER="postfix/smtpd", MESSAGE=[97, 255, 98]),
        line(SYSLOG_IDENTIFIER="mailmaps", MESSAGE="mailmaps.x: it broke", PRIORITY="3"),
        line(SYSLOG_IDENTIFIER="postfix/smtpd", MESSAGE=None),
        line(MESSAGE="no name"),
        b"{rubbish\n",
    ]
    found = list(entries(BytesIO(b"".join(lines))))
    assert [entry and (entry.when, entry.program, entry.text) for entry in found] == [
        (1795392000.0, "postfix/smtpd", "connect from x[1.2.3.4]"),
        (1795392000.0, "postfix/smtpd", "a\ufffdb"),
        (1795392000.0, "mailmaps", "ERROR mailmaps.x: it broke"),
        None,
        None,
        None,
    ]


def test_last_logins_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    known, said = update(path, 10 * DAY, 11 * DAY, {"jan": 10.5 * DAY, 'odd "\t\n': 10 * DAY})
    assert said == []
    known, said = update(path, 11 * DAY, 12 * DAY, {"anna": 11.5 * DAY, "jan": 0.0})
    assert said == []
    assert known == Logins(10 * DAY, 12 * DAY, {"jan": 10, 'odd "\t\n': 10, "anna": 11})
    assert [one.name for one in tmp_path.iterdir()] == ["logins"]


def test_a_gap_begins_the_known_time_anew(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    update(path, 10 * DAY, 11 * DAY, {"jan": 10 * DAY})
    known, _ = update(path, 13 * DAY, 14 * DAY, {})
    assert (known.since, known.last) == (13 * DAY, {"jan": 10})
    known, _ = update(path, 2 * DAY, 3 * DAY, {"old": 2 * DAY})
    assert (known.since, known.until) == (13 * DAY, 14 * DAY), "long ago"


@pytest.mark.parametrize(
    "text",
    ["", "rubbish\n", 'mailmaps-logins 1 0 1 2\n"a"\t1\n', "mailmaps-logins 1 0 1 1\n[]\t1\n"],
)
def test_a_broken_memory_is_said_and_kept_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "logins"
    path.write_text(text)
    known, [said] = update(path, 10 * DAY, 11 * DAY, {"jan": 10 * DAY})
    assert "was broken and is begun anew" in said
    assert (tmp_path / "logins.broken").read_text() == text
    assert update(path, 11 * DAY, 12 * DAY, {}) == (Logins(10 * DAY, 12 * DAY, known.last), [])


def test_logins_are_known_from_where_the_log_begins(tmp_path: Path) -> None:
    """Not from the beginning of a period that the log does not reach."""
    over = period("2026-11-20", "2026-11-24", datetime(2026, 11, 24))

    def known_from(memory: Path) -> float:
        make(
            Settings(), Wanted(over, tuple(tmp_path.glob("mail.*")), tmp_path, memory, 90, 10), "mx.ours.test"
        )
        known = logins.read(memory / logins.NAME)
        return known.since if known else 0.0

    log(tmp_path / "mail.log", 22)
    (tmp_path / "one").mkdir()
    assert known_from(tmp_path / "one") == datetime(2026, 11, 22, 12).timestamp()
    log(tmp_path / "mail.log.1", 12)
    (tmp_path / "two").mkdir()
    assert known_from(tmp_path / "two") == over.start
