"""One view held whole: its rows in a file, and how far they can be trusted.

Contract: while `proven`, the rows are those of the database, as of some seconds ago at most, and what is
not among them is not there. While not, `get` still answers, and `age` tells since when nobody knows.

Why no change is missed, and none overtaken by an older read:

* `touched` is recorded from before a reading's snapshot is taken until its last row is in the file. A key
  that is committed after the snapshot is notified in that time or later; either way it is read again, by
  itself, after the snapshot, and the snapshot's own row for it is dropped, or overwritten.
* A key leaves `dirty` before it is read again, not after. One that changes while it is read is notified once
  more, and read once more.
* `current_as_of` a moment comes when everything that was notified before it has left `dirty` and been read,
  and counts only when no whole reading is due or under way for a file that was not proven before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mailmaps.logs import events
from mailmaps.maps.row_bytes import LONGEST_KEY
from mailmaps.mirrors.file import DiskTrouble, Lost, MirrorFile, Unsound
from mailmaps.mirrors.reading import FirstReading, Mending, Reading

log = events(__name__)

# Rows that are changed in one transaction. LMDB never gives back the memory of the pages that its largest
# transaction changed (mdb_dpage_free): one page a row, where rows are scattered, in each of the files.
ROWS_AT_ONCE = 500


class Mirror:
    """One view. `group` is the word under which its keys are notified, empty for a site's own view.

    `replace` gives for a value as the view has it the value to hold. `clock` is the event loop's.
    `changed` are called when an answer may have changed, or whether it is proven.
    """

    def __init__(
        self,
        view: str,
        identity: str,
        *,
        group: str = "",
        replace: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = view
        self.group = group
        self.replace = replace
        self.changed: set[Callable[[], None]] = set()
        self.proven = False
        self.unread = True  # a whole reading is due
        self.why = ""  # the last reading failed
        self._has_complained = False  # of that
        self.dirty: set[str] = set()  # keys to be read again
        self.relations: frozenset[str] = frozenset()
        self.unwatched = "the database has not been asked yet"  # why not every change is notified
        self._fingerprint = ""
        self.drift = 0
        self._path = Path()
        self._identity = identity
        self._clock = clock
        self._file: MirrorFile | None = None
        self._touched: set[str] | None = None  # keys notified during a whole reading
        self._was_proven = False  # when the reading that is under way began
        self._again: set[str] = set()  # keys that are being read again
        self._owed: set[str] = set()  # keys that must be, until the rows of the last reading can be proven
        self._told_before: set[str] = set()  # keys to be read again when the reading began
        self._unheard: set[str] = set()  # keys that a reading has mended and nobody has told of yet
        self._unheard_at = 0.0  # when it last did
        self._is_void = False  # rows have changed, and nobody knows which
        self._current_at: float | None = None  # the last proof, or the beginning of the last reading
        self._proven_at: float | None = None

    def open(self, path: Path) -> None:
        """Take the rows that are on disk, if they are sound; `path` is where they will be kept."""
        self._path = path
        if not path.exists():
            return
        try:
            self._file = MirrorFile.open(self._path, self._identity)
        except Unsound as error:
            log.warning("mirror: a file is read anew", path=self._path, reason=error)
            return
        self._proven_at = self._moment(self._file.proven_at)
        read_at = self._moment(_modified(self._read_note))
        moments = [moment for moment in (self._proven_at, read_at) if moment is not None]
        self._current_at = max(moments, default=None)

    def close(self) -> None:
        """Leave the file as it is; nothing is answered from here on."""
        self.proven = False
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                log.error("mirror: a file cannot be written", path=self._path, reason=error)

    async def checkpoint(self) -> None:
        """Have the file on disk judged quickly when it is opened next."""
        if self._file is not None and not self.is_being_read:
            try:
                await self._file.checkpoint()
            except OSError as error:
                log.error("mirror: a file cannot be written", path=self._path, reason=error)

    @property
    def is_held(self) -> bool:
        """Whether there are rows at all."""
        return self._file is not None

    @property
    def age(self) -> float | None:
        """Seconds since the rows were known to be those of the database; None: they never were."""
        return None if self._current_at is None or self._file is None else self._clock() - self._current_at

    @property
    def age_of_proof(self) -> float | None:
        """Seconds since they were last proven; None: they never were, or have changed since."""
        if self._proven_at is None or self._file is None or self.is_behind:
            return None
        return self._clock() - self._proven_at

    @property
    def is_being_read(self) -> bool:
        return self._touched is not None

    def get(self, key: bytes) -> bytes | None:
        """The packed values of a key of at most `LONGEST_KEY` bytes."""
        return None if self._file is None else self._file.get(key)

    def touch(self, keys: Sequence[str]) -> None:
        """These keys may have changed."""
        self.dirty.update(keys)
        self._unheard.difference_update(keys)
        if self._touched is not None:
            self._touched.update(keys)
        if not self.proven:
            self._tell()

    def outdate(self) -> None:
        """Any row may have changed."""
        self._unheard.clear()
        self.unread = True
        self.proven = False
        self._tell()

    def deaf(self) -> None:
        """Any row may have changed, and the keys that were to be read again will only be with all others."""
        if self.dirty or self._again:
            self.void()
        else:
            self.outdate()
        self.dirty.clear()
        self._again = set()

    @property
    def is_behind(self) -> bool:
        """Whether rows are known to have changed that have not been read again."""
        return self._is_void or bool(self.dirty or self._again)

    def void(self) -> None:
        """Rows have changed and are not read again yet: what was proven is no longer worth anything."""
        self._is_void = True
        self._proven_at = None
        if self._file is not None:
            self._file.proven(0.0)
        self.outdate()

    def watch(self, fingerprint: str, relations: frozenset[str], problem: str) -> None:
        """How the view, its tables and their triggers are now; `problem`: not all is notified."""
        if (fingerprint, problem) == (self._fingerprint, self.unwatched):
            return
        self._fingerprint = fingerprint
        if problem and problem != self.unwatched:
            log.warning("mirror: no key is believed to be missing", view=self.view, reason=problem)
        self.relations, self.unwatched = relations, problem
        self.void()

    def fail(self, why: str, *, away: bool = False) -> None:
        """The rows could not be read; a whole reading is due. `away`: nobody can connect, which is an outage
        of all views, and said where that is found out."""
        if why != self.why:
            if away:
                log.info("mirror: cannot be read now", view=self.view, reason=why)
            else:
                log.error("mirror: cannot be read", view=self.view, reason=why)
                self._has_complained = True
        self.why = why
        self.outdate()

    def take_dirty(self) -> set[str]:
        """The keys to be read again now; to be answered by `refresh`, once or in parts, or `give_up_keys`."""
        self._again, self.dirty = self.dirty, set()
        return set(self._again)

    def give_up_keys(self) -> None:
        """They could not be read."""
        self._again = set()
        self.void()

    def refresh(self, rows: Mapping[str, bytes], keys: set[str]) -> None:
        """Take over the rows that `keys`, all or some of those taken, have; those not in `rows` have none."""
        self._again -= keys
        if not self._again:
            self._again = set()  # one that has been emptied keeps its room
        self._owed -= keys
        if self._file is None:
            return  # a first reading has recorded them as touched
        encoded = {key.encode(errors="surrogateescape"): rows.get(key) for key in keys}
        try:
            if self._change({key: row for key, row in encoded.items() if 0 < len(key) <= LONGEST_KEY}):
                self._tell()
        except DiskTrouble as error:
            self.void()
            self.fail(str(error))

    def begin_reading(self) -> Reading:
        """To be called before the snapshot is taken, and answered by `end_reading` or `give_up_reading`."""
        reading: Reading
        touched: set[str] = set()
        if self._file is None:
            reading = FirstReading(self._path, self._identity)
        else:
            reading = Mending(self._file, touched.__contains__, self._mend)
        self.unread = False
        self._touched = touched
        self._told_before = self.dirty | self._again
        self._was_proven = self.proven
        return reading

    def end_reading(self, reading: Reading, began: float) -> None:
        """All rows, of a moment after `began`, have been taken."""
        assert self._touched is not None  # since begin_reading()
        try:
            self._file = reading.finish()
        except OSError as error:
            raise DiskTrouble(f"{self._path}: {error.strerror}") from error
        if not self._touched and not self._told_before:  # else some rows may be older than the snapshot
            self._current_at = max(began, self._current_at or began)
            self._note_reading()
        if not self._was_proven:
            self._owed = self._touched
        self.touch(tuple(self._touched))
        self._touched = None
        self._is_void = self._is_void and self.unread
        if self._has_complained:
            log.warning("mirror: has been read again", view=self.view)
        self.why, self._has_complained = "", False
        if not self._was_proven:
            self._tell()

    def give_up_reading(self, reading: Reading) -> None:
        """No more rows will come: they are still due."""
        reading.abandon()
        self._touched = None
        self.outdate()

    def current_as_of(self, moment: float) -> None:
        """All that was notified before `moment` has been read, if it was for us."""
        if moment >= self._unheard_at and self._unheard:
            self.drift += len(self._unheard)
            log.warning("mirror: rows had changed unheard of", view=self.view, rows=len(self._unheard))
            self._unheard.clear()
        being_made = self._touched is not None and not self.proven
        if self._file is None or self.unread or being_made or self.unwatched or self._owed:
            return
        self._current_at = self._proven_at = max(moment, self._current_at or moment)
        self._file.proven(self._wall(self._current_at))
        if not self.proven:
            self.proven = True
            self._tell()

    def lapse(self, limit: float) -> None:
        """Trust the rows no more when nothing has proven them for `limit` seconds."""
        if self.proven and (self.age or 0.0) > limit:
            self.proven = False
            self._tell()

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        return {
            "proven": self.proven,
            "why": self._why_not_proven(),
            "keys": None if self._file is None else len(self._file),
            "bytes": None if self._file is None else self._file.bytes_on_disk,
            "age": self.age,
            "pending": len(self.dirty) + len(self._again),
            "drift": self.drift,
        }

    def _why_not_proven(self) -> str:
        if self.proven:
            return ""
        if self.is_being_read or (self.unread and not self.why):
            return "it is being read" if self.is_being_read else "it is to be read"
        return self.why or self.unwatched or "nothing has proven it yet"

    def _mend(self, rows: Mapping[bytes, bytes | None]) -> None:
        """The reading under way has found other rows under these keys. Is it that nobody told us of them, or
        not yet? A beat sent from now on comes after that. Who is told later finds no difference any more."""
        self._change(rows)
        if self._was_proven and not self.unread:
            keys = (key.decode(errors="surrogateescape") for key in rows)
            self._unheard.update(key for key in keys if key not in self._told_before)
            self._unheard_at = self._clock()
        if self.proven:
            self._tell()

    def _change(self, rows: Mapping[bytes, bytes | None]) -> int:
        """Change the file; one that is lost by that is held no more: another will be made."""
        assert self._file is not None
        keys = sorted(rows)  # neighbours share pages
        changed = 0
        try:
            for first in range(0, len(keys), ROWS_AT_ONCE):
                changed += self._file.change({key: rows[key] for key in keys[first : first + ROWS_AT_ONCE]})
            return changed
        except Lost as error:
            self._file = None
            raise DiskTrouble(str(error)) from error

    @property
    def _read_note(self) -> Path:
        """An empty file, as old as the last reading, for mirrors that are never proven."""
        return self._path.with_name(self._path.name + ".read")

    def _note_reading(self) -> None:
        assert self._current_at is not None
        at = self._wall(self._current_at)
        try:
            self._read_note.touch(0o640)
            os.utime(self._read_note, (at, at))
        except OSError as error:
            log.error("mirror: a file cannot be written", path=self._read_note, reason=error.strerror)

    def _wall(self, moment: float) -> float:
        return time.time() - (self._clock() - moment)

    def _moment(self, wall: float | None) -> float | None:
        return None if wall is None else self._clock() - max(0.0, time.time() - wall)

    def _tell(self) -> None:
        for tell in tuple(self.changed):
            tell()


def _modified(path: Path) -> float | None:
    """Unix seconds; None where there is none, or it is in the future, so that nobody knows."""
    try:
        at = path.stat().st_mtime
    except OSError:
        return None
    return at if at < time.time() + 60 else None
