"""Follows what changes: takes notifications, reads changed keys again, looks whether all is still notified.

Everything here goes over the one listening connection, so it happens in the order in which it was told
(`mailmaps.database.changes`). What PostgreSQL says against one view concerns that view's mirror alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from mailmaps.database.changes import PROOF
from mailmaps.database.connect import Refused, is_going, reason
from mailmaps.database.views import fetch_rows
from mailmaps.database.watching import Watch, read_relations, read_watches
from mailmaps.maps.row_bytes import pack
from mailmaps.mirrors.mirror import Mirror
from mailmaps.mirrors.readings import Readings

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Seconds for a statement on the listening connection, which may be dead without a word.
ANSWER_LIMIT = 2.0

# Keys whose dependents are asked for at once; of too many together PostgreSQL would not name them.
KEYS_AT_ONCE = 50

# Keys that one statement reads again. Lookups wait while its rows are taken, for some milliseconds.
READ_AT_ONCE = 1000


class Following:
    """A `mailmaps.database.changes.Follower`; `readings` reads whole what has to be."""

    def __init__(self, mirrors: Mapping[str, Mirror], readings: Readings) -> None:
        self._mirrors = mirrors
        self._readings = readings
        self._notified: dict[str, set[str]] = {}  # keys by group, whose dependents are to be found
        self._dependents: dict[str, set[Callable[[], None]]] = {}  # by the relation's name as it is given
        self._relations: dict[str, Watch] = {}
        self._fingerprints: dict[str, str] = {}  # of the relations
        self.went_away: set[Callable[[], None]] = set()  # called when the server cannot be reached

    @property
    def has_dependents(self) -> bool:
        return bool(self._dependents)

    def depend(self, relation: str, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever rows of a table may have changed."""
        self._dependents.setdefault(relation, set()).add(forget)

    def undepend(self, relation: str, forget: Callable[[], None]) -> None:
        self._dependents[relation].discard(forget)
        if not self._dependents[relation]:
            del self._dependents[relation]
            self._fingerprints.pop(relation, None)

    def listening(self) -> None:
        """Told by `Changes`, as all that follow."""
        self._notified.clear()
        for mirror in self._mirrors.values():
            mirror.outdate()
        self._readings.hurry()
        for relation in self._dependents:
            self._forget(relation)

    def keys_changed(self, group: str, keys: Sequence[str]) -> None:
        self._notified.setdefault(group, set()).update(keys)
        for mirror in self._of_group(group):
            mirror.touch(keys)

    def group_changed(self, group: str) -> None:
        for mirror in self._of_group(group):
            mirror.void()

    def relation_changed(self, relation: str) -> None:
        for mirror in self._mirrors.values():
            if not mirror.group and relation in mirror.relations:
                mirror.void()
        for name, watch in self._relations.items():
            if relation in watch.relations:
                self._forget(name)

    async def look(self, connection: Connection) -> None:
        """Whether all changes are still notified, and the views still what they were."""
        if views := list({mirror.view for mirror in self._mirrors.values()}):
            async with asyncio.timeout(ANSWER_LIMIT):
                watches = await read_watches(connection, views)
            for mirror in self._mirrors.values():
                if watch := watches.get(mirror.view):
                    mirror.watch(watch.fingerprint, watch.relations, watch.problem)
        if self._dependents:
            async with asyncio.timeout(ANSWER_LIMIT):
                self._relations = await read_relations(connection, list(self._dependents))
            for name, watch in self._relations.items():
                if self._fingerprints.get(name) != watch.fingerprint:
                    self._fingerprints[name] = watch.fingerprint
                    self._forget(name)

    async def catch_up(self, connection: Connection) -> None:
        notified, self._notified = self._notified, {}
        for group, keys in notified.items():
            await self._touch_dependents(connection, group, keys)
        for mirror in list(self._mirrors.values()):
            if mirror.dirty:
                await self._read_again(connection, mirror)

    async def _touch_dependents(self, connection: Connection, group: str, keys: set[str]) -> None:
        """Two transactions that do not see each other may each miss the other's part of the way from an alias
        to what it stands for; now that both are committed, the way is there (schema/0010_changes.sql)."""
        told = sorted(keys)
        for first in range(0, len(told), KEYS_AT_ONCE):
            some = told[first : first + KEYS_AT_ONCE]
            try:
                async with asyncio.timeout(ANSWER_LIMIT):
                    found = await connection.fetchval("SELECT mailmaps.depending_keys($1, $2)", group, some)
            except Refused as error:
                if is_going(connection, error):
                    raise
                for mirror in self._of_group(group):
                    mirror.void()
                    mirror.fail(reason(error))
                return
            if found is None:  # too many to say
                self.group_changed(group)
                return
            for mirror in self._of_group(group):
                mirror.touch(found)

    def current_as_of(self, moment: float) -> None:
        if monotonic() - moment > PROOF:
            return  # we were stopped in between, or very slow: the next beat is on its way
        for mirror in self._mirrors.values():
            mirror.current_as_of(moment)

    def deaf(self) -> None:
        for mirror in self._mirrors.values():
            mirror.deaf()
        self._readings.give_up()

    def unreachable(self) -> None:
        for tell in tuple(self.went_away):
            tell()

    def _of_group(self, group: str) -> list[Mirror]:
        return [mirror for mirror in self._mirrors.values() if mirror.group == group]

    def _forget(self, relation: str) -> None:
        for forget in tuple(self._dependents.get(relation, ())):
            forget()

    async def _read_again(self, connection: Connection, mirror: Mirror) -> None:
        """Read the dirty keys. What PostgreSQL says against that concerns this mirror alone."""
        keys = sorted(mirror.take_dirty())
        try:
            for first in range(0, len(keys), READ_AT_ONCE):
                some = keys[first : first + READ_AT_ONCE]
                async with asyncio.timeout(ANSWER_LIMIT):
                    rows = await fetch_rows(connection, mirror.view, some, mirror.replace)
                mirror.refresh({key: pack(values) for key, values in rows.items()}, set(some))
        except Refused as error:
            mirror.give_up_keys()
            if is_going(connection, error):
                raise
            mirror.fail(reason(error))
        except BaseException:
            mirror.give_up_keys()
            raise
