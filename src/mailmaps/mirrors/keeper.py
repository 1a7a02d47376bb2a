"""Keeps all mirrors of one database: opened, read, followed, and closed when nobody uses them any more.

Two kinds of connections: the listening one, which also reads changed keys again, in the order in which they
were told, and those for whole readings, which take seconds and must not hold it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

from mailmaps.config.dsn import database_name, each_host, place
from mailmaps.config.settings import Settings
from mailmaps.database.changes import PROOF, Changes
from mailmaps.database.connect import (
    LOOKUP_SETTINGS,
    READING_SETTINGS,
    connect_to_listen,
)
from mailmaps.mirrors.directory import MirrorDirectory
from mailmaps.mirrors.following import Following
from mailmaps.mirrors.mirror import Mirror
from mailmaps.mirrors.readings import TICK, Readings

# Milliseconds that reading the changed keys of one view may take; a locked view is read whole later.
KEYS_SETTINGS = LOOKUP_SETTINGS | {"statement_timeout": "1000"}

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
        "sender_rights",
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
        self._directory: MirrorDirectory | None = None  # from start() on
        self._readings = Readings(
            partial(connect_to_listen, settings.database, READING_SETTINGS),
            compare=settings.mirror.compare,
            followed=lambda: self._changes.trouble is None,
            done=lambda: self._changes.wake(),
        )
        self._following = Following(self._mirrors, self._readings)
        connect = partial(connect_to_listen, settings.database, KEYS_SETTINGS)
        self._changes = Changes(connect, self._following, "mirrors")
        self._ticker: asyncio.Task[None] | None = None
        self._checkpoint: asyncio.Task[None] | None = None

    def take(self, view: str, replace: Mapping[str, str], *, eager: bool) -> str:
        """Hold a view (schema.name) for one user more; returns the name of its mirror.

        `eager`: the resolver asks it.
        """
        name = view
        if replace:  # during a reload there may be two
            name += " " + blake2b(repr(sorted(replace.items())).encode(), digest_size=4).hexdigest()
        if name not in self._mirrors:
            mirror = self._mirrors[name] = self._made(view, replace)
            self._readings.add(name, mirror)
            if self._directory is not None:
                mirror.open(self._directory.path_of(name))
                self._changes.hurry()
        if eager:
            self._readings.hasten(name)
        self._users[name] = self._users.get(name, 0) + 1
        return name

    def __getitem__(self, name: str) -> Mirror:
        return self._mirrors[name]

    def release(self, name: str) -> None:
        """A user has gone; the last one closes the mirror."""
        self._users[name] -= 1
        if not self._users[name]:
            self._readings.remove(name)
            self._mirrors.pop(name).close()
            del self._users[name]

    def depend(self, relation: str, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever rows of a table may have changed."""
        self._following.depend(relation, forget)
        self._changes.hurry()

    def undepend(self, relation: str, forget: Callable[[], None]) -> None:
        """No more."""
        self._following.undepend(relation, forget)

    @property
    def went_away(self) -> set[Callable[[], None]]:
        """Called when the server that notifies cannot be reached."""
        return self._following.went_away

    def fits(self, settings: Settings) -> bool:
        """Whether other settings mean the same database and the same files."""
        return (self._settings.database, self._settings.mirror) == (settings.database, settings.mirror)

    def start(self, refresh: float) -> None:
        """Open the files and begin to follow, if there is anything to follow and that has not been done.

        `refresh` (seconds) is how often those are read that the resolver asks and that cannot be followed.
        """
        self._readings.refresh = refresh
        if self._directory is None and (self._mirrors or self._following.has_dependents):
            self._directory = MirrorDirectory(self._settings.mirror.directory)
            for name, mirror in self._mirrors.items():
                mirror.open(self._directory.path_of(name))
            self._changes.start()
            self._ticker = asyncio.ensure_future(self._keep_ticking())

    def lapse(self) -> None:
        """Call none proven any more whose last proof is too old."""
        for mirror in self._mirrors.values():
            mirror.lapse(PROOF)

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
    def state(self) -> dict[str, Any]:
        """For `mailmaps status`."""
        return {
            "changes": {} if self._directory is None else {"tables": self._changes.state},
            "directory": None if self._directory is None else str(self._directory.path),
            "mirrors": {name: mirror.state for name, mirror in self._mirrors.items()},
        }

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

    async def _keep_ticking(self) -> None:
        await self._changes.tried()  # LISTEN comes first
        while True:
            self.lapse()
            self._readings.tick()
            if self._checkpoint is None or self._checkpoint.done():
                self._checkpoint = asyncio.ensure_future(self._checkpoints())
            await asyncio.sleep(TICK)

    async def _checkpoints(self) -> None:
        await asyncio.sleep(CHECKPOINT)
        for mirror in tuple(self._mirrors.values()):
            await mirror.checkpoint()
