"""A mirror's file: all rows of one view in LMDB, read within a microsecond, changed in place.

For one process and one thread (that of the event loop). LMDB's own locks are off: Postfix shall read the
same files, and locks otherwise (dict_lmdb.c: MDB_NOSUBDIR, MDB_NOLOCK). So nothing keeps a writer from the
pages of a reader but we ourselves: one read transaction is held between changes, and none during one. An
flock on the file keeps a second mailmaps away.

Nothing is synced to the disk but by `checkpoint` and `close`. Killing the process harms no file, since what
it wrote is the kernel's; what a crash of the machine leaves is judged by `soundness` before it is mapped, as
LMDB believes what it reads (a truncated file is SIGBUS).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

import lmdb

from mailmaps.maps.row_bytes import LONGEST_KEY
from mailmaps.mirrors import sidecar
from mailmaps.mirrors.bookkeeping import KEY, Bookkeeping, check_keys, fingerprint
from mailmaps.mirrors.builder import Builder, remove_left_over
from mailmaps.mirrors.environment import SMALLEST_MAP, DiskTrouble, Lost, Unsound, open_environment, write
from mailmaps.mirrors.seal import Seal
from mailmaps.mirrors.sidecar import Sidecar
from mailmaps.mirrors.soundness import check

__all__ = ["LONGEST_KEY", "Builder", "DiskTrouble", "Lost", "MirrorFile", "Unsound"]

# Before all rows, after our own.
_FIRST = b"\1"


class _Get(Protocol):
    def __call__(self, key: bytes, /) -> bytes | None:
        """The value of `key`."""


class MirrorFile:
    """One open file, made by `open` or by `Builder.finish`.

    `get(key)` gives a row's bytes or None, for a key of 1 to `LONGEST_KEY` bytes (LMDB raises for none). It
    is another one after each change: take it from here each time.
    """

    __slots__ = ("_bookkeeping", "_env", "_fd", "_read", "_seal", "get")

    get: _Get
    _bookkeeping: Bookkeeping

    def __init__(
        self, path: Path, fd: int, env: lmdb.Environment, of: Sidecar, proven_at: float | None
    ) -> None:
        """For `open` and `Builder`: takes over `fd`, which holds the lock, and `env`. `of` fits the file."""
        self._fd = fd
        self._env = env
        self._seal = Seal(path, fd, of, proven_at, lambda: self._env.info()["last_txnid"])
        self._begin_reading()
        self._read_bookkeeping()

    @staticmethod
    def open(path: Path, identity: str) -> MirrorFile:
        """The rows on disk. `identity` names what they are rows of: database, view, layout.

        Raises `Unsound`, and nothing else, if it is missing, not ours, not this, or not in order. Takes up
        to two seconds for a million rows after kill -9, else a tenth of one; a thread may do it.
        """
        checked = check(path, identity)
        with suppress(OSError):  # a full disk makes no file unsound, and the next checkpoint will tell
            remove_left_over(path)
            if checked.is_new:
                sidecar.write(path, checked.sidecar, checked.proven_at)
        try:
            env = open_environment(path, max(SMALLEST_MAP, 2 * checked.sidecar.size))
            return MirrorFile(path, checked.fd, env, checked.sidecar, checked.proven_at)
        except (DiskTrouble, lmdb.Error) as error:
            os.close(checked.fd)
            raise Unsound(str(error)) from error

    @staticmethod
    def build(path: Path, identity: str) -> Builder:
        """Begin a new file, to take the place of any that is there. Raises OSError and `DiskTrouble`."""
        return Builder(path, identity, MirrorFile)

    def change(self, rows: Mapping[bytes, bytes | None]) -> int:
        """Set rows, or delete those that are None, in one transaction; how many were otherwise before.

        A thousand rows or so at a time: until the end, the changed pages are held in memory. Raises
        ValueError for a key that cannot be held and `DiskTrouble`: all rows are as they were then. Raises
        `Lost` when they cannot even be read any more: the file is closed.
        """
        check_keys(rows.keys())
        get = self.get
        before = {key: get(key) for key in rows}
        changes = {key: row for key, row in rows.items() if before[key] != row}
        if not changes:
            return 0
        removed = {key: old for key in changes if (old := before[key]) is not None}
        added = {key: row for key, row in changes.items() if row is not None}
        bookkeeping = self._bookkeeping.changed(
            fingerprint(added.keys(), added.values()), fingerprint(removed.keys(), removed.values())
        )

        def apply(transaction: lmdb.Transaction[bytes]) -> None:
            for key, row in changes.items():
                if row is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, row)
            transaction.put(KEY, bookkeeping.pack())

        self._write(apply)
        self._bookkeeping = bookkeeping
        return len(changes)

    def after(self, key: bytes | None, count: int) -> list[tuple[bytes, bytes]]:
        """The next `count` rows, or what is left, in the order of their keys; None: from the first on."""
        with self._read.cursor() as cursor:
            if not cursor.set_range(_FIRST if key is None else key + b"\0"):
                return []
            return list(islice(cursor.iternext(), count))

    def __len__(self) -> int:
        return self._read.stat()["entries"] - 1  # ours is no row

    @property
    def bytes_on_disk(self) -> int:
        """The size of the file."""
        return os.fstat(self._fd).st_size

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._seal.path

    @property
    def proven_at(self) -> float | None:
        """When the rows were last proven to be those of the database, in Unix seconds."""
        return self._seal.proven_at

    def proven(self, at: float) -> None:
        """Note that the rows were proven `at` (Unix seconds). Cheap: it is written every ten seconds."""
        if self._fd >= 0:
            self._seal.prove(at)

    async def checkpoint(self) -> bool:
        """Sync the file and renew its digest, in a thread; False if a change, or `close`, came in between.

        A file that is opened with its digest right need not be walked. Raises OSError.
        """
        return self._fd >= 0 and await self._seal.renew()

    def close(self) -> None:
        """Checkpoint if need be, here and now, and let go of the file, in any case. Raises OSError.

        A file that is closed, or `Lost`, stays so.
        """
        if self._fd < 0:
            return
        try:
            self._seal.renew_now()
        finally:
            self._let_go()

    def move_to(self, path: Path) -> None:
        """Give the file another name in the same file system, in place of what has it. Raises OSError."""
        self._seal.move_to(path)

    def _write(self, apply: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        self._read.abort()
        try:
            write(self._env, apply)
            self._seal.note_change()
        finally:
            try:
                self._begin_reading()
            except lmdb.Error:
                self._map_again()

    def _begin_reading(self) -> None:
        self._read = self._env.begin()
        self.get = self._read.get

    def _map_again(self) -> None:
        """The environment is closed, or has had enough (MDB_PANIC); what it has committed is in order."""
        self._env.close()
        try:
            if not os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                raise Lost(f"{self.path} has been replaced")
            self._env = open_environment(self.path, self.bytes_on_disk)
            self._begin_reading()
            self._read_bookkeeping()
        except (DiskTrouble, lmdb.Error, OSError) as error:
            self._let_go()
            raise Lost(str(error)) from error
        except Lost:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self._read.abort()
        self._env.close()
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the thread of a checkpoint may still have its copy
        os.close(self._fd)
        self._fd = -1

    def _read_bookkeeping(self) -> None:
        row = self.get(KEY)
        assert row is not None  # soundness, or the builder, has seen to that
        self._bookkeeping = Bookkeeping.unpack(row)
