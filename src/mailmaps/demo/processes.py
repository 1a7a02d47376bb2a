"""The processes of one PostgreSQL server: its pid file, and signals to the whole family.

A backend makes a session and a process group of its own (setsid in InitPostmasterChild), so a group
signal misses it; children are found by their parent in /proc.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mailmaps.demo.launcher import PostgresError

POLL = 0.005
# Seconds until a killed process must be gone.
GONE_TIMEOUT = 10.0
# postmaster.pid (miscadmin.h LOCK_FILE_LINE_*): line 1 the process id, line 8 the state.
_PID_LINE, _STATE_LINE = 0, 7


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server with this process id says in its pid file that it accepts connections."""
    lines = _pid_file(data)
    return len(lines) > _STATE_LINE and lines[_PID_LINE] == str(pid) and lines[_STATE_LINE] == "ready"


def remove_stale_pid_file(data: Path, patience: float) -> None:
    """Forget a server that died without its goodbye.

    PostgreSQL itself takes a recycled process id of the same user for a living server and refuses to
    start. A server that is just ending, because its parent was killed, is given `patience` seconds.
    Raises `PostgresError` while a server really runs on `data`.
    """
    end = time.monotonic() + patience
    while (lines := _pid_file(data)) and _serves(int(lines[_PID_LINE]), data):
        if time.monotonic() > end:
            raise PostgresError(f"PostgreSQL already runs on {data}, process {lines[_PID_LINE]}")
        time.sleep(POLL)
    (data / "postmaster.pid").unlink(missing_ok=True)


def signal_family(pid: int, number: signal.Signals) -> list[int]:
    """Signal the postmaster and all its children, and return the children.

    SIGSTOP goes to the postmaster first, so that no child is born unseen; SIGCONT to it last.
    """
    if number != signal.SIGCONT:
        os.kill(pid, number)
    children = _children(pid)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, number)
    if number == signal.SIGCONT:
        os.kill(pid, number)
    return children


def kill_family(pid: int, reap: Callable[[], int]) -> None:
    """Kill -9 the postmaster and its children; returns when they are gone, `reap` collects the first.

    The children must be gone too: a new postmaster refuses the data while one holds the shared memory.
    """
    children = signal_family(pid, signal.SIGSTOP)
    for one in (pid, *children):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    reap()
    end = time.monotonic() + GONE_TIMEOUT
    while any(_lives(child) for child in children):
        if time.monotonic() > end:
            raise PostgresError(f"a server process of {pid} survived kill -9")
        time.sleep(POLL)


def _pid_file(data: Path) -> list[str]:
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines]


def _serves(pid: int, data: Path) -> bool:
    """Whether the process lives and has `data` among its words, as every postmaster of ours has.

    Not its working directory: root in a container may not read that of another user's process.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return _lives(pid) and os.fsencode(data) in words


def _children(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if _parent(entry) == pid]


def _lives(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return (fields := _stat(Path(f"/proc/{pid}"))) != [] and fields[0] not in ("Z", "X")


def _parent(entry: Path) -> int | None:
    fields = _stat(entry) if entry.name.isdecimal() else []
    return int(fields[1]) if fields else None


def _stat(entry: Path) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it may hold blanks and brackets."""
    try:
        return (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
