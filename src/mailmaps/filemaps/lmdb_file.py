"""One `lmdb:` file of Postfix: read, changed in place in one transaction, or replaced as a whole.

Keys and values without a trailing NUL; Postfix tries both (src/util/dict_lmdb.c). Each transaction is synced
to the disk: a file that a crash of the machine had torn would end the Postfix processes that read it
(SIGBUS).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb

from mailmaps.filemaps.locks import writing
from mailmaps.mirrors.environment import SMALLEST_MAP, DiskTrouble, Unsound, open_environment, write
from mailmaps.mirrors.soundness import check_pages

# Rows that are written in one transaction into a file that nobody reads yet.
_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Access:
    """Mode, and owner and group by number, of the files."""

    mode: int
    uid: int
    gid: int

    def give(self, fd: int) -> None:
        """Give them to an open file. Raises OSError."""
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.fchown(fd, self.uid, self.gid)
        if status.st_mode & 0o7777 != self.mode:
            os.fchmod(fd, self.mode)


class LmdbFile:
    """The file `path`, there or not. For one thread; between processes, its directory's lock decides."""

    def __init__(self, path: Path, access: Access) -> None:
        self.path = path
        self._access = access
        self._env: lmdb.Environment | None = None
        self._fd = -1

    def open(self) -> bool:
        """Whether there is a sound file, open from here on; to be asked anew whenever the lock was let go.

        Raises `Unsound` for one that Postfix must not read either, and OSError.
        """
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            self.close()
            return False
        if self._fd >= 0 and os.path.samestat(status, os.fstat(self._fd)):
            return True
        self.close()
        check_pages(self.path)
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._access.give(fd)
            self._env = open_environment(self.path, max(SMALLEST_MAP, 2 * status.st_size), sync=True)
        except DiskTrouble as error:
            os.close(fd)
            raise Unsound(str(error)) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            os.close(self._fd)
        self._env, self._fd = None, -1

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_all(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there; each of 1 to 511 bytes."""
        with self._reading() as transaction:
            found = ((key, transaction.get(key)) for key in keys)
            return {key: value for key, value in found if value is not None}

    def keys(self) -> Iterator[bytes]:
        """All keys in their order. No change while they are read."""
        with self._reading() as transaction, transaction.cursor() as cursor:
            yield from cursor.iternext(values=False)

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """All rows in the order of their keys. No change while they are read."""
        with self._reading() as transaction, transaction.cursor() as cursor:
            yield from cursor

    def __len__(self) -> int:
        with self._reading() as transaction:
            return int(transaction.stat()["entries"])

    def change(self, rows: Mapping[bytes, bytes | None]) -> list[bytes]:
        """Set rows, or remove those that are None, all at once. Raises `Locked`, `DiskTrouble`.

        The keys that are lost: none here.
        """
        if not rows:
            return []
        assert self._env is not None  # open() has said so

        def apply(transaction: lmdb.Transaction[bytes]) -> None:
            for key in sorted(rows):
                value = rows[key]
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)

        try:
            with writing(self._fd):
                write(self._env, apply)
        except DiskTrouble as error:
            self.close()  # it may be of no use any more
            raise DiskTrouble(f"{self.path}: {error}") from error
        return []

    @contextmanager
    def made(self, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Path]:
        """A new file with `rows` (keys ascending) beside this one, gone at the end unless it was put in
        place.

        Nobody else is making one at this moment. Raises `DiskTrouble`, OSError.
        """
        self.remove_left_over()
        temporary = self.path.with_name(f".{secrets.token_hex(4)}.{self.path.name}")
        try:
            self._fill(temporary, rows)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def remove_left_over(self) -> None:
        """Remove what `made` has left that was killed. Raises OSError."""
        for path in self.path.parent.glob(f".????????.{self.path.name}"):
            path.unlink(missing_ok=True)

    def put_in_place(self, made: Path) -> None:
        """Have this file's name mean another, complete one. Raises OSError, `Unsound`.

        Whoever reads the old one notices (its link count is 0) and starts anew (src/util/dict.c).
        """
        made.rename(self.path)
        sync_folder(self.path.parent)
        self.close()
        self.open()

    def _fill(self, path: Path, rows: Iterable[tuple[bytes, bytes]]) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            env = open_environment(path, SMALLEST_MAP, is_new=True)
            try:
                write(env, _commit_nothing)
                rows = iter(rows)
                while part := list(islice(rows, _ROWS)):
                    _append(env, part)
            finally:
                env.close()
            self._access.give(fd)
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction[bytes]]:
        assert self._env is not None  # open() has said so
        try:
            with self._env.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise DiskTrouble(str(error)) from error


def _commit_nothing(transaction: lmdb.Transaction[bytes]) -> None:
    """An empty file of one transaction, whose meta pages tell which is the newer."""
    transaction.put(b"-", b"-")
    transaction.delete(b"-")


def _append(env: lmdb.Environment, rows: list[tuple[bytes, bytes]]) -> None:
    def apply(transaction: lmdb.Transaction[bytes]) -> None:
        with transaction.cursor() as cursor:
            _, added = cursor.putmulti(rows, overwrite=False, append=True)
        if added != len(rows):
            raise ValueError("the keys are not strictly ascending")

    write(env, apply)


def sync_folder(folder: Path) -> None:
    """Have a change of names survive a crash. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
