"""Postfix's locks on an lmdb: file, taken by a writer that is not Postfix.

Postfix opens LMDB without LMDB's own locks (MDB_NOLOCK) and holds a shared fcntl(2) lock on the file for each
lookup (src/util/dict_lmdb.c, dict_lmdb_lookup). LMDB never writes to the pages of the last transaction, but
may write to those of the one before. So a writer needs the file for itself only for a moment before each
transaction: whoever read before has then ended, and whoever reads from then on reads the last one. It keeps a
shared lock until the end, which keeps other writers (`postmap`) out and readers in (dict_lmdb_open does so).
Only `postmap -i` and `-d` take no lock at all, and so are not for our files.

Ours are locks of the open file description (F_OFD_SETLK, fcntl(2)), which exclude Postfix's as its own do,
and which do not vanish when some other descriptor of the file is closed in this process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds between attempts. Readers hold their lock for microseconds; a waiting writer has no turn.
PAUSE = 0.0005

# Seconds until a reader is taken for stopped.
LIMIT = 10.0


class Locked(OSError):
    """Somebody has held the lock for longer than `LIMIT`."""


@contextmanager
def writing(fd: int) -> Iterator[None]:
    """Hold the lock of a writer on `fd`, which is open for writing. Raises `Locked`."""
    deadline = time.monotonic() + LIMIT
    while not _try(fd, fcntl.F_WRLCK):
        if time.monotonic() > deadline:
            raise Locked(f"locked by another process for more than {LIMIT:g} s (see lslocks)")
        time.sleep(PAUSE)
    try:
        _try(fd, fcntl.F_RDLCK)  # from exclusive to shared: never refused
        yield
    finally:
        _try(fd, fcntl.F_UNLCK)


def _try(fd: int, kind: int) -> bool:
    # struct flock, native: l_type, l_whence, l_start, l_len (0: to the end), l_pid (0, or EINVAL).
    lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        return False
    return True
