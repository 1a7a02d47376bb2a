"""What has been removed and can still be delivered to, and since when.

Kept on disk, so that a run every minute does not begin to count anew each time. If it is lost, they linger a
little longer.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from mailmaps.filemaps.behind import Behind

_Kept = dict[str, dict[str, float]]


class Lingering:
    """Keys of one file, with the Unix seconds at which they were removed."""

    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}
        self.behind = Behind()

    def begin(self, key: bytes, others: tuple[bytes, ...], now: float) -> None:
        """Add a key, unless it is there; never in the future."""
        self._since[key] = self.since(key, now)
        self.behind.add(key, others)

    def end(self, key: bytes) -> None:
        """Remove a key if it is there."""
        self._since.pop(key, None)
        self.behind.discard(key)

    def since(self, key: bytes, now: float) -> float:
        """When it was removed; `now` if that is news, or in the future."""
        return min(self._since.get(key, now), now)

    def before(self, moment: float) -> list[bytes]:
        """The keys that were removed before. They are looked at in the order in which they came."""
        found = []
        for key, since in self._since.items():
            if since >= moment:
                break
            found.append(key)
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._since

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._since)

    def __len__(self) -> int:
        return len(self._since)

    def items(self) -> Iterable[tuple[bytes, float]]:
        return self._since.items()

    def recall(self, since: dict[bytes, float]) -> None:
        """What was known before we began; the others of these keys come with `begin`."""
        self._since.update(sorted(since.items(), key=itemgetter(1)))


def load(path: Path) -> dict[str, dict[bytes, float]]:
    """What was saved, by file; nothing if that cannot be read."""
    try:
        kept: object = json.loads(path.read_bytes())
        return {
            str(name): {
                key.encode(errors="surrogateescape"): float(since)
                for key, since in keys.items()
                if isinstance(since, (int, float)) and math.isfinite(since)
            }
            for name, keys in (kept.items() if isinstance(kept, dict) else ())
            if isinstance(keys, dict)
        }
    except (OSError, ValueError, OverflowError, RecursionError):
        return {}


def save(path: Path, lingering: dict[str, Lingering]) -> None:
    """Save them all. Raises OSError."""
    kept: _Kept = {
        name: {key.decode(errors="surrogateescape"): round(since) for key, since in one.items()}
        for name, one in lingering.items()
    }
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(kept, file)
    temporary.rename(path)
