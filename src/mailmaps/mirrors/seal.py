"""Keeps the sidecar of an open file right: its digest, and when the rows were last proven current.

After a change the seal is renewed, by syncing and hashing the file: in a thread of low priority while the
event loop goes on, or here and now before the file is closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mailmaps.mirrors import sidecar
from mailmaps.mirrors.sidecar import Sidecar, Stop

# Seconds between two notes of a proof; those who ask for it reckon in minutes.
_NOTE_EVERY = 10.0

# A thread at the usual priority makes the slowest lookups eight times slower, at the lowest 1.6 times.
_NICE = 19


class Seal:
    """For the file at `path`, open as `fd`, which `of` fits as it is. `txnid` counts its transactions."""

    def __init__(
        self, path: Path, fd: int, of: Sidecar, proven_at: float | None, txnid: Callable[[], int]
    ) -> None:
        self.path = path
        self.proven_at = proven_at
        self._fd = fd
        self._sidecar = of
        self._txnid = txnid
        self._is_whole = of.is_synced  # the disk has what `of` speaks of
        self._noted = 0.0  # the proof that the sidecar's modification time speaks of
        self._changes = 0

    def note_change(self) -> None:
        """The file is another now."""
        self._changes += 1
        self._is_whole = False

    def prove(self, at: float) -> None:
        """The rows were proven current `at` (Unix seconds). Cheap: it is written now and then."""
        self.proven_at = at
        if abs(at - self._noted) < _NOTE_EVERY:
            return
        self._noted = at
        try:
            os.utime(sidecar.path_of(self.path), (at, at))
        except OSError:  # somebody has removed it, say: a renewal makes another, or tells why it cannot
            self._is_whole = False

    async def renew(self) -> bool:
        """False if the file changed meanwhile, or was closed. Raises OSError."""
        if not self._is_whole:
            changes = self._changes
            fd = os.dup(self._fd)
            pool = ThreadPoolExecutor(1, "seal", _step_back)
            work = pool.submit(_sync, fd, lambda: self._changes != changes)
            work.add_done_callback(lambda _: os.close(fd))
            pool.shutdown(wait=False)
            found = await asyncio.wrap_future(work)
            if self._changes != changes:
                return False
            self._take(*found)
        self._write()
        return True

    def renew_now(self) -> None:
        """The same without an event loop; a renewal under way gives up. Raises OSError."""
        self._changes += 1
        if not self._is_whole:
            self._take(*_sync(self._fd, bool, threads=2))
        self._write()

    def move_to(self, path: Path) -> None:
        """Rename the file and then its sidecar, in place of what is there. Raises OSError."""
        sidecar.path_of(path).unlink(missing_ok=True)  # it is that of another file
        self.path.rename(path)
        old, self.path = self.path, path
        try:
            sidecar.path_of(old).rename(sidecar.path_of(path))
        except FileNotFoundError:
            self._is_whole = False

    def _take(self, size: int, digest: str) -> None:
        self._sidecar = replace(self._sidecar, size=size, digest=digest, txnid=self._txnid(), is_synced=True)
        self._is_whole = True

    def _write(self) -> None:
        self._sidecar = replace(self._sidecar, boot=sidecar.boot(), proven=self.proven_at)
        sidecar.write(self.path, self._sidecar, self.proven_at)


def _step_back() -> None:
    with suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)  # on Linux, of this thread alone


def _sync(fd: int, stop: Stop, *, threads: int = 1) -> tuple[int, str]:
    os.fdatasync(fd)
    size = os.fstat(fd).st_size
    return size, sidecar.digest(fd, size, threads=threads, stop=stop)
