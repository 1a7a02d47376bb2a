"""The directory of the mirrors' files: made, locked for one daemon, and done without if need be."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailmaps.mirrors.directory import MirrorDirectory

ERROR = "what is held does not survive a restart"


def test_it_is_made_for_us_and_our_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "var" / "lib" / "mailmaps"
    old = os.umask(0o022)
    try:
        directory = MirrorDirectory(str(path))
    finally:
        os.umask(old)
    assert directory.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    directory.close()
    assert caplog.records == []
    assert path.exists()


def test_files_are_named_as_main_cf_names_the_tables(tmp_path: Path) -> None:
    directory = MirrorDirectory(str(tmp_path))
    names = ["mailmaps.virtual_alias_maps", "public.virtual_alias_maps", "mailmaps.transport_maps 1f"]
    paths = [directory.path_of(name) for name in names]
    assert paths[0] == tmp_path / "virtual_alias_maps.lmdb"
    assert paths[1] == tmp_path / "public.virtual_alias_maps.lmdb"
    assert len(set(paths)) == 3
    assert all(path.parent == tmp_path for path in paths)
    assert not any(character.isspace() for path in paths for character in path.name)
    directory.close()


def test_one_daemon_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = MirrorDirectory(str(tmp_path))
    second = MirrorDirectory(str(tmp_path))
    assert second.path != tmp_path
    assert stat.S_IMODE(second.path.stat().st_mode) == 0o700
    second.path_of("public.view").touch()
    second.close()
    assert not second.path.exists()
    first.close()
    third = MirrorDirectory(str(tmp_path))
    assert third.path == tmp_path
    third.close()
    (record,) = caplog.records
    assert "in use by another mailmaps" in record.getMessage()
    assert ERROR in record.getMessage()
    assert record.levelno == logging.ERROR


def test_the_lock_ends_with_the_process_and_is_not_inherited(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from mailmaps.mirrors.directory import MirrorDirectory\n"
        "directory = MirrorDirectory(sys.argv[1])\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "os._exit(str(directory.path) != sys.argv[1])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    try:
        lock = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
    finally:
        os.kill(int(ended.stdout), 9)


@pytest.mark.parametrize("what", ["below a file", "a file", "the lock is a link", "the lock is a directory"])
def test_what_is_no_directory_of_ours_is_done_without(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mirrors"
    if what in ("a file", "below a file"):
        path.touch()
        path = path / "below" if what == "below a file" else path
    else:
        path.mkdir()
        if what == "the lock is a link":
            (tmp_path / "precious").write_text("precious")
            (path / "lock").symlink_to(tmp_path / "precious")
        else:
            (path / "lock").mkdir()
    directory = MirrorDirectory(str(path))
    assert directory.path != path
    assert directory.path.is_dir()
    directory.close()
    assert not directory.path.exists()
    assert len(caplog.records) == 1
    assert ERROR in caplog.text


def test_a_directory_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Root may do anything; a file system that is read-only says no to everybody."""
    opened = os.open

    def refuse(path: str | Path, flags: int, *mode: int, **more: int) -> int:
        if Path(path).name == "lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    directory = MirrorDirectory(str(tmp_path))
    assert directory.path != tmp_path
    directory.close()
    assert "Read-only file system" in caplog.text


def test_it_may_be_closed_twice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        directory = MirrorDirectory(str(path))
        directory.close()
        directory.close()
