"""Files written whole or not at all, and the copies that are the way back."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# What everybody may read, and what only the owner may.
PUBLIC, PRIVATE = 0o644, 0o600


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Put `content` (text as UTF-8) in the place of a file, at once and on the disk.

    One that is there keeps mode and owner.

    Raises `OSError`; the file is then as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            _like(path, handle, mode)
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync(path.parent)


def _like(path: Path, handle: int, mode: int) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        os.fchmod(handle, mode)
        return
    os.fchown(handle, status.st_uid, status.st_gid)
    os.fchmod(handle, status.st_mode & 0o7777)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def backup(path: Path) -> Path:
    """A copy beside the file, same mode and owner, named after this second. Raises `OSError`."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    copy = path.with_name(f"{path.name}.before-{stamp}")
    number = 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.before-{stamp}-{number}")
    shutil.copy2(path, copy)
    status = path.stat()
    os.chown(copy, status.st_uid, status.st_gid)
    return copy
