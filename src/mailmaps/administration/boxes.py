"""Mailbox folders of a command: made before COMMIT and taken back if it fails, removed after it.

`mailmaps.maildirs.walk` makes them, with its rules: no link is followed, nobody's folder changes hands. What
was missing before is noted, and only that is taken back, and only while it is empty (rmdir(2)). Mail that
shall go is first renamed, which can be taken back, and deleted when all else is done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mailmaps.config.settings import Settings
from mailmaps.maildirs.action import State
from mailmaps.maildirs.box import Box, RefusedBox, Row, box_of
from mailmaps.maildirs.folder import Folder, InTheWay, look
from mailmaps.maildirs.walk import INSIDE, make_box, open_base


class BoxTrouble(Exception):
    """A folder cannot be made, moved or looked at; the text names it. What was made is taken back."""


@dataclass(frozen=True, slots=True)
class Found:
    """What has a mailbox's path: whose folder it is, whether more than empty folders is in it."""

    uid: int
    has_mail: bool


@dataclass(frozen=True, slots=True)
class _Aside:
    parent: tuple[bytes, ...]
    name: bytes
    hidden: bytes


class Boxes:
    """The folders below one base."""

    def __init__(self, base: str, minimum_uid: int) -> None:
        """Raises `BoxTrouble`: no such base."""
        self.base = base
        self._minimum_uid = minimum_uid
        self._made: list[tuple[bytes, ...]] = []
        self._aside: list[_Aside] = []
        self.warnings: list[str] = []
        try:
            self._fd = open_base(base)
        except OSError as error:
            raise BoxTrouble(
                f"postfix.virtual_mailbox_base: {base}: {error.strerror}; it is not made, it may be a disk's"
            ) from None

    def close(self) -> None:
        """Let the base go."""
        os.close(self._fd)

    def found(self, path: str) -> Found | None:
        """What is there now. Raises `BoxTrouble`: something that is no folder, or cannot be looked at."""
        with self._named(path), self._folder(_names(path)) as folder:
            return None if folder is None else Found(folder.uid, _has_mail(folder))

    def make(self, path: str, uid: int, gid: int, address: str) -> None:
        """Make one, or find it right as it is. Raises `BoxTrouble`."""
        try:
            box = box_of(Row(f"{path}/", str(uid), str(gid), address), self._minimum_uid)
        except RefusedBox as error:
            raise BoxTrouble(f"{path}: {error}") from None
        with self._named(path):
            found = self.found(path)
            if found is not None and not found.has_mail and found.uid not in (0, uid):
                self._remove_empty(box.names)  # left by a command that was killed; nobody's mail
            missing = self._missing(box)
            self._made += missing
            actions = make_box(self._fd, box)
        wrong = [one for one in actions if one.state in (State.LEFT, State.FAILED)]
        # What is said of the folders above is the site's own arrangement, and not about this box alone.
        fatal = [one for one in wrong if one.state is State.FAILED or one.path.startswith(box.path)]
        if fatal:
            raise BoxTrouble("; ".join(map(str, fatal)))
        self.warnings += [str(one) for one in wrong]

    def undo(self) -> list[str]:
        """Take back what was made and moved; what could not be, in words."""
        failed = []
        for names in sorted(self._made, key=len, reverse=True):
            try:
                with self._folder(names[:-1]) as parent:
                    if parent is not None:
                        with suppress(FileNotFoundError):
                            os.rmdir(names[-1], dir_fd=parent.fd)
            except (OSError, InTheWay) as error:
                failed.append(f"{os.fsdecode(b'/'.join(names))} stays: {_reason(error)}")
        self._made = []
        for aside in self._aside:
            try:
                with self._folder(aside.parent) as parent:
                    if parent is not None:
                        os.rename(aside.hidden, aside.name, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
            except (OSError, InTheWay, RecursionError) as error:  # folders a thousand deep
                where = os.fsdecode(b"/".join((*aside.parent, aside.hidden)))
                failed.append(f"the mail is in {where} now: {_reason(error)}")
        self._aside = []
        return failed

    def put_aside(self, path: str) -> bool:
        """Rename a box whose mail shall go; False: there is none. Raises `BoxTrouble`."""
        *parent, name = _names(path)
        with self._named(path), self._folder(tuple(parent)) as folder:
            if folder is None or look(folder.fd, name) is None:
                return False
            hidden = b".removed-" + uuid4().hex.encode()
            os.rename(name, hidden, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            self._aside.append(_Aside(tuple(parent), name, hidden))
        return True

    def drop(self) -> list[str]:
        """Delete what was put aside; what could not be, in words."""
        failed = []
        for aside in self._aside:
            try:
                with self._folder(aside.parent) as parent:
                    if parent is not None:
                        shutil.rmtree(aside.hidden, dir_fd=parent.fd)
            except (OSError, InTheWay) as error:
                where = os.fsdecode(b"/".join((*aside.parent, aside.hidden)))
                failed.append(f"{Path(self.base) / where} could not be deleted: {_reason(error)}")
        self._aside = []
        return failed

    def _missing(self, box: Box) -> list[tuple[bytes, ...]]:
        """The folders that making it will make."""
        every = [box.names[:depth] for depth in range(1, len(box.names) + 1)]
        every += [(*box.names, inside) for inside in INSIDE]
        missing = []
        for names in every:
            with self._folder(names) as folder:
                if folder is None:
                    missing.append(names)
        return missing

    def _remove_empty(self, names: tuple[bytes, ...]) -> None:
        with self._folder(names) as box:
            for inside in INSIDE if box is not None else ():
                with suppress(FileNotFoundError):
                    os.rmdir(inside, dir_fd=box.fd if box is not None else None)
        with self._folder(names[:-1]) as parent:
            if parent is not None:
                os.rmdir(names[-1], dir_fd=parent.fd)

    @contextmanager
    def _folder(self, names: tuple[bytes, ...]) -> Iterator[Folder | None]:
        """The folder of these names, held open; None: it, or one above it, is not there."""
        held = Folder(os.dup(self._fd))
        try:
            for name in names:
                inner = look(held.fd, name)
                if inner is None:
                    yield None
                    return
                held.close()
                held = inner
            yield held
        finally:
            held.close()

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, InTheWay) as error:
            raise BoxTrouble(f"{self.base}/{path}: {_reason(error)}") from None


def boxes_of(settings: Settings) -> Boxes | None:
    """Where the settings have them; None: there are none here (postfix.virtual_mailbox_base is empty).

    Raises `BoxTrouble`.
    """
    base = settings.postfix.virtual_mailbox_base
    if not base:
        return None
    if not base.startswith("/") or os.path.realpath(base) == "/":
        raise BoxTrouble(f"postfix.virtual_mailbox_base: {base} is no base for mailboxes")
    return Boxes(base, settings.postfix.virtual_minimum_uid)


def _names(path: str) -> tuple[bytes, ...]:
    return tuple(path.encode().split(b"/"))


def _has_mail(folder: Folder) -> bool:
    """Whether anything is in it but empty cur, new and tmp."""
    with _opened(folder) as fd, os.scandir(fd) as entries:
        names = [os.fsencode(entry.name) for entry in entries]
    if any(name not in INSIDE for name in names):
        return True
    for name in names:
        try:
            inner = look(folder.fd, name)
        except InTheWay:
            return True
        if inner is not None:
            with inner:
                if not inner.is_empty():
                    return True
    return False


@contextmanager
def _opened(folder: Folder) -> Iterator[int]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
