"""Lines to standard error, whatever becomes of it: one an event, in order, and no wait for its reader.

Without journald a line is `LEVEL logger: text`, to journald `<N>logger: text` (sd-daemon(3)). A thread
writes. What waits for it is at most `MOST_WAITING` lines: a reader that has stopped costs lines, which are
counted and said ("log lines are lost"), while the daemon goes on. A closed standard error costs all of them.

The thread also says what was held back when its time has come, so that no event loop is needed.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import traceback
from collections import deque
from time import monotonic

from mailmaps.logs.events import escaped, shortened
from mailmaps.logs.repeats import Line, Repeats

# Characters of a line, each up to 4 bytes. journald cuts at 48 kB (LineMax in journald.conf(5)).
LONGEST_LINE = 8_000

# Lines; some 16 MB of the longest, 300 kB of common ones.
MOST_WAITING = 2_000

# Seconds in which what waits is still written at the end, if anybody reads.
CLOSE_LIMIT = 2.0

# Seconds after which a standard error that takes nothing is tried again (it is somebody's O_NONBLOCK).
RETRY = 1.0

# sd-daemon(3), syslog(3).
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG_PRIORITY = 7

LOST = "log lines are lost"


class Output(logging.Handler):
    """The handler of everything. `fd` stays the caller's."""

    def __init__(self, fd: int, *, journald: bool) -> None:
        super().__init__()
        self._fd = fd
        self._journald = journald
        self._repeats = Repeats()
        self._waiting: deque[Line] = deque()
        self._lost = 0
        self._fails = False  # nobody takes lines: it is of no use to say how many
        self._is_closing = False
        self._changed = threading.Condition()  # over all of the above
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = line_of(record)
        except Exception:  # a field that cannot be shown: the event is said all the same
            line = Line(record.levelno, f"{record.name}: {record.msg!a} (its fields cannot be shown)")
        with self._changed:
            now = monotonic()
            self._say_over(now)
            if self._repeats.passes(record, line, now):
                self._put(line)
            self._changed.notify()

    def close(self) -> None:
        """Write what waits and what was held back; nothing is waited for longer than `CLOSE_LIMIT`."""
        with self._changed:
            self._is_closing = True
            for line in self._repeats.rest():
                self._put(line)
            self._changed.notify()
        self._thread.join(CLOSE_LIMIT)
        super().close()

    def _say_over(self, now: float) -> None:
        for line in self._repeats.over(now):
            self._put(line)

    def _put(self, line: Line) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
        else:
            self._waiting.append(line)

    def _write(self) -> None:
        while (line := self._next()) is not None:
            fails = not _written(self._fd, self._encoded(line))
            with self._changed:
                self._lost += fails
                self._fails = fails

    def _next(self) -> Line | None:
        """Wait for the next line; None at the end."""
        with self._changed:
            while True:
                self._say_over(monotonic())
                if self._waiting:
                    return self._waiting.popleft()
                if self._lost and not self._fails:
                    lost, self._lost = self._lost, 0
                    return Line(logging.WARNING, f"{__name__}: {LOST} lines={lost}")
                if self._is_closing:
                    return None
                due = self._repeats.next_at
                self._changed.wait(None if due is None else max(0.0, due - monotonic()))

    def _encoded(self, line: Line) -> bytes:
        level = logging.getLevelName(line.level)
        prefix = f"<{priority(line.level)}>" if self._journald else f"{level} "
        text = f"{line.text} | {line.trace}" if line.trace else line.text
        return f"{prefix}{shortened(text, LONGEST_LINE)}\n".encode(errors="backslashreplace")


def line_of(record: logging.LogRecord) -> Line:
    """A record's line; the lines of its traceback are divided by ` | `."""
    text = f"{record.name}: {_folded(record.getMessage())}"
    if not record.exc_info or not record.exc_info[0]:
        return Line(record.levelno, text)
    return Line(record.levelno, text, _folded("".join(traceback.format_exception(*record.exc_info))))


def _folded(text: str) -> str:
    return " | ".join(escaped(line.strip()) for line in text.splitlines() if line.strip())


def priority(level: int) -> int:
    """syslog's number of a level."""
    return next((number for least, number in PRIORITIES if level >= least), DEBUG_PRIORITY)


def _written(fd: int, data: bytes) -> bool:
    """Whether all of it was taken. Blocks as long as the reader does not read: only our thread is here."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [], RETRY)
        except OSError:  # EPIPE, EBADF, EIO: there is nobody to say it to
            return False
    return True


def is_journal(fd: int) -> bool:
    """Whether what is written there goes to journald: $JOURNAL_STREAM of systemd.exec(5)."""
    try:
        stat = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def log_to_stderr(level: str) -> Output:
    """From now on everything that is logged, warned of and not caught goes to standard error, a line each.

    `level` is debug, info, warning or error.
    """
    fd = sys.__stderr__.fileno() if sys.__stderr__ is not None else _nowhere()
    output = Output(os.dup(fd), journald=is_journal(fd))  # a copy: the number may be another file's one day
    logging.basicConfig(handlers=[output], level=level.upper())
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, tb: _uncaught("ends for a fault", error)
    sys.unraisablehook = lambda args: _uncaught("an exception was ignored", args.exc_value)
    threading.excepthook = lambda args: _uncaught("a thread ended for a fault", args.exc_value)
    return output


def set_level(level: str) -> None:
    """Another level from now on."""
    logging.getLogger().setLevel(level.upper())


def is_logging() -> bool:
    """Whether `log_to_stderr` has been called."""
    return any(isinstance(handler, Output) for handler in logging.getLogger().handlers)


def _nowhere() -> int:
    """Started without standard error. Its number must be taken: a socket may get it and our lines with it."""
    fd = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(2)
    except OSError:
        os.dup2(fd, 2)
    return fd


def _uncaught(event: str, error: BaseException | None) -> None:
    logging.getLogger("mailmaps").error(event, exc_info=error)
