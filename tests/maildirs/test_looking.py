"""A dry run needs no root: what can be seen is judged, what cannot is named. (As root it sees all.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.maildirs.conftest import listing

from mailmaps.maildirs.box import Box
from mailmaps.maildirs.walk import make_box


@pytest.fixture
def box() -> Box:
    return Box((b"ex.test", b"anna"), os.geteuid(), os.getegid())


def test_nothing_is_there(base: Path, base_fd: int, box: Box) -> None:
    assert [str(action) for action in make_box(base_fd, box, apply=False)] == [
        "to do: ex.test/: missing -> 0711 0:0",
        f"to do: ex.test/anna/: missing -> 0700 {box.owner} with cur, new, tmp",
    ]
    assert listing(base) == {}


def test_a_folder_that_may_be_passed_but_not_listed(base: Path, base_fd: int, box: Box) -> None:
    for name in ("cur", "new", "tmp"):
        (base / "ex.test/anna" / name).mkdir(parents=True, mode=0o700)
    (base / "ex.test/anna").chmod(0o700)
    (base / "ex.test").chmod(0o311)
    try:
        assert make_box(base_fd, box, apply=False) == []
    finally:
        (base / "ex.test").chmod(0o711)


def test_a_link(base: Path, base_fd: int, box: Box) -> None:
    (base / "ex.test").mkdir(mode=0o711)
    (base / "ex.test/anna").symlink_to("/")
    (action,) = make_box(base_fd, box, apply=False)
    assert action.found == "is a symbolic link, which is not followed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root sees everything")
def test_what_cannot_be_seen_is_named(base: Path, base_fd: int, box: Box) -> None:
    (base / "ex.test/anna").mkdir(parents=True)
    (base / "ex.test").chmod(0o600)
    try:
        assert [str(action) for action in make_box(base_fd, box, apply=False)][-1] == (
            "failed: ex.test/anna/: Permission denied"
        )
    finally:
        (base / "ex.test").chmod(0o700)
