"""A base below /tmp, as tests of folders need it: with a way of looking at all of it at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailmaps.maildirs.walk import open_base

Listing = dict[str, str]


def listing(folder: Path) -> Listing:
    """All below `folder`: its kind, mode, owner; of links the target, of files the text. None is followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if path.is_symlink():
            text += f" -> {path.readlink()}"
        elif path.is_file():
            text += f" {path.read_text()!r}"
        found[str(path.relative_to(folder))] = text
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An empty base, root's (or the tester's), mode 0755."""
    folder = tmp_path / "base"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture
def base_fd(base: Path) -> Iterator[int]:
    """Its descriptor."""
    fd = open_base(str(base))
    yield fd
    os.close(fd)


@pytest.fixture
def folder(base: Path) -> Callable[..., Path]:
    """Makes a folder below the base: name, mode, owner, group."""

    def made(name: str, mode: int = 0o700, uid: int = 0, gid: int = 0) -> Path:
        path = base / name
        path.mkdir(exist_ok=True)
        os.chown(path, uid, gid)
        path.chmod(mode)
        return path

    return made
