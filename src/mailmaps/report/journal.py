"""The mail facility out of systemd's journal, by journalctl(1), whose JSON has a line for each entry.

journald drops what one service logs beyond RateLimitBurst (10,000 lines in 30 s), and a journal in memory
does not outlive a restart: it is used where it reaches back to the beginning of the period. Who may not
read it (neither root nor in the groups adm and systemd-journal) is shown his own entries only, which are
none of Postfix.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from mailmaps.report.entry import LONGEST_TEXT, Entry
from mailmaps.report.sources import LONGEST_LINE, SourceError

# syslog(3): the facility mail, and our daemon, which logs to stderr.
MAIL = "SYSLOG_FACILITY=2"
MATCHES = (MAIL, "+", "SYSLOG_IDENTIFIER=mailmaps")
_FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,_HOSTNAME,PRIORITY"

# What our daemon says of these priorities (sd-daemon(3)) is put before its text, as it does without a
# journal.
_LEVELS = {"2": "CRITICAL ", "3": "ERROR ", "4": "WARNING "}

# A time after all others (2100).
FAR = 4_102_444_800.0


def reaches(since: float, file: Path | None = None) -> bool | None:
    """Whether it has mail entries from before `since` (True), only later ones (False), or none (None)."""
    if shutil.which("journalctl") is None:
        return None
    try:
        # The oldest one; `-n 1 --until` finds none in systemd 252, which goes back from the newest.
        first = next((entry for entry in read(0, FAR, file, (MAIL,)) if entry is not None), None)
    except SourceError:
        return None
    return None if first is None else first.when < since


def read(
    since: float, until: float, file: Path | None = None, matches: Sequence[str] = MATCHES
) -> Iterator[Entry | None]:
    """The entries of a time; None for one that is none. Raises `SourceError`."""
    words = _command(["--since", f"@{int(since)}", "--until", f"@{int(until)}", *matches], file)
    with TemporaryFile() as told:  # a pipe could fill while we read the other
        try:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=told, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise SourceError(f"journalctl: {error.strerror}") from error
        assert process.stdout is not None
        try:
            yield from entries(process.stdout)
            if process.wait() != 0:
                told.seek(0)
                why = told.read(LONGEST_TEXT).decode(errors="replace").strip()
                raise SourceError(f"journalctl: {why or f'exit code {process.returncode}'}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def entries(lines: IO[bytes]) -> Iterator[Entry | None]:
    """The entries of `journalctl -o json`; None for one without a time, a name or a text."""
    while line := lines.readline(4 * LONGEST_LINE):
        yield _entry(line)


def _entry(line: bytes) -> Entry | None:
    try:
        found = json.loads(line)
        when = int(found["__REALTIME_TIMESTAMP"]) / 1e6
        program, text = found["SYSLOG_IDENTIFIER"], found["MESSAGE"]
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(text, list):  # bytes that are no UTF-8
        try:
            text = bytes(text).decode(errors="replace")
        except (ValueError, TypeError):
            return None
    if not (isinstance(program, str) and isinstance(text, str)):
        return None  # null: longer than journalctl shows; a list: a field that is there twice
    if program == "mailmaps":
        text = _LEVELS.get(str(found.get("PRIORITY")), "") + text
    return Entry(when, str(found.get("_HOSTNAME", "")), program[:100], text[:LONGEST_TEXT])


def _command(words: Sequence[str], file: Path | None) -> list[str]:
    where = [] if file is None else ["--file", str(file)]
    return [
        "journalctl",
        *where,
        "-o",
        "json",
        f"--output-fields={_FIELDS}",
        "--no-pager",
        "-q",
        *words,
    ]
