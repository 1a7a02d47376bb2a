"""Another process that holds Postfix's kind of lock (fcntl(2), of the process) on a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED, EXCLUSIVE = "LOCK_SH", "LOCK_EX"

_PROGRAM = """\
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, getattr(fcntl, sys.argv[2]) | (fcntl.LOCK_NB if sys.argv[3] else 0))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(path: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """The lock is held inside, by a process that lets go when its stdin is closed."""
    words = [sys.executable, "-c", _PROGRAM, str(path), kind, ""]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def is_free(path: Path, kind: str) -> bool:
    """Whether another process could have the lock now."""
    words = [sys.executable, "-c", _PROGRAM, str(path), kind, "now"]
    done = subprocess.run(words, input=b"", capture_output=True, timeout=20, check=False)
    return done.returncode == 0
