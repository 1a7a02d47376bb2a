"""Makes a mirror's file from rows in the order of their keys, and puts it in its place when it is whole.

It is made under another name, `NAME.RANDOM.new`, which is locked as long as its maker lives: what is not
locked has been left over. It takes its place so that no file ever stands beside the sidecar of another: the
old sidecar goes, the file takes its name, the new sidecar comes. In between a file is judged by its rows.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from mailmaps.maps.row_bytes import Rows
from mailmaps.mirrors import sidecar
from mailmaps.mirrors.bookkeeping import KEY, Bookkeeping, check_keys, fingerprint
from mailmaps.mirrors.environment import SMALLEST_MAP, open_environment, write
from mailmaps.mirrors.sidecar import Sidecar

if TYPE_CHECKING:
    from mailmaps.mirrors.file import MirrorFile

SUFFIX = ".new"

# Rows, or bytes of values, that are written in one transaction. Its pages are in memory until it ends, and
# the event loop waits for it (a millisecond); larger ones are no faster.
_ROWS = 2_000
_BYTES = 1 << 20


class Builder:
    """One file in the making. `append`, then `finish` or `abandon`, in one thread at a time, whichever."""

    def __init__(self, path: Path, identity: str, kind: type[MirrorFile]) -> None:
        """For `MirrorFile.build`. Raises OSError, `DiskTrouble`."""
        self._path = path
        self._identity = identity
        self._kind = kind
        remove_left_over(path)
        self._temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{SUFFIX}")
        self._fd = os.open(
            self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self._bookkeeping = Bookkeeping.new(identity)
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._bytes = 0
        self._is_finished = False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._fd, 0o640)
            self._env = open_environment(self._temporary, SMALLEST_MAP, is_new=True)
            self._write_bookkeeping()  # sorts before all rows
        except BaseException:
            os.close(self._fd)
            _remove(self._temporary)
            raise

    def append(self, rows: Collection[tuple[bytes, bytes]]) -> None:
        """Take rows, keys strictly ascending over all calls; fastest as `Rows`.

        Raises ValueError if they are not, or cannot be held, and `DiskTrouble`; then only `abandon` is left.
        """
        columns = Rows.of(rows)
        keys, values = columns.all_keys, columns.all_values
        check_keys(keys)
        self._bookkeeping = self._bookkeeping.changed(fingerprint(keys, values), 0)
        self._keys += keys
        self._values += values
        self._bytes += sum(map(len, values))
        if len(self._keys) >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def finish(self) -> MirrorFile:
        """The file, complete and in its place. It has no proof yet, and is not synced to the disk.

        Takes a tenth of a second for 100 MB; a thread may do it. Raises as `append` does, and OSError.
        """
        self._flush()
        self._write_bookkeeping()
        size = os.fstat(self._fd).st_size
        of = Sidecar(
            identity=self._identity,
            generation=self._bookkeeping.generation.hex(),
            size=size,
            digest=sidecar.digest(self._fd, size, threads=2),
            txnid=self._env.info()["last_txnid"],
            is_synced=False,
            boot=sidecar.boot(),
            proven=None,
        )
        sidecar.write(self._temporary, of, None)
        file = self._kind(self._temporary, self._fd, self._env, of, None)
        file.move_to(self._path)
        self._is_finished = True
        return file

    def abandon(self) -> None:
        """Leave nothing behind, unless it is finished."""
        if not self._is_finished:
            self._env.close()
            os.close(self._fd)
            _remove(self._temporary)

    def _flush(self) -> None:
        rows = Rows(self._keys, self._values)
        self._keys, self._values, self._bytes = [], [], 0

        def apply(transaction: lmdb.Transaction[bytes]) -> None:
            with transaction.cursor() as cursor:
                _, added = cursor.putmulti(rows, overwrite=False, append=True)
            if added != len(rows):
                raise ValueError("the keys are not strictly ascending")

        write(self._env, apply)

    def _write_bookkeeping(self) -> None:
        def apply(transaction: lmdb.Transaction[bytes]) -> None:
            transaction.put(KEY, self._bookkeeping.pack())

        write(self._env, apply)


def remove_left_over(path: Path) -> None:
    """Remove what builders of `path` have left that were killed. Raises OSError."""
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}" + re.escape(SUFFIX))
    for entry in path.parent.iterdir():
        if found := name.match(entry.name):
            temporary = path.with_name(found[0])
            if not _is_in_use(temporary):
                _remove(temporary)


def _is_in_use(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # a sidecar alone, or nothing that we have made
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove(temporary: Path) -> None:
    sidecar.remove(temporary)
    temporary.unlink(missing_ok=True)
