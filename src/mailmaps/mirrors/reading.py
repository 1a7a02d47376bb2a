"""One reading of all rows of a view into a mirror's file: the first makes the file, later ones mend it.

Rows come in the order of their keys, and so the file and the database are walked side by side; equal
stretches, nearly all of it, are compared at once. A file that changes little is written little.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import eq
from pathlib import Path
from typing import Protocol

from mailmaps.maps.row_bytes import LONGEST_KEY, Rows
from mailmaps.mirrors.file import MirrorFile

# Of keys and packed values; fastest as `Rows`.
PackedRows = Collection[tuple[bytes, bytes]]


class Reading(Protocol):
    """Takes rows, keys ascending over all calls; then `finish`, or `abandon`."""

    def take(self, rows: PackedRows) -> None:
        """The next rows."""

    def finish(self) -> MirrorFile:
        """All rows have come: the file that holds them."""

    def abandon(self) -> None:
        """No more rows will come."""


class FirstReading:
    """Makes a new file at `path`."""

    def __init__(self, path: Path, identity: str) -> None:
        self._builder = MirrorFile.build(path, identity)

    def take(self, rows: PackedRows) -> None:
        columns = Rows.of(rows)
        if not all(columns.all_keys) or max(map(len, columns.all_keys), default=0) > LONGEST_KEY:
            columns = Rows.of(row for row in rows if 0 < len(row[0]) <= LONGEST_KEY)
        self._builder.append(columns)

    def finish(self) -> MirrorFile:
        return self._builder.finish()

    def abandon(self) -> None:
        self._builder.abandon()


class Mending:
    """Makes a file equal. A row for which `is_newer` is true has been read again since, and stays.

    `mend` sets rows, or removes those that are None.
    """

    def __init__(
        self,
        file: MirrorFile,
        is_newer: Callable[[str], bool],
        mend: Callable[[Mapping[bytes, bytes | None]], None],
    ) -> None:
        self._file = file
        self._is_newer = is_newer
        self._apply = mend
        self._last: bytes | None = None  # everything up to this key has been compared

    def take(self, rows: PackedRows) -> None:
        last = Rows.of(rows).all_keys[-1]
        held = self._file.after(
            self._last, len(rows)
        )  # all of the stretch if they are equal, as `last` is then
        if len(held) < len(rows) or not all(map(eq, held, rows)):
            self._mend(dict(rows), self._stretch(last, len(rows)))
        self._last = last or None  # after the empty key, which no file can hold, come all others

    def finish(self) -> MirrorFile:
        while rest := self._file.after(self._last, 1000):
            self._mend({}, dict(rest))
            self._last = rest[-1][0]
        return self._file

    def abandon(self) -> None:
        """What has been mended stays mended."""

    def _stretch(self, last: bytes, count: int) -> dict[bytes, bytes]:
        """The file's rows after the last compared key up to `last`; about `count` of them."""
        found: dict[bytes, bytes] = {}
        after = self._last
        while rows := self._file.after(after, count):
            if rows[-1][0] > last:
                found.update(row for row in rows if row[0] <= last)
                break
            found.update(rows)
            after = rows[-1][0]
        return found

    def _mend(self, wanted: dict[bytes, bytes], held: dict[bytes, bytes]) -> None:
        if wanted == held:
            return
        changes: dict[bytes, bytes | None] = {
            key: value
            for key, value in wanted.items()
            if held.get(key) != value and 0 < len(key) <= LONGEST_KEY
        }
        changes |= dict.fromkeys(held.keys() - wanted.keys())
        kept = {
            key: value
            for key, value in changes.items()
            if not self._is_newer(key.decode(errors="surrogateescape"))
        }
        if kept:
            self._apply(kept)
