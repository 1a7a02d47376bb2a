"""Keys by the keys that would answer in their place: what Postfix asks after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Behind:
    """A set of keys with, for each, the others that Postfix would ask next."""

    def __init__(self) -> None:
        self._others: dict[bytes, tuple[bytes, ...]] = {}
        self._behind: dict[bytes, set[bytes]] = {}

    def add(self, key: bytes, others: tuple[bytes, ...]) -> None:
        """Add a key, or do nothing if it is there."""
        if key not in self._others:
            self._others[key] = others
            for other in others:
                self._behind.setdefault(other, set()).add(key)

    def discard(self, key: bytes) -> None:
        """Remove a key if it is there."""
        for other in self._others.pop(key, ()):
            keys = self._behind[other]
            keys.discard(key)
            if not keys:
                del self._behind[other]

    def of(self, others: Iterable[bytes]) -> set[bytes]:
        """The keys for which one of these would be asked."""
        found: set[bytes] = set()
        for other in others:
            found |= self._behind.get(other, set())
        return found

    def others(self, key: bytes) -> tuple[bytes, ...]:
        """Those of a key that is there."""
        return self._others[key]

    def __contains__(self, key: object) -> bool:
        return key in self._others

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)
