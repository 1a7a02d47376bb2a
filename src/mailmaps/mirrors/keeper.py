"""Keeps all mirrors of one database: opens them, has them read, follows what changes.

Two kinds of connections: the listening one, which also reads changed keys again, in the order in which they
were told, and those for whole readings, which take seconds and must not hold it up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mailmaps.config.dsn import database_name, each_host, place
from mailmaps.config.settings import Settings
from mailmaps.database.changes import PROOF, Changes
from mailmaps.database.connect import (
    LOOKUP_SETTINGS,
    READING_SETTINGS,
    Refused,
    connect_to_listen,
    is_going,
    reason,
)
from mailmaps.database.views import fetch_rows
from mailmaps.database.watching import Watch, read_relations, read_watches
from mailmaps.maps.row_bytes import pack
from mailmaps.mirrors.directory import MirrorDirectory
from mailmaps.mirrors.mirror import Mirror
from mailmaps.mirrors.readings import TICK, Readings

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

log = logging.getLogger(__name__)

# Milliseconds that reading the changed keys of one view may take; a locked view is read whole later.
KEYS_SETTINGS = LOOKUP_SETTINGS | {"statement_timeout": "1000"}

# Seconds for a statement on the listening connection, which may be dead without a word.
ANSWER_LIMIT = 2.0

# Keys whose dependents are asked for at once; of too many together PostgreSQL would not name them.
KEYS_AT_ONCE = 50

# Seconds between two times that changed files are synced to the disk, so that they open quickly.
CHECKPOINT = 60.0

# What the files hold, and how: another number makes every file foreign.
LAYOUT = 1

# The builtin views by the group under which their keys are notified (schema/0010_changes.sql).
_GROUPS = {
    "addresses": (
        "virtual_alias_maps",
        "virtual_mailbox_maps",
        "virtual_uid_maps",
        "virtual_gid_maps",
        "smtpd_sender_login_maps",
    ),
    "domains": ("virtual_mailbox_domains", "transport_maps", "relay_domains"),
    "relay_recipients": ("relay_recipient_maps",),
}
GROUP_OF = {f"mailmaps.{table}": group for group, tables in _GROUPS.items() for table in tables}


class Mirrors:
    """The mirrors of the database that `settings` name. Table sets that read the same share them.

    Take and release mirrors and dependencies before or after `start`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.users = 0  # who close us when none is left
        self._mirrors: dict[str, Mirror] = {}
        self._users: dict[str, int] = {}
        self._notified: dict[str, set[str]] = {}  # keys by group, whose dependents are to be found
        self._dependents: dict[str, set[Callable[[], None]]] = {}  # by the relation's name as it is given
        self._relations: dict[str, Watch] = {}
        self._fingerprints: dict[str, str] = {}
        self._directory: MirrorDirectory | None = None  # from start() on
        self._changes = Changes(partial(connect_to_listen, settings.database, KEYS_SETTINGS), self)
        self._readings = Readings(
            partial(connect_to_listen, settings.database, READING_SETTINGS),
            compare=settings.mirror.compare,
            followed=lambda: self._changes.trouble is None,
            done=self._changes.wake,
        )
        self._ticker: asyncio.Task[None] | None = None
        self._checkpoint: asyncio.Task[None] | None = None

    def take(self, view: str, replace: Mapping[str, str], *, eager: bool) -> Mirror:
        """The mirror of a view (schema.name). `eager`: the resolver asks it."""
        if view not in self._mirrors:
            mirror = self._mirrors[view] = self._made(view, replace)
            self._readings.add(mirror, eager=eager)
            if self._directory is not None:
                mirror.open(self._directory.path_of(view))
                self._changes.hurry()
        self._users[view] = self._users.get(view, 0) + 1
        return self._mirrors[view]

    def release(self, view: str) -> None:
        """A user has gone; the last one closes the mirror."""
        self._users[view] -= 1
        if not self._users[view]:
            self._readings.remove(view)
            self._mirrors.pop(view).close()
            del self._users[view]

    def depend(self, relation: str, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever rows of a table may have changed."""
        self._dependents.setdefault(relation, set()).add(forget)
        self._changes.hurry()

    def undepend(self, relation: str, forget: Callable[[], None]) -> None:
        self._dependents[relation].discard(forget)
        if not self._dependents[relation]:
            del self._dependents[relation]

    def fits(self, settings: Settings) -> bool:
        """Whether other settings mean the same database and the same files."""
        return (self._settings.database, self._settings.mirror) == (settings.database, settings.mirror)

    def start(self, refresh: float) -> None:
        """Open the files and begin to follow, if there is anything to follow and that has not been done.

        `refresh` (seconds) is how often those are read that the resolver asks and that cannot be followed.
        """
        self._readings.refresh = refresh
        if self._directory is None and (self._mirrors or self._dependents):
            self._directory = MirrorDirectory(self._settings.mirror.directory)
            for view, mirror in self._mirrors.items():
                mirror.open(self._directory.path_of(view))
            self._changes.start()
            self._ticker = asyncio.ensure_future(self._keep_ticking())

    @property
    def can_wait(self) -> bool:
        """Whether all that the resolver asks is held already, from disk."""
        return self._directory is None or self._readings.can_wait

    async def tried(self) -> list[str]:
        """Wait until the eager mirrors have been read once, or could not be; returns why not."""
        if self._directory is None:
            return []
        await self._changes.tried()
        return await self._readings.tried()

    async def close(self) -> None:
        tasks = [task for task in (self._ticker, self._checkpoint) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._readings.close()
        await self._changes.close()
        for mirror in self._mirrors.values():
            mirror.close()
        self._mirrors.clear()
        if self._directory is not None:
            self._directory.close()

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        return {
            "listening": self._changes.trouble or "yes",
            "directory": None if self._directory is None else str(self._directory.path),
            "mirrors": {view: mirror.state for view, mirror in self._mirrors.items()},
        }

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
        if self._mirrors:
            async with asyncio.timeout(ANSWER_LIMIT):
                watches = await read_watches(connection, list(self._mirrors))
            for view, watch in watches.items():
                if self._is_other(view, watch) and view in self._mirrors:
                    self._mirrors[view].watch(watch.relations, watch.problem)
        if self._dependents:
            async with asyncio.timeout(ANSWER_LIMIT):
                self._relations = await read_relations(connection, list(self._dependents))
            for name, watch in self._relations.items():
                if self._is_other("depends_on " + name, watch):
                    self._forget(name)

    async def catch_up(self, connection: Connection) -> None:
        while self._notified or any(mirror.dirty for mirror in self._mirrors.values()):
            while self._notified:
                await self._touch_dependents(connection, *self._notified.popitem())
            await self._read_dirty(connection)

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
                    mirror.fail(reason(error))
                return
            if found is None:  # too many to say
                self.group_changed(group)
                return
            for mirror in self._of_group(group):
                mirror.touch(found)

    async def _read_dirty(self, connection: Connection) -> None:
        while dirty := [mirror for mirror in self._mirrors.values() if mirror.dirty]:
            for mirror in dirty:
                await self._read_again(connection, mirror)

    def current_as_of(self, moment: float) -> None:
        for mirror in self._mirrors.values():
            mirror.current_as_of(moment)

    def deaf(self) -> None:
        for mirror in self._mirrors.values():
            mirror.deaf()
        self._readings.give_up()

    def _of_group(self, group: str) -> list[Mirror]:
        return [mirror for mirror in self._mirrors.values() if mirror.group == group]

    def _forget(self, relation: str) -> None:
        for forget in tuple(self._dependents.get(relation, ())):
            forget()

    def _made(self, view: str, replace: Mapping[str, str]) -> Mirror:
        database = self._settings.database
        dsn = database.listen_dsn or database.dsn
        hosts = " ".join(place(host) for host in each_host(dsn))
        return Mirror(
            view,
            f"mailmaps {LAYOUT}: {view} of {database_name(dsn)} at {hosts} {sorted(replace.items())}",
            group=GROUP_OF.get(view, ""),
            replace=replace,
        )

    def _is_other(self, name: str, watch: Watch) -> bool:
        before = self._fingerprints.get(name)
        self._fingerprints[name] = watch.fingerprint
        return before != watch.fingerprint

    async def _read_again(self, connection: Connection, mirror: Mirror) -> None:
        """Read the dirty keys. What PostgreSQL says against that concerns this mirror alone."""
        keys, mirror.dirty = mirror.dirty, set()
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                rows = await fetch_rows(connection, mirror.view, sorted(keys), mirror.replace)
            mirror.refresh({key: pack(values) for key, values in rows.items()}, keys)
        except Refused as error:
            mirror.void()
            if is_going(connection, error):
                raise
            mirror.fail(reason(error))
        except BaseException:
            mirror.void()
            raise

    async def _keep_ticking(self) -> None:
        await self._changes.tried()  # LISTEN comes first
        while True:
            for mirror in self._mirrors.values():
                mirror.lapse(PROOF)
            self._readings.tick()
            if self._checkpoint is None or self._checkpoint.done():
                self._checkpoint = asyncio.ensure_future(self._checkpoints())
            await asyncio.sleep(TICK)

    async def _checkpoints(self) -> None:
        await asyncio.sleep(CHECKPOINT)
        for mirror in tuple(self._mirrors.values()):
            await mirror.checkpoint()
