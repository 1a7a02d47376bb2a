"""What one table set uses of the mirrors, so that it can leave all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailmaps.maps.mirrored import HeldRows
from mailmaps.mirrors.keeper import Mirrors
from mailmaps.mirrors.mirror import Mirror


class Use:
    """One user of `mirrors`; the last one that leaves closes them."""

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._names: list[str] = []
        self._told: list[tuple[HeldRows, Callable[[], None]]] = []
        self._depends: list[tuple[str, Callable[[], None]]] = []
        self._when_away: list[Callable[[], None]] = []
        mirrors.users += 1

    def mirror(self, view: str, replace: Mapping[str, str], *, eager: bool) -> Mirror:
        """The mirror of a view (schema.name)."""
        name = self._mirrors.take(view, replace, eager=eager)
        self._names.append(name)
        return self._mirrors[name]

    def tell(self, rows: HeldRows, forget: Callable[[], None]) -> None:
        """Have `forget` called when answers out of `rows` may have become others."""
        rows.changed.add(forget)
        self._told.append((rows, forget))

    def depend(self, relation: str, forget: Callable[[], None]) -> None:
        """Have `forget` called when a table's rows may have changed."""
        self._mirrors.depend(relation, forget)
        self._depends.append((relation, forget))

    def when_away(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when the server that notifies cannot be reached."""
        self._mirrors.went_away.add(tell)
        self._when_away.append(tell)

    def start(self, refresh: float) -> None:
        """Begin to follow, unless others have; `refresh` as in `Mirrors.start`."""
        self._mirrors.start(refresh)

    @property
    def can_wait(self) -> bool:
        """Whether all that the resolver asks is held already, from disk."""
        return self._mirrors.can_wait

    async def tried(self) -> list[str]:
        """Wait until what the resolver asks has been read; returns why it could not be."""
        return await self._mirrors.tried()

    async def leave(self) -> None:
        for rows, forget in self._told:
            rows.changed.discard(forget)
        for relation, forget in self._depends:
            self._mirrors.undepend(relation, forget)
        self._mirrors.went_away.difference_update(self._when_away)
        for name in self._names:
            self._mirrors.release(name)
        self._mirrors.users -= 1
        if not self._mirrors.users:
            await self._mirrors.close()
