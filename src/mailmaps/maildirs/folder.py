"""One folder held open, so that what is looked at is what is changed, whatever its name leads to meanwhile.

No symbolic link is followed: names are opened one by one with O_NOFOLLOW below a folder that is held.
Folders are held with O_PATH, which needs no right to read them (0711) and wakes nothing; fchmod(2) and
fchown(2) refuse such a descriptor (EBADF), so the same folder is opened once more as its own "." for these.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HELD = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class InTheWay(Exception):
    """Something else than a folder has the name; the text says what."""


class Folder:
    """A folder by its descriptor, which it closes. `uid`, `gid`, `mode` (12 bits) are of the last look."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.look_again()

    def look_again(self) -> None:
        """Take owner and mode as they are now."""
        found = os.fstat(self.fd)
        self.uid, self.gid, self.mode = found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.uid}:{self.gid}"

    def close(self) -> None:
        """Let it go."""
        os.close(self.fd)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def writable_by_others(self) -> bool:
        """Whether users besides the owner may rename what is in it (the sticky bit would forbid that)."""
        return bool(self.mode & WRITABLE_BY_OTHERS) and not self.mode & stat.S_ISVTX

    def lets_pass(self, uid: int, gid: int) -> bool:
        """Whether this user, with this group and no other (set_eugid.c), may go through it."""
        if self.uid == uid:
            return bool(self.mode & stat.S_IXUSR)
        return bool(self.mode & (stat.S_IXGRP if self.gid == gid else stat.S_IXOTH))

    def is_empty(self) -> bool:
        """Whether nothing is in it. Raises `OSError`."""
        with self._opened() as fd, os.scandir(fd) as entries:
            return next(iter(entries), None) is None

    def change(self, mode: int, uid: int = -1, gid: int = -1) -> None:
        """Set the mode, then the owner (-1: leave it). Raises `OSError`."""
        with self._opened() as fd:
            os.fchmod(fd, mode)  # before it is somebody else's; chmod(2) undoes the setgid bit of the parent
            if (uid, gid) != (-1, -1):
                os.fchown(fd, uid, gid)
        self.look_again()

    @contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(b".", _READ, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)


def look(parent: int, name: bytes) -> Folder | None:
    """The folder `name` in `parent`, None if nothing has the name. Raises `InTheWay`, `OSError`."""
    try:
        return Folder(os.open(name, _HELD, dir_fd=parent))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        if found := status(parent, name):
            raise InTheWay(kind(found)) from None
        return None


def make(parent: int, name: bytes) -> Folder:
    """A new folder of ours, mode 0700, or the one that somebody made a moment ago. Raises as `look` does."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    folder = look(parent, name)
    if folder is None:
        raise InTheWay("somebody moved it away while it was made")
    return folder


def status(parent: int, name: bytes) -> os.stat_result | None:
    """Of whatever has the name, a symbolic link itself; None: nothing has. Raises `OSError`."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def kind(found: os.stat_result) -> str:
    """What it is, in words."""
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link, which is not followed"
    words = {stat.S_IFREG: "is a file", stat.S_IFDIR: "is a folder"}
    return words.get(stat.S_IFMT(found.st_mode), "is neither file nor folder")
