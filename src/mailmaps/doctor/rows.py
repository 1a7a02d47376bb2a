"""What the rows of the views say together: circles, aliases to nobody, keys that no lookup reaches.

All views are read whole, in one snapshot; of a key 8 bytes are kept (doctor/keys.py), of an alias that leads
to an alias both. The aliases are looked at twice, the second time out of a temporary file (some 100 MB for a
million). What `.cf` files ask cannot be read whole (`mailmaps.doctor.asking`).
"""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from mailmaps.config import SettingsError
from mailmaps.database.connect import (
    BREAKS,
    READING_SETTINGS,
    ConnectError,
    Refused,
    connect_to_listen,
    reason,
)
from mailmaps.database.listing import read_rows
from mailmaps.doctor.circles import circles, drawn
from mailmaps.doctor.counted import Counted
from mailmaps.doctor.keys import Keys, doubtful_keys
from mailmaps.filemaps.reading import snapshot
from mailmaps.findings import Finding, Level
from mailmaps.maps.address import fold
from mailmaps.maps.address_list import addresses
from mailmaps.maps.row_bytes import Rows, unpack
from mailmaps.maps.search import Rules, external_address_walk
from mailmaps.maps.sources import plain_view_of

if TYPE_CHECKING:
    from mailmaps.config import Settings
    from mailmaps.database.connect import Connection

# Parameters whose keys are addresses in external form, or @domain.
ADDRESSES = frozenset(
    "virtual_alias_maps virtual_mailbox_maps virtual_uid_maps virtual_gid_maps smtpd_sender_login_maps "
    "relay_recipient_maps".split()
)

# Builtin views over the keys of virtual_mailbox_maps and virtual_alias_maps: nothing new, and much to read.
_SAME_KEYS = frozenset({"virtual_uid_maps", "virtual_gid_maps", "smtpd_sender_login_maps"})

# What a mirror's bytes are where a key is known and answers nothing (mailmaps.maps.row_bytes).
_NOTHING = b"\0"


@dataclass
class _Known:
    """What there is.

    Aliases that end at themselves, lead on, or answer nothing; mailboxes, those that are closed, and the
    local parts of these; domains that have mailboxes; our domains.
    """

    ends: Keys = field(default_factory=Keys)
    leads: Keys = field(default_factory=Keys)
    nothing: Keys = field(default_factory=Keys)
    boxes: Keys = field(default_factory=Keys)
    closed: Keys = field(default_factory=Keys)
    closed_users: Keys = field(default_factory=Keys)
    with_boxes: set[bytes] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)

    def seal(self) -> None:
        for keys in (self.ends, self.leads, self.nothing, self.boxes, self.closed, self.closed_users):
            keys.seal()


async def row_findings(settings: Settings, rules: Rules, *, most: int | None) -> list[Finding]:
    """What is wrong with the rows of all views; of each kind the first `most` (None: all) are shown."""
    views = _views(settings)
    if not views:
        return []
    try:
        connection = await connect_to_listen(settings.database, READING_SETTINGS)
    except (ConnectError, SettingsError):
        return []  # that it is away was said when it was asked
    try:
        async with snapshot(connection):
            reading = _Reading(connection, rules, Counted(most), whole=_are_whole(settings))
            return await reading.findings(views)
    except (Refused, *BREAKS, TimeoutError) as error:
        remedy = "the daemon's role has to read every row of its views"
        return [Finding(Level.WARNING, "rows", f"not looked at: {reason(error)}", remedy)]
    finally:
        connection.terminate()  # what failed may hang


def _views(settings: Settings) -> list[tuple[str, str]]:
    """The views of the settings, each with the parameter that it is asked for."""
    found = [
        (table.parameter, plain_view_of(name, source))
        for name, table in settings.tables.items()
        for source in table.sources
        if not source.startswith("pgsql:") and not (source == "builtin" and table.parameter in _SAME_KEYS)
    ]
    return list(dict.fromkeys(found))


def _are_whole(settings: Settings) -> bool:
    """Whether views have all aliases, mailboxes and domains, so that what is not there is nowhere."""
    parameters = ("virtual_alias_maps", "virtual_mailbox_maps", "virtual_mailbox_domains")
    sources = [
        (table.parameter, source)
        for table in settings.tables.values()
        for source in table.sources
        if table.parameter in parameters
    ]
    by_query = any(source.startswith("pgsql:") for _, source in sources)
    return {parameter for parameter, _ in sources} == set(parameters) and not by_query


class _Reading:
    def __init__(self, connection: Connection, rules: Rules, counted: Counted, *, whole: bool) -> None:
        self._whole = whole
        self._connection = connection
        self._rules = rules
        self._counted = counted
        self._known = _Known()
        self._spool: BinaryIO
        self._edges: dict[str, set[str]] = {}

    async def findings(self, views: list[tuple[str, str]]) -> list[Finding]:
        takes: dict[str, Callable[[str, Rows], None]] = {
            "virtual_alias_maps": self._note_aliases,
            "virtual_mailbox_maps": self._note_boxes,
            "virtual_mailbox_domains": self._note_domains,
            "virtual_alias_domains": self._note_domains,
        }
        with TemporaryFile(prefix="mailmaps-check-") as self._spool:
            for parameter, view in views:
                await self._read(view, parameter, takes.get(parameter))
            self._known.seal()
            marshal.dump(None, self._spool)
            self._spool.seek(0)
            while (batch := marshal.load(self._spool)) is not None:  # noqa: S302  # our own, without a name
                self._follow(*batch)
                await asyncio.sleep(0)  # ^C is heard
        for circle in circles(self._edges):
            remedy = "take one of these out; Postfix gives up after 1000 steps, and mail to them waits (451)"
            self._counted.add(Level.ERROR, "aliases", "circle", f"{drawn(circle)} is a circle", remedy)
        return self._counted.findings()

    async def _read(self, view: str, parameter: str, take: Callable[[str, Rows], None] | None) -> None:
        """All rows of a view, for its keys alone if nobody takes them."""

        def taken(rows: Rows) -> None:
            for key, problem in doubtful_keys(rows.all_keys, addresses=parameter in ADDRESSES):
                level = Level.ERROR if problem == "is not case-folded" else Level.WARNING
                text = f'its key "{key}" {problem}, so no lookup reaches it'
                self._counted.add(level, view, problem, text, _REMEDIES.get(problem, ""))
            if take is not None:
                take(view, rows)

        await read_rows(self._connection, view, {}, taken)

    def _note_aliases(self, view: str, rows: Rows) -> None:
        ends, known = self._known.ends, self._known
        for key, value in rows:
            if value == key:  # nearly all
                ends.add(key)
            elif value == _NOTHING:
                known.nothing.add(key)
            else:
                text = _text(key)
                is_own = text in (fold(one) for one in _targets(value))
                (ends if is_own else known.leads).add(key)
        marshal.dump((view, list(rows)), self._spool)

    def _note_boxes(self, view: str, rows: Rows) -> None:
        known = self._known
        for key, value in rows:
            user, _, domain = key.rpartition(b"@")
            known.with_boxes.add(domain)
            if value == _NOTHING:
                known.closed.add(key)
                known.closed_users.add(user)
            else:
                known.boxes.add(key)

    def _note_domains(self, view: str, rows: Rows) -> None:
        self._known.domains.update(map(_text, rows.all_keys))

    def _follow(self, view: str, rows: list[tuple[bytes, bytes]]) -> None:
        for raw, value in rows:
            if value == raw:
                self._ended(view, raw)
                continue
            if value == _NOTHING:
                if self._whole and not self._is_closed(raw):
                    text = f"{_text(raw)} leads to nobody who gets mail (none there, inactive, or a circle)"
                    self._counted.add(Level.WARNING, view, "nobody", text, _OF_NOBODY)
                continue
            key = _text(raw)
            for target in _targets(value):
                self._follow_one(view, key, _completed(key, target))

    def _is_closed(self, key: bytes) -> bool:
        """An address of an account, which is then inactive; or the same in an alias domain, without boxes."""
        known = self._known
        user, _, domain = key.rpartition(b"@")
        through = domain not in known.with_boxes and user in known.closed_users
        return through or key in known.closed or key in known.boxes

    def _ended(self, view: str, key: bytes) -> None:
        """An address that expands to itself is a mailbox's, or nobody's."""
        known = self._known
        if not self._whole or key in known.boxes or key[:1] == b"@":
            return
        if _text(key).rpartition("@")[2] in known.domains:
            self._dead(view, _text(key), _text(key), closed=key in known.closed)

    def _follow_one(self, view: str, key: str, target: str) -> None:
        known = self._known
        domain = target.rpartition("@")[2].lower()
        if domain not in known.domains:
            return  # not ours to know
        candidates = external_address_walk(target, self._rules).candidates or (target,)
        for candidate in candidates:
            raw = candidate.encode(errors="surrogateescape")
            if raw in known.ends:
                return
            if raw in known.leads and candidate != key:
                if key.encode(errors="surrogateescape") in known.leads:
                    self._edges.setdefault(key, set()).add(candidate)
                return
            if raw in known.boxes:
                return
            if raw in known.nothing:
                break  # the search ends there
        if self._whole and target != key:
            closed = any(one.encode(errors="surrogateescape") in known.closed for one in candidates)
            self._dead(view, key, target, closed=closed)

    def _dead(self, view: str, key: str, target: str, *, closed: bool) -> None:
        what = "is inactive" if closed else "nobody has"
        text = f"{key} leads to {target}, which {what}"
        if key == target:
            text = f"the mailbox of {key} is inactive" if closed else f"{key} has no mailbox"
        self._counted.add(Level.WARNING, view, what, text, _OF_DEAD)


_OF_NOBODY = "mail to it is refused; take the row out, or give it a target that gets mail"
_OF_DEAD = "mail to it bounces; take the row out, or make the mailbox"
_REMEDIES = {
    "is not case-folded": "select mailmaps.fold(...) or lower(...) AS key",
    "begins or ends with a blank": "select trim(...) AS key, and mend the rows",
}


def _targets(value: bytes) -> Iterator[str]:
    for one in unpack(value):
        yield from addresses(one) if not one.startswith("@") else (one,)


def _completed(key: str, target: str) -> str:
    """A value `@other` keeps the local part (mail_addr_map.c:149-161)."""
    if not target.startswith("@") or key.startswith("@"):
        return target
    return key.rpartition("@")[0] + target


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
