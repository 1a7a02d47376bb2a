"""What the files shall say, of all rows of a reading or of some keys', and what of it has to be named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack

from mailmaps.filemaps.behind import Behind
from mailmaps.filemaps.contents import LATER, NOTHING, OF_ACCOUNT, Contents, Named
from mailmaps.filemaps.plan import Row
from mailmaps.filemaps.reading import Staged
from mailmaps.filemaps.targets import ALIASES, GIDS, MAILBOXES, QUEUED, UIDS, FileTable
from mailmaps.maps.row_bytes import pack

# The rows of some keys, by table.
KeyRows = Mapping[str, Mapping[str, tuple[str, ...]]]

# For a table, which of these keys are in its file.
Present = Callable[[str, Iterable[bytes]], Collection[bytes]]

# What refuses an account. cleanup(8) goes on to its mailbox, so that others in a list have their mail, and it
# is virtual(8) that keeps it waiting.
_WITH_ACCOUNT = (MAILBOXES, MAILBOXES + QUEUED, ALIASES, UIDS, GIDS)


class Wanted:
    """`named`, by table and key: what is not in the files as the database has it."""

    def __init__(self, tables: list[FileTable], contents: Contents) -> None:
        self._tables = tables
        self._contents = contents
        self._refused: set[bytes] = set()
        self._later: dict[str, set[bytes]] = {}
        self._silent = {table.name: Behind() for table in tables}
        self._told: dict[tuple[str, bytes], Named] = {}
        self._fresh: dict[tuple[str, bytes], Named] = {}
        self.named: dict[tuple[str, bytes], Named] = {}

    def take_news(self) -> list[Named]:
        """What is named, and was not, or for another reason, when this was called last."""
        fresh, self._fresh = self._fresh, {}
        news = {
            place: one
            for place, one in fresh.items()
            if self.named.get(place) == one and self._told.get(place) != one
        }
        self._told |= news
        return list(news.values())

    def begin(self, staged: Staged) -> None:
        """Look at a whole reading as a whole, before its `rows`."""
        self._told = {place: one for place, one in self._told.items() if self.named.get(place) == one}
        self.named = {}
        for table, key in staged.too_long:
            self._name(table, key, self._contents.unasked(key))
        self._refused = self._find_refused(staged)
        self._later = {table.name: self._find_silent(table.name, staged) for table in self._tables}

    def rows(self, target: str, staged: Staged) -> Iterator[Row]:
        """The rows of a file."""
        table = target.removesuffix(QUEUED)
        refused, later = self._refused, self._later[table]
        is_plain = self._contents.plain(table).fullmatch
        for key, packed in staged.rows(table):
            if is_plain(b"%b\n%b" % (key, packed)) and key not in refused:
                yield key, packed
            elif (value := self._row(target, key, packed, refused, later)) is not None:
                yield key, value

    def of_keys(
        self, rows: KeyRows, keys: Collection[bytes], present: Present
    ) -> dict[str, dict[bytes, bytes | None]]:
        """The rows of these keys by table, None for those that a file shall not have; and of other keys,
        which
        change with them."""
        packed = {
            table: {key.encode(errors="surrogateescape"): pack(values) for key, values in some.items()}
            for table, some in rows.items()
        }
        for table in rows:
            for key in keys:
                self.named.pop((table, key), None)
        refused = self._find_refused_among(keys, packed)
        found: dict[str, dict[bytes, bytes | None]] = {}
        for table, some in packed.items():
            silent: dict[bytes, bytes | None] = {}
            for target in (table, table + QUEUED):
                wanted = {key: self._row(target, key, some.get(key), refused, ()) for key in keys if key}
                if target == table:
                    silent = self._silent_rows(table, wanted, some, present)
                instead = {key: _at_last(target, key) if row == LATER else row for key, row in silent.items()}
                found[target] = wanted | instead
        return found

    def lose(self, table: str, keys: Iterable[bytes], why: str) -> None:
        """These keys are not in a file, since it cannot carry them."""
        for key in keys:
            self._name(table, key, why)

    def _find_refused(self, staged: Staged) -> set[bytes]:
        """The addresses of accounts for which nothing is accepted."""
        names = {table.name for table in self._tables}
        if MAILBOXES not in names:
            return set()
        found: set[bytes] = set()
        with ExitStack() as stack:
            get = {
                name: stack.enter_context(staged.reader(name)).get
                for name in (MAILBOXES, UIDS, GIDS)
                if name in names
            }
            for key, _ in staged.rows(MAILBOXES):
                if why := self._contents.refusal(key, get):
                    found.add(key)
                    self._name(MAILBOXES, key, why)
        return found

    def _find_refused_among(
        self, keys: Collection[bytes], rows: Mapping[str, Mapping[bytes, bytes]]
    ) -> set[bytes]:
        found: set[bytes] = set()
        get = {table: some.get for table, some in rows.items()}
        for key in keys:
            if why := self._contents.refusal(key, get):
                found.add(key)
                self._name(MAILBOXES, key, why)
        return found

    def _find_silent(self, table: str, staged: Staged) -> set[bytes]:
        """The keys that are known and answer nothing, while another row would answer in their place."""
        silent = self._silent[table] = Behind()
        later: set[bytes] = set()
        for key, packed in staged.rows(table):
            if packed == NOTHING:
                silent.add(key, self._contents.others(table, key))
        with staged.reader(table) as reader:
            for key in silent:
                for other in silent.others(key):
                    if self._row(table, other, reader.get(other), self._refused, ()) is not None:
                        later.add(key)
                        self._name_silent(table, key, other)
                        break
        return later

    def _silent_rows(
        self,
        table: str,
        wanted: Mapping[bytes, bytes | None],
        rows: Mapping[bytes, bytes],
        present: Present,
    ) -> dict[bytes, bytes | None]:
        """The rows of keys that answer nothing: these, and those in whose place these would answer."""
        silent = self._silent[table]
        for key in wanted:
            if rows.get(key) == NOTHING:
                silent.add(key, self._contents.others(table, key))
            else:
                silent.discard(key)
        found: dict[bytes, bytes | None] = {}
        for key in silent.of(wanted) | {key for key in wanted if key in silent}:
            # One that answers nothing either is there only for the sake of what comes after it.
            others = [other for other in silent.others(key) if other not in silent]
            there = present(table, (other for other in others if other not in wanted))
            answers = (other for other in others if other in there or wanted.get(other) is not None)
            self.named.pop((table, key), None)
            found[key] = None
            if other := next(answers, None):
                found[key] = LATER
                self._name_silent(table, key, other)
        return found

    def _row(
        self,
        target: str,
        key: bytes,
        packed: bytes | None,
        refused: Collection[bytes],
        later: Collection[bytes],
    ) -> bytes | None:
        """The value that a file shall have for a key; None: it shall not have it."""
        table = target.removesuffix(QUEUED)
        if packed is None:
            return None
        if packed == NOTHING:
            return _at_last(target, key) if key in later else None
        if self._contents.is_ignored(table, key):
            return None
        if why := self._contents.unasked(key):
            self._name(table, key, why)
            return None
        if key in refused and target in _WITH_ACCOUNT:
            return LATER if table in OF_ACCOUNT else None
        value, why = self._contents.value(packed)
        if why:
            self._name(table, key, why)
        return value

    def _name(self, table: str, key: bytes, why: str) -> None:
        if (table, key) not in self.named:
            named = Named(table, key.decode(errors="surrogateescape"), why)
            self.named[table, key] = self._fresh[table, key] = named

    def _name_silent(self, table: str, key: bytes, other: bytes) -> None:
        behind = other.decode(errors="replace")
        self._name(table, key, f"it answers nothing, but Postfix would go on to {behind}")


def _at_last(target: str, key: bytes) -> bytes:
    """What a file says of a key that answers nothing, so that nobody goes on to another.

    To cleanup(8) an address may be itself: virtual(8) will say that there is no mailbox.
    """
    return key if target == ALIASES + QUEUED else LATER
