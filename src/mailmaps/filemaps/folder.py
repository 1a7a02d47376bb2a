"""The directory of the files: whose it must be, and that one process at a time writes there."""

from __future__ import annotations

import fcntl
import grp
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailmaps.config.settings import Filemaps
from mailmaps.filemaps.lmdb_file import Access

# Seconds that another mailmaps may take for its part.
LIMIT = 120.0

FORCE = ".force"
WITHHELD = ".withheld"


class FolderError(Exception):
    """The directory cannot be used; the text names the setting."""


def prepare(settings: Filemaps) -> Access:
    """Make the directory if need be; what its files shall be like. Raises `FolderError`."""
    path = Path(settings.directory)
    make(path)
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise FolderError(
            f"filemaps.directory: {path} belongs to uid {status.st_uid}, who could put other files there"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Who can write the uids decides as whom mail is delivered.
        raise FolderError(f"filemaps.directory: others may write to {path}; run `chmod go-w {path}`")
    return Access(int(settings.mode, 8), os.geteuid(), _gid(settings.group))


def make(path: Path) -> None:
    """Make the directory, if it is not there, so that Postfix may pass. Raises `FolderError`."""
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(0o755)  # whatever the umask is
    except OSError as error:
        raise FolderError(f"filemaps.directory: {path}: {error.strerror}") from None


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid if group else os.getegid()
    except KeyError:
        raise FolderError(f"filemaps.group: there is no group {group}") from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep every other mailmaps from writing there. Raises `FolderError`, OSError."""
    fd = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LIMIT
        while not _try(fd):
            if time.monotonic() > deadline:
                raise FolderError(f"{path}: another mailmaps has been writing for more than {LIMIT:g} s")
            time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class AlreadyFollowed(Exception):
    """Another process has the files follow the database, or is bringing them up to date."""


@contextmanager
def following(path: Path) -> Iterator[None]:
    """Be the one that brings the files up to date, from what it has read.

    Another's reading might be older than what this one has taken over. Raises `AlreadyFollowed`,
    `FolderError`.
    """
    make(path)
    try:
        fd = os.open(path / ".following", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderError(f"filemaps.directory: {path}: {error.strerror}") from None
    try:
        if not _try(fd):
            raise AlreadyFollowed
        yield
    finally:
        os.close(fd)


def ask_to_force(path: Path) -> None:
    """Have the process that follows carry out what it has withheld. Raises `FolderError`."""
    try:
        (path / FORCE).touch(0o600)
    except OSError as error:
        raise FolderError(f"filemaps.directory: {path}: {error.strerror}") from None


def is_forced(path: Path) -> bool:
    """Whether somebody has asked for that since the last time."""
    try:
        (path / FORCE).unlink()
    except FileNotFoundError:
        return False
    return True


def note_withheld(path: Path, reasons: Iterable[str]) -> None:
    """Write down what is not removed before somebody forces it, for `withheld`. Raises OSError."""
    lines = [f"{reason}\n" for reason in sorted(reasons)]
    if lines:
        (path / WITHHELD).write_text("".join(lines))
    else:
        (path / WITHHELD).unlink(missing_ok=True)


def withheld(path: Path) -> list[str]:
    """What the process that follows does not remove: "TABLE: why". Raises OSError."""
    try:
        return (path / WITHHELD).read_text().splitlines()
    except FileNotFoundError:
        return []


def is_followed(path: Path) -> bool:
    """Whether a process has the files follow the database, or is bringing them up to date. Raises OSError."""
    fd = os.open(path / ".following", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not _try(fd)
    finally:
        os.close(fd)
