"""One table as Postfix reads it: `lmdb:`, which is our LMDB file itself, or `cdb:`, which is made of one.

Whichever it is, postmap(1) is asked for every row before a new file takes its place. A key for which it has
not the row's value is lost: it is not in the file then, and named.

A cdb cannot be changed, so postmap makes another after each change, from text. Text cannot carry every key
(`#x@example.com` is a comment), and no row of it can say "later": such keys are not in it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from mailmaps.filemaps.contents import LATER
from mailmaps.filemaps.lmdb_file import Access, LmdbFile, sync_folder
from mailmaps.filemaps.plan import Row
from mailmaps.filemaps.postmap import Postmap, PostmapError, Rows

LMDB, CDB = "lmdb", "cdb"

# Keys that postmap may lose of a file, besides a hundredth of them; of more it is not asked rightly.
MOST_LOST = 20

# What postmap takes for one key in text (src/postmap/postmap.c); another would become some other key, go on
# with the row before, or be left out.
_KEY = re.compile(rb'(?!#)(?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*")+', re.DOTALL)

_NUL = re.compile(rb"\0")


class MapFile(Protocol):
    """What a set of files needs of one. All may raise OSError, `DiskTrouble` and `PostmapError`."""

    path: Path

    def open(self) -> bool:
        """Whether it is there, and open from here on. Raises `Unsound` if it is there and not in order."""

    def get_all(self, keys: Iterator[bytes]) -> dict[bytes, bytes]:
        """The rows that it should have of these keys."""

    def rows(self) -> Iterator[Row]:
        """All rows that it should have."""

    def __len__(self) -> int:
        """How many."""

    def change(self, rows: Mapping[bytes, bytes | None]) -> list[bytes]:
        """Set rows, or remove those that are None, all at once; keys that are lost."""

    def replace(self, rows: Rows) -> list[bytes]:
        """Put another file in its place; keys that are lost."""

    def prove(self) -> list[bytes]:
        """Have postmap answer for every row; keys that are lost."""

    def close(self) -> None:
        """Let go of it."""


class LmdbMap(LmdbFile):
    """`NAME.lmdb`, `path` without the suffix."""

    def __init__(self, path: Path, access: Access, postmap: Postmap) -> None:
        super().__init__(path.with_name(f"{path.name}.{LMDB}"), access)
        self._postmap = postmap

    def replace(self, rows: Rows) -> list[bytes]:
        lost: set[bytes] = set()

        def carried() -> Iterator[Row]:
            return (row for row in rows() if row[0] not in lost)

        with self.made(carried()) as temporary:
            lost.update(self._lost(temporary))
            if not lost:
                self.put_in_place(temporary)
                return []
        with self.made(carried()) as temporary:
            if self._lost(temporary):
                raise PostmapError(f"{self.path}: postmap does not answer with what is in it")
            self.put_in_place(temporary)
        return sorted(lost)

    def prove(self) -> list[bytes]:
        self.remove_left_over()
        if any(map(_NUL.search, self.keys())):
            # `postmap -i` has been here. A reader that finds a key with a NUL takes all for such
            # (dict_lmdb_lookup); it has to begin anew.
            return self.replace(lambda: (row for row in self.rows() if b"\0" not in row[0]))
        lost = self._postmap.differing(f"{LMDB}:{self.path.with_suffix('')}", self.rows)
        self.change(dict.fromkeys(_few(lost, self.path, len(self))))
        return lost

    def _lost(self, path: Path) -> list[bytes]:
        with LmdbFile(path, self._access) as made:
            lost = self._postmap.differing(f"{LMDB}:{path.with_suffix('')}", made.rows)
            return _few(lost, self.path, len(made))


class CdbMap:
    """`NAME.cdb`, `path` without the suffix, made of an LMDB file in `state`."""

    def __init__(
        self, path: Path, state: Path, access: Access, postmap: Postmap, *, later: bytes | None = None
    ) -> None:
        """`later`: the value that means "cannot say now" to who reads this table, if there is one."""
        self.path = path.with_name(f"{path.name}.{CDB}")
        self._later = later
        self._access = access
        self._postmap = postmap
        state.mkdir(mode=0o700, exist_ok=True)
        self._held = LmdbFile(state / f"{path.name}.{LMDB}", Access(0o600, os.geteuid(), os.getegid()))
        self._unmade = state / f"{path.name}.unmade"  # there while the cdb is older than the rows

    def open(self) -> bool:
        return self._held.open() and self.path.exists()

    def get_all(self, keys: Iterator[bytes]) -> dict[bytes, bytes]:
        return self._held.get_all(keys)

    def rows(self) -> Iterator[Row]:
        return self._held.rows()

    def __len__(self) -> int:
        return len(self._held)

    def change(self, rows: Mapping[bytes, bytes | None]) -> list[bytes]:
        if not rows and not self._unmade.exists():  # after a failure, the same change is none
            return []
        self._unmade.touch()
        self._held.change(rows)
        return self._make()

    def replace(self, rows: Rows) -> list[bytes]:
        self._unmade.touch()
        with self._held.made(rows()) as temporary:
            self._held.put_in_place(temporary)
        return self._make_sure()

    def prove(self) -> list[bytes]:
        self._held.remove_left_over()
        is_made = not self._unmade.exists() and not self._unsaid()
        if is_made and not self._postmap.differing(f"{CDB}:{self.path.with_suffix('')}", self._said):
            return []
        return self._make_sure()

    def close(self) -> None:
        self._held.close()

    def _said(self) -> Iterator[Row]:
        for key, value in self._held.rows():
            said = self._later if value == LATER else value
            if said is not None and _can_be_said(key, said):
                yield key, said

    def _unsaid(self) -> list[bytes]:
        return [key for key, value in self._held.rows() if not _can_be_said(key, value)]

    def _make_sure(self) -> list[bytes]:
        """Make the cdb without the keys that it cannot carry, which are no longer ours then; those."""
        if lost := self._make():
            self._unmade.touch()
            self._held.change(dict.fromkeys(lost))
            if self._make():
                raise PostmapError(f"{self.path}: postmap does not answer with what is in it")
        return lost

    def _make(self) -> list[bytes]:
        """Make the cdb of the rows; the keys that it cannot carry."""
        for left in self.path.parent.glob(".cdb-*"):  # of one that was killed; nobody else is making one
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".cdb-", dir=self.path.parent) as folder:
            source = Path(folder) / "source"
            with source.open("wb") as text:
                text.writelines(b"%b %b\n" % row for row in self._said())
            self._postmap.make_cdb(source)
            lost = self._unsaid() + _few(
                self._postmap.differing(f"{CDB}:{source}", self._said), self.path, len(self)
            )
            made = source.with_suffix(f".{CDB}")
            with made.open("rb") as file:
                self._access.give(file.fileno())
                os.fsync(file.fileno())
            made.rename(self.path)
        sync_folder(self.path.parent)
        self._unmade.unlink(missing_ok=True)
        return lost


def _few(lost: list[bytes], path: Path, rows: int) -> list[bytes]:
    """Lost keys; but if they are many, it is not they that are odd. Raises `PostmapError`."""
    if len(lost) > max(MOST_LOST, rows // 100):
        key = ascii(lost[0].decode(errors="replace"))
        raise PostmapError(f"{path}: postmap answers otherwise for {len(lost)} of {rows} keys, such as {key}")
    return lost


def _can_be_said(key: bytes, value: bytes) -> bool:
    return value.strip() == value and _KEY.fullmatch(key) is not None
