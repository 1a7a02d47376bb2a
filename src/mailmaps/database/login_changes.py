"""Tells who remembers logins that some account may have changed (`mailmaps.database.changes.Follower`).

Whatever is notified means "forget all": a view of the site's own may stand on any table, and looking a login
up once more costs less than knowing which. In a pause of listening nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection


class Memory(Protocol):
    """What is told (`mailmaps.auth.remembered.Remembered`)."""

    def forget(self) -> None:
        """Some account may have changed."""

    def hears(self, hears: bool) -> None:
        """Whether changes are told from now on."""


class LoginChanges:
    """The follower."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def listening(self) -> None:
        self._memory.hears(True)

    def keys_changed(self, group: str, keys: Sequence[str]) -> None:
        self._memory.forget()

    def group_changed(self, group: str) -> None:
        self._memory.forget()

    def relation_changed(self, relation: str) -> None:
        self._memory.forget()

    async def look(self, connection: Connection) -> None:
        """Nothing is looked for: what is not notified is forgotten in time."""

    async def catch_up(self, connection: Connection) -> None:
        """Nothing is read ahead."""

    def current_as_of(self, moment: float) -> None:
        """Nothing is believed for longer than its time."""

    def deaf(self) -> None:
        self._memory.hears(False)

    def unreachable(self) -> None:
        self._memory.hears(False)
