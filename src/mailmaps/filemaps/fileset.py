"""All files of one directory: brought to what the database says, in the order that loses no mail.

Not for the event loop: it waits for the disk, for Postfix's locks and for postmap(1). One thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mailmaps.config.settings import Settings
from mailmaps.filemaps import lingering
from mailmaps.filemaps.boxes import make_boxes
from mailmaps.filemaps.contents import Contents, Named
from mailmaps.filemaps.folder import held, prepare
from mailmaps.filemaps.lingering import Lingering
from mailmaps.filemaps.maps import CDB, CdbMap, LmdbMap, MapFile
from mailmaps.filemaps.plan import Plan, Row, merged
from mailmaps.filemaps.postmap import Postmap
from mailmaps.filemaps.reading import Staged
from mailmaps.filemaps.targets import ALIASES, GIDS, MAILBOXES, QUEUED, UIDS, FileTable, Target, targets
from mailmaps.filemaps.wanted import KeyRows, Wanted
from mailmaps.logs import events
from mailmaps.maildirs.box import Row as MailboxRow
from mailmaps.mirrors.environment import Unsound
from mailmaps.tableset import rules

log = events(__name__)

# Of the rows of which cdb files are made: nobody else reads them.
_STATE = ".state"

_REMOVED = ".removed"

# A cdb has no empty values. virtual(8) defers mail for such a mailbox, whatever uid there is
# (src/virtual/mailbox.c); if it did not know it, mail that an alias sends there would bounce.
_CDB_LATER = {MAILBOXES + QUEUED: b"later/../later/"}


@dataclass(slots=True)
class Report:
    """What was done: rows added, changed and removed, by file.

    `withheld`: what would have taken too much away, and was not done. `replaced`: files that were made anew.
    """

    added: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line; empty if nothing was done."""
        names = dict.fromkeys((*self.replaced, *self.added, *self.changed, *self.removed))
        parts = []
        for name in names:
            counts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
            said = [f"{count[name]} {word}" for word, count in counts if name in count]
            parts.append(f"{name}: {', '.join([*['made anew'] * (name in self.replaced), *said])}")
        return "; ".join(parts)


class Missing(Exception):
    """A file is not there, or not in order: only a whole reading helps."""


class FileSet:
    """The files of `tables` in filemaps.directory. Raises `FolderError`, OSError."""

    def __init__(self, settings: Settings, tables: list[FileTable]) -> None:
        self._settings = settings.filemaps
        self._postfix = settings.postfix
        self.folder = Path(settings.filemaps.directory)
        access = prepare(settings.filemaps)
        postmap = Postmap(Path(settings.postfix.config_directory))
        self._contents = Contents(tables, rules(settings), settings.postfix.virtual_minimum_uid)
        self._wanted = Wanted(tables, self._contents)
        self._targets = targets(tables)
        self._files: dict[str, MapFile] = {}
        for target in self._targets:
            path = self.folder / target.file
            self._files[target.name] = (
                CdbMap(path, self.folder / _STATE, access, postmap, later=_CDB_LATER.get(target.name))
                if settings.filemaps.type == CDB
                else LmdbMap(path, access, postmap)
            )
        # What smtpd(8) accepts may be more than the database has. Until that has been looked at, or forced,
        # nothing ends by which it is delivered.
        self._withholds = True
        self._lingering = {one.name: Lingering() for one in self._targets if one.lingers}
        for name, since in lingering.load(self.folder / _REMOVED).items():
            if name in self._lingering:
                self._lingering[name].recall(since)

    def close(self) -> None:
        """Let go of the files, and remember what lingers. Raises OSError."""
        for file in self._files.values():
            file.close()
        self.save()

    def save(self) -> None:
        """Remember on disk what lingers. Raises OSError."""
        lingering.save(self.folder / _REMOVED, self._lingering)

    @property
    def named(self) -> list[Named]:
        """The keys that are not in the files as the database has them."""
        return list(self._wanted.named.values())

    def take_news(self) -> list[Named]:
        """Those that were not among them when this was called last."""
        return self._wanted.take_news()

    @property
    def rows(self) -> dict[str, int]:
        """How many each file has."""
        return {name: len(file) for name, file in self._files.items() if _is_open(file)}

    @property
    def removed(self) -> int:
        """How many keys are still in files although they have been removed."""
        return sum(len(one) for name, one in self._lingering.items() if name.endswith(QUEUED))

    def is_complete(self) -> bool:
        """Whether all files are there."""
        return all(file.path.exists() for file in self._files.values())

    def leads_to(self, key: str, target: str) -> Iterable[str]:
        """The keys that Postfix asks for a target of virtual_alias_maps, of this key."""
        return self._contents.leads_to(key, target)

    def bring_up(self, staged: Staged, *, newer: Collection[str] = (), force: bool = False) -> Report:
        """Make all files what a whole reading says; `force`: whatever that takes away.

        Keys that are `newer` have been changed since it began, and stay. What is replaced by that is proven,
        all else to be with `prove`. Raises `PostmapError`, `FolderError`, `DiskTrouble`, OSError.
        """
        with held(self.folder):
            self._wanted.begin(staged)
            kept = {key.encode(errors="surrogateescape") for key in newer}
            plans = [self._plan(target, staged, kept) for target in self._targets]
            report = Report()
            if not force:
                report.withheld = self._excess(plans)
            self._withholds = bool(report.withheld)
            if report.withheld and not all(plan.exists for plan in plans):
                return report  # there is nothing to which the rest could be added
            for plan in plans:
                self._make_boxes(plan)
                if plan.is_whole:
                    self._replace(plan, staged, report)
                else:
                    self._set(plan, report)
            if not report.withheld:
                self._remove(plans, report)
            return report

    def prove(self, name: str) -> None:
        """Have postmap answer for every row of a file. Raises as `bring_up`."""
        with held(self.folder):
            if _is_open(self._files[name]):
                self._lose(name, self._files[name].prove())

    def change(self, rows: KeyRows, keys: Collection[str]) -> Report:
        """Take over the rows that these keys have now in the tables of `rows`; those not there have none.

        Raises `Missing`, and as `bring_up`.
        """
        with held(self.folder):
            if missing := [name for name, file in self._files.items() if not _is_open(file)]:
                raise Missing(", ".join(missing))
            asked = {key.encode(errors="surrogateescape") for key in keys}
            wanted = self._wanted.of_keys(rows, asked, lambda table, some: self._present(table, some))
            plans = [self._plan_of_keys(one, wanted[one.name]) for one in self._targets if one.name in wanted]
            report = Report(withheld=self._excess(plans))
            self._withholds = self._withholds or bool(report.withheld)
            for plan in plans:
                self._make_boxes(plan)
                self._set(plan, report)
            if not report.withheld:
                self._remove(plans, report)
            return report

    def expire(self) -> Report:
        """Remove what has lingered for long enough. Raises as `bring_up`."""
        report = Report()
        ended = self._expired()
        if any(ended.values()):
            with held(self.folder):
                if all(map(_is_open, self._files.values())):  # else a whole reading is due, and will do it
                    self._end(ended, set(), report)
        return report

    def _expired(self) -> dict[str, set[bytes]]:
        """What has lingered for long enough; uids and gids linger for as long as their mailboxes."""
        before = time.time() - self._settings.linger
        queued = {name: one for name, one in self._lingering.items() if name.endswith(QUEUED)}
        if self._withholds:
            return {name: set() for name in queued}
        return {
            name: set(one.before(before) if self._settings.linger else one) for name, one in queued.items()
        }

    def _plan(self, target: Target, staged: Staged, newer: Collection[bytes]) -> Plan:
        file = self._files[target.name]
        plan = Plan(
            target, exists=_is_open(file), newer=newer, lingering=self._lingering.get(target.name, ())
        )
        plan.is_whole = not plan.exists
        held_rows = file.rows() if plan.exists else ()
        for key, has, shall in merged(held_rows, self._wanted.rows(target.name, staged)):
            plan.see(key, has, shall)
        self._end_again(plan)
        if known := self._lingering.get(target.name):  # since before we were started, perhaps
            self._begin_to_linger(plan, [key for key in plan.missing if key in known])
        return plan

    def _plan_of_keys(self, target: Target, wanted: Mapping[bytes, bytes | None]) -> Plan:
        plan = Plan(target, exists=True, lingering=self._lingering.get(target.name, ()))
        has = self._files[target.name].get_all(iter(wanted))
        for key, shall in wanted.items():
            plan.see(key, has.get(key), shall)
        self._end_again(plan)
        return plan

    def _end_again(self, plan: Plan) -> None:
        """What had been removed is wanted again, perhaps as it was."""
        for key in plan.again:
            self._lingering[plan.target.name].end(key)

    def _present(self, table: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return self._files[table].get_all(iter(keys))

    def _make_boxes(self, plan: Plan) -> None:
        """Before virtual(8) knows of a mailbox, and after its owner is in the files."""
        if not self._settings.maildirs or plan.target.name != MAILBOXES + QUEUED:
            return
        wanted = {key: value for key, value in plan.sets.items() if value}
        if wanted and UIDS in self._files and GIDS in self._files:
            uids, gids = (self._files[name].get_all(iter(wanted)) for name in (UIDS, GIDS))
            rows = [
                MailboxRow(_text(value), _text(uids.get(key)), _text(gids.get(key)), _text(key))
                for key, value in wanted.items()
            ]
            make_boxes({row.path: row for row in rows}.values(), self._postfix)

    def _excess(self, plans: list[Plan]) -> list[str]:
        """What would take too much away."""
        found = []
        for plan in plans:
            rows = len(self._files[plan.target.name]) if plan.exists else 0
            if text := plan.excess(rows, self._settings.most_removed):
                found.append(text)
        return found

    def _set(self, plan: Plan, report: Report) -> None:
        """Add and change rows; what is no longer wanted stays for now."""
        kept = plan.darkened if report.withheld else set()
        rows = {key: value for key, value in plan.sets.items() if key not in kept}
        self._change(plan.target.name, rows)
        self._note(plan, len(kept), report)

    def _replace(self, plan: Plan, staged: Staged, report: Report) -> None:
        """The same by another file in this one's place."""
        target, file = plan.target, self._files[plan.target.name]
        kept = plan.darkened if report.withheld else set()

        def rows() -> Iterator[Row]:
            wanted = self._wanted.rows(target.name, staged)
            if not plan.exists:
                yield from wanted
                return
            for key, has, shall in merged(file.rows(), wanted):
                stays = shall is None or key in kept or key in plan.newer
                value = has if stays else shall
                if value is not None:
                    yield key, value

        self._lose(target.name, file.replace(rows))
        report.replaced.append(target.name)
        self._note(plan, len(kept), report)

    def _note(self, plan: Plan, kept: int, report: Report) -> None:
        name = plan.target.name
        if plan.added:
            report.added[name] = plan.added
        if plan.changed > kept:
            report.changed[name] = plan.changed - kept

    def _change(self, name: str, rows: Mapping[bytes, bytes | None]) -> None:
        self._lose(name, self._files[name].change(rows))

    def _lose(self, name: str, keys: list[bytes]) -> None:
        is_cdb = self._settings.type == CDB
        why = (
            "a cdb cannot carry it, or what it should answer" if is_cdb else "postmap does not find it again"
        )
        self._wanted.lose(name.removesuffix(QUEUED), keys, why)

    def _remove(self, plans: list[Plan], report: Report) -> None:
        """First what accepts, in the reverse order; then, of what delivers, all that need not linger."""
        for plan in reversed(plans):
            if not plan.target.lingers and plan.missing:
                self._change(plan.target.name, dict.fromkeys(plan.missing))
                report.removed[plan.target.name] = len(plan.missing)
        ids: set[bytes] = set()
        for plan in plans:
            if plan.target.lingers:
                self._begin_to_linger(plan, plan.missing)
            if plan.target.name in (UIDS, GIDS):
                ids.update(plan.missing)
        ended = self._expired()
        for plan in plans:
            if plan.target.name in ended:
                ended[plan.target.name] |= self._overtaken(plan, plans)
        self._end(ended, ids, report)

    def _begin_to_linger(self, plan: Plan, keys: Iterable[bytes]) -> None:
        table, one = plan.target.table.name, self._lingering[plan.target.name]
        now = time.time()
        for key in keys:
            others = self._contents.others(table, key)
            if table == ALIASES and MAILBOXES in self._files:
                others = (*others, *self._contents.asked(MAILBOXES, key))
            one.begin(key, tuple(dict.fromkeys(others)), one.since(key, now))

    def _overtaken(self, plan: Plan, plans: list[Plan]) -> set[bytes]:
        """What lingers and stands in the way of a row that answers in its place now."""
        one = self._lingering[plan.target.name]
        tables = [plan.target.table.name]
        if ALIASES in tables and MAILBOXES in self._files:
            tables.append(MAILBOXES)
        suspects = set(plan.missing)
        for other in plans:
            if other.target.name in tables:
                suspects |= one.behind.of(other.sets)
        return {
            key
            for key in suspects
            if any(self._present(table, self._asked_for(table, key, plan)) for table in tables)
        }

    def _asked_for(self, table: str, key: bytes, plan: Plan) -> tuple[bytes, ...]:
        own = table == plan.target.table.name
        return self._contents.others(table, key) if own else self._contents.asked(table, key)

    def _end(self, ended: Mapping[str, set[bytes]], ids: set[bytes], report: Report) -> None:
        """Remove what lingers no longer: aliases, mailboxes, then `ids` and theirs that have no mailbox."""
        for name, keys in sorted(ended.items()):  # aliases first
            self._end_in(name, keys, report)
        boxes = self._files.get(MAILBOXES + QUEUED)
        gone = ids | ended.get(MAILBOXES + QUEUED, set())
        there = boxes.get_all(iter(gone)) if boxes is not None else {}
        gone -= {key for key, mailbox in there.items() if mailbox}
        for name in (GIDS, UIDS):
            if name in self._lingering:
                self._end_in(name, {key for key in gone if key in self._lingering[name]}, report)

    def _end_in(self, name: str, keys: set[bytes], report: Report) -> None:
        if keys:
            self._change(name, dict.fromkeys(keys))
            report.removed[name] = len(keys)
        for key in keys:
            self._lingering[name].end(key)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="surrogateescape")


def _is_open(file: MapFile) -> bool:
    """Open it; one that is not in order is none, and will be made anew."""
    try:
        return file.open()
    except Unsound as error:
        log.error("a file is not in order and is made anew", path=file.path, reason=error)
        return False
