"""The directory that holds the mirrors' files, for one daemon at a time.

A directory that cannot be used does not keep mail waiting: the mirrors are then made in a temporary one, and
a restart while the database is away finds nothing. That is said once, as an error.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from mailmaps.logs import events

log = events(__name__)


class MirrorDirectory:
    """Made if it is missing; locked until `close`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock = -1
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock = _lock(self.path / "lock")
        except OSError as error:
            why = (
                "in use by another mailmaps, or by this one until a restart"
                if isinstance(error, BlockingIOError)
                else error.strerror
            )
            log.error(
                "what is held does not survive a restart", setting="mirror.directory", path=path, reason=why
            )
            self._temporary = tempfile.TemporaryDirectory(prefix="mailmaps-")
            self.path = Path(self._temporary.name)

    def path_of(self, name: str) -> Path:
        """The file of a mirror: for our views the table's name alone, as main.cf will name it."""
        return self.path / (name.removeprefix("mailmaps.").replace(" ", "-") + ".lmdb")

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int:
    """The descriptor of an exclusive lock. Raises `OSError`, `BlockingIOError` when another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
