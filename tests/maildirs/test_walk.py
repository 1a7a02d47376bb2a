"""Boxes on a real file system, as root: what is made, what is put right, what an attacker does not gain."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.maildirs.conftest import listing

from mailmaps.maildirs import folder as folders
from mailmaps.maildirs.box import Box
from mailmaps.maildirs.walk import Walk, make_box

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to many users: needs root")

MakeFolder = Callable[..., Path]

ANNA, BOB, GROUP = 5001, 5002, 5001


def box(path: str, uid: int = ANNA, gid: int = GROUP) -> Box:
    names = tuple(path.rstrip("/").encode().split(b"/"))
    return Box(names, uid, gid, is_file=not path.endswith("/"))


def lines(base_fd: int, *boxes: Box, apply: bool = True, hand_over: bool = False) -> list[str]:
    with Walk(base_fd, apply=apply, hand_over=hand_over) as walk:
        return [str(action) for one in boxes for action in walk.handle(one)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_new_box_is_as_the_howto_lists_it(base: Path, base_fd: int) -> None:
    boxes = box("lxtreme.nl/info/", BOB), box("lxtreme.nl/janwillem.janssen/", ANNA)
    todo = lines(base_fd, *boxes, apply=False)
    assert listing(base) == {}
    before, mask = open_files(), os.umask(0o077)
    try:
        done = lines(base_fd, *boxes)
    finally:
        os.umask(mask)
    assert open_files() == before
    assert done == [
        "done: lxtreme.nl/: missing -> 0711 0:0",
        "done: lxtreme.nl/info/: missing -> 0700 5002:5001 with cur, new, tmp",
        "done: lxtreme.nl/janwillem.janssen/: missing -> 0700 5001:5001 with cur, new, tmp",
    ]
    assert {line.replace("to do", "done") for line in todo} == set(done)
    expected = {"lxtreme.nl": "drwx--x--x 0:0"}
    for name, uid in (("info", 5002), ("janwillem.janssen", 5001)):
        for inner in ("", "/cur", "/new", "/tmp"):
            expected[f"lxtreme.nl/{name}{inner}"] = f"drwx------ {uid}:5001"
    assert listing(base) == expected
    assert lines(base_fd, *boxes) == lines(base_fd, *boxes, apply=False) == []
    assert make_box(base_fd, boxes[0]) == []


def test_without_umask_and_below_a_setgid_folder(base: Path, base_fd: int) -> None:
    os.chown(base, 0, 8)
    base.chmod(0o2755)
    mask = os.umask(0)
    try:
        make_box(base_fd, box("ex.test/anna/"))
    finally:
        os.umask(mask)
    assert listing(base)["ex.test"] == "drwx--x--x 0:0"
    assert listing(base)["ex.test/anna"] == listing(base)["ex.test/anna/cur"] == "drwx------ 5001:5001"


@pytest.mark.parametrize("domain", [None, 0o770])
def test_the_user_can_deliver_and_nobody_else(
    base: Path, folder: MakeFolder, base_fd: int, domain: int | None
) -> None:
    """With the rights that set_eugid.c gives virtual(8), into a new domain's folder and the how-to's."""
    if domain is not None:
        folder("ex.test", domain, 101, GROUP)
    make_box(base_fd, box("ex.test/anna/"))
    for uid, code in ((ANNA, 0), (BOB, 2)):
        command = ["sh", "-c", "> ex.test/anna/tmp/message && mv ex.test/anna/tmp/message ex.test/anna/new"]
        done = subprocess.run(
            command, cwd=base, user=uid, group=GROUP, extra_groups=[], stderr=subprocess.PIPE
        )
        assert done.returncode == code, done.stderr
    assert listing(base)["ex.test/anna/new/message"].endswith("5001:5001 ''")
    rename = ["mv", "ex.test/anna", "ex.test/bob"]
    done = subprocess.run(rename, cwd=base, user=BOB, group=GROUP, extra_groups=[], stderr=subprocess.PIPE)
    assert b"Permission denied" in done.stderr


def test_what_is_missing_or_wrong_in_a_box(base: Path, base_fd: int, folder: MakeFolder) -> None:
    folder("ex.test", 0o711)
    folder("ex.test/anna", 0o2755, ANNA, 8)
    folder("ex.test/anna/cur", 0o777, ANNA, GROUP)
    folder("ex.test/anna/.Sent", 0o755, ANNA, 8)
    (base / "ex.test/anna/cur/message").write_text("unread")
    before = listing(base)
    expected = [
        "to do: ex.test/anna/: 2755 5001:8 -> 0700 5001:5001",
        "to do: ex.test/anna/cur/: 0777 5001:5001 -> 0700 5001:5001",
        "to do: ex.test/anna/new/: missing -> 0700 5001:5001",
        "to do: ex.test/anna/tmp/: missing -> 0700 5001:5001",
    ]
    assert lines(base_fd, box("ex.test/anna/"), apply=False) == expected
    assert listing(base) == before
    assert lines(base_fd, box("ex.test/anna/")) == [line.replace("to do", "done") for line in expected]
    assert listing(base) == before | {
        "ex.test/anna": "drwx--S--- 5001:5001",
        **{f"ex.test/anna/{name}": "drwx------ 5001:5001" for name in ("cur", "new", "tmp")},
    }
    assert make_box(base_fd, box("ex.test/anna/")) == []


@pytest.mark.parametrize("left", ["", "cur", "cur tmp"])
def test_a_run_that_was_cut_short_is_taken_up(
    base: Path, base_fd: int, folder: MakeFolder, left: str
) -> None:
    """What it leaves: an empty box of root, or one of the user with an empty folder of root in it."""
    folder("ex.test", 0o711)
    folder("ex.test/anna", 0o700, ANNA if left else 0, GROUP if left else 0)
    for name in left.split():
        folder(f"ex.test/anna/{name}", 0o700)
    make_box(base_fd, box("ex.test/anna/"))
    assert make_box(base_fd, box("ex.test/anna/")) == []
    assert set(listing(base / "ex.test").values()) == {"drwx------ 5001:5001"}


def test_anothers_box_is_not_given_away(base: Path, base_fd: int, folder: MakeFolder) -> None:
    """In the how-to's 0770 Bob could rename Anna's box to his own name."""
    folder("ex.test", 0o770, 101, GROUP)
    make_box(base_fd, box("ex.test/anna/"))
    (base / "ex.test").chmod(0o770)
    (base / "ex.test/anna").rename(base / "ex.test/bob")
    before = listing(base)
    for hand_over, advice in (
        (
            False,
            "it is uid 5001's; look, then --hand-over, or chown -hR 5002:5001 which takes the messages too",
        ),
        (True, "it is uid 5001's, and others could have renamed it; look, then chown -hR 5002:5001"),
    ):
        (base / "ex.test").chmod(0o770)
        assert lines(base_fd, box("ex.test/bob/", BOB), hand_over=hand_over) == [
            "done: ex.test/: 0770 101:5001 -> 0750: whoever may write it could replace the boxes in it",
            f"left alone: ex.test/bob/: 0700 5001:5001 -> 0700 5002:5001: {advice}",
        ]
        assert listing(base) == before | {"ex.test": "drwxr-x--- 101:5001"}


def test_a_folder_of_roots_with_something_in_it(base: Path, base_fd: int, folder: MakeFolder) -> None:
    folder("ex.test", 0o711)
    (folder("ex.test/anna") / "backup").write_text("of the postmaster")
    before = listing(base)
    (line,) = lines(base_fd, box("ex.test/anna/"))
    assert "something of root's is in it; look" in line
    assert listing(base) == before


def test_a_changed_uid_is_handed_over_when_told_so(base: Path, base_fd: int, folder: MakeFolder) -> None:
    make_box(base_fd, box("ex.test/anna/", 6001))
    (base / "ex.test/anna/cur/old").write_text("mail")
    os.chown(base / "ex.test/anna/cur/old", 6001, GROUP)
    before = listing(base)
    assert [line.partition(":")[0] for line in lines(base_fd, box("ex.test/anna/"))] == ["left alone"]
    assert listing(base) == before
    done = lines(base_fd, box("ex.test/anna/"), hand_over=True)
    assert done[0] == "done: ex.test/anna/: 0700 6001:5001 -> 0700 5001:5001"
    assert len(done) == 4
    assert listing(base)["ex.test/anna/cur/old"] == before["ex.test/anna/cur/old"]
    assert make_box(base_fd, box("ex.test/anna/")) == []


def test_nothing_is_handed_over_in_a_folder_of_the_receiver(
    base: Path, base_fd: int, folder: MakeFolder
) -> None:
    folder("ex.test", 0o711, BOB, GROUP)
    folder("ex.test/bob", 0o700, ANNA, GROUP)
    before = listing(base)
    (line,) = lines(base_fd, box("ex.test/bob/", BOB), hand_over=True)
    assert "others could have renamed it" in line
    assert listing(base) == before


@pytest.mark.parametrize("mode", [0o770, 0o2775, 0o777, 0o703])
def test_writable_domain_folders_are_closed(base: Path, base_fd: int, folder: MakeFolder, mode: int) -> None:
    path = folder("ex.test", mode, 101, GROUP)
    make_box(base_fd, box("ex.test/anna/"))
    assert path.stat().st_mode & 0o7777 == mode & ~0o022
    assert (path.stat().st_uid, path.stat().st_gid) == (101, GROUP)


def test_a_sticky_folder_stays(base: Path, base_fd: int, folder: MakeFolder) -> None:
    folder("ex.test", 0o1777)
    assert lines(base_fd, box("ex.test/anna/")) == [
        "done: ex.test/anna/: missing -> 0700 5001:5001 with cur, new, tmp"
    ]
    assert listing(base)["ex.test"] == "drwxrwxrwt 0:0"


@pytest.mark.parametrize("there", [["ex.test"], ["ex.test", "ex.test/anna"]])
def test_a_dry_run_changes_nothing_whatever_is_there(
    base: Path, base_fd: int, folder: MakeFolder, there: list[str]
) -> None:
    for name in there:
        folder(name, 0o777)
    before = listing(base)
    (action,) = make_box(base_fd, box("ex.test/bob/", BOB), apply=False)[1:]
    assert str(action) == "to do: ex.test/bob/: missing -> 0700 5002:5001 with cur, new, tmp"
    assert len(make_box(base_fd, box("ex.test/anna/"), apply=False)) == (2 if len(there) == 1 else 5)
    assert make_box(base_fd, box("ex.test/carl"), apply=False)
    assert make_box(base_fd, box("ex.test/deep/er/"), apply=False, hand_over=True)
    assert listing(base) == before


def test_who_cannot_pass_is_named_once_and_nothing_changed(
    base: Path, base_fd: int, folder: MakeFolder
) -> None:
    folder("ex.test", 0o750, 101, 5009)
    found = lines(
        base_fd, box("ex.test/anna/", gid=5009), box("ex.test/bob/", BOB), box("ex.test/carl/", 5003)
    )
    assert found[1] == (
        "left alone: ex.test/: 0750 101:5009 -> chmod o+x, or a group of theirs: "
        "uid 5002 with gid 5001 cannot pass to ex.test/bob/, so its mail is deferred"
    )
    assert [line.partition(":")[0] for line in found] == ["done", "left alone", "done", "done"]
    assert listing(base)["ex.test"] == "drwxr-x--- 101:5009"


def test_the_owners_bits_go_before_the_groups(base: Path, base_fd: int, folder: MakeFolder) -> None:
    folder("ex.test", 0o611, ANNA, GROUP)
    assert "cannot pass to ex.test/anna/" in lines(base_fd, box("ex.test/anna/"), apply=False)[0]


def test_a_domain_folder_that_virtual_made_for_its_first_user(
    base: Path, base_fd: int, folder: MakeFolder
) -> None:
    folder("ex.test", 0o755, ANNA, GROUP)
    found = lines(base_fd, box("ex.test/anna/"), box("ex.test/bob/", BOB), box("ex.test/carl/", 5003))
    assert found[1] == (
        "left alone: ex.test/: 0755 5001:5001 -> 0711 0:0: "
        "uid 5001 has one of the boxes in it and could replace the others"
    )
    assert len(found) == 4
    assert lines(base_fd, box("ex.test/anna/")) == []


def test_a_base_that_others_may_write_is_noted(base: Path, base_fd: int) -> None:
    base.chmod(0o775)
    with Walk(base_fd, apply=True) as walk:
        assert [str(action) for action in walk.notes()] == [
            "note: the base: 0775 0:0 -> without g+w and o+w: whoever may write it can rename whole domains"
        ]
    assert base.stat().st_mode & 0o777 == 0o775
    base.chmod(0o755)
    with Walk(base_fd, apply=True) as walk:
        assert walk.notes() == []


def test_mbox_files_get_their_folders_only(base: Path, base_fd: int) -> None:
    missing = (
        "left alone: ex.test/anna: missing -> a file of 5001:5001: no final /, so an mbox, which is not made"
    )
    assert lines(base_fd, box("ex.test/anna"), apply=False)[1:] == [missing]
    assert lines(base_fd, box("ex.test/anna")) == ["done: ex.test/: missing -> 0711 0:0", missing]
    assert set(listing(base)) == {"ex.test"}
    (base / "ex.test/anna").touch(0o600)
    assert lines(base_fd, box("ex.test/anna"))[0].startswith("left alone: ex.test/anna: is a file, of uid 0")
    os.chown(base / "ex.test/anna", ANNA, GROUP)
    assert lines(base_fd, box("ex.test/anna")) == []
    assert "ex.test/anna/: is a file ->" in lines(base_fd, box("ex.test/anna/"))[0]
    (base / "ex.test/dir").mkdir()
    assert "ex.test/dir: is a folder, of uid 0" in lines(base_fd, box("ex.test/dir"))[0]
    (base / "ex.test/link").symlink_to("anna")
    os.chown(base / "ex.test/link", ANNA, GROUP, follow_symlinks=False)
    assert "ex.test/link: is a symbolic link" in lines(base_fd, box("ex.test/link"))[0]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside of the base, such as /etc, that must never change."""
    path = tmp_path / "victim"
    (path / "box" / "cur").mkdir(parents=True)
    (path / "cur").mkdir()
    (path / "secret").write_text("root's")
    for one in (path, path / "box", path / "cur", path / "box/cur"):
        one.chmod(0o755)
    return path


@pytest.mark.parametrize("place", ["ex.test", "ex.test/anna", "ex.test/anna/cur"])
@pytest.mark.parametrize("target", ["victim", "victim/box", "nowhere", "base"])
@pytest.mark.parametrize("hand_over", [False, True])
def test_no_link_is_followed(
    base: Path, base_fd: int, victim: Path, folder: MakeFolder, place: str, target: str, hand_over: bool
) -> None:
    for name, uid in (("ex.test", 0), ("ex.test/anna", ANNA)):
        if len(name) < len(place):
            folder(name, 0o711 if uid == 0 else 0o700, uid, GROUP if uid else 0)
    (base / place).symlink_to(base.parent / target)
    outside = listing(victim), victim.stat()
    found = lines(base_fd, box("ex.test/anna/"), hand_over=hand_over)
    assert "is a symbolic link, which is not followed" in found[0]
    assert all(line.startswith(("left alone: ", "done: ex.test/anna/")) for line in found)
    assert (listing(victim), victim.stat()) == outside
    assert (base / place).is_symlink()
    assert not (base.parent / "nowhere").exists()


@pytest.mark.parametrize("kind", ["file", "fifo", "socket"])
def test_other_things_in_the_way(base: Path, base_fd: int, folder: MakeFolder, kind: str) -> None:
    folder("ex.test", 0o711)
    if kind == "file":
        (base / "ex.test/anna").write_text("mbox")
    elif kind == "fifo":
        os.mkfifo(base / "ex.test/anna")
    else:
        os.mknod(base / "ex.test/anna", 0o140600)
    before = listing(base)
    (line,) = lines(base_fd, box("ex.test/anna/"))
    assert "is a file" in line if kind == "file" else "is neither file nor folder" in line
    assert listing(base) == before


def test_a_way_that_is_blocked_is_named_and_its_boxes(base: Path, base_fd: int, victim: Path) -> None:
    (base / "ex.test").symlink_to(victim)
    found = lines(base_fd, box("ex.test/a/"), box("ex.test/b/c/"), box("other.test/d/"))
    assert [line.partition(":")[0] for line in found] == ["left alone"] * 3 + ["done"] * 2
    assert found[2] == (
        "left alone: ex.test/b/c/: not looked at -> ex.test/ is a symbolic link, which is not followed"
    )


Swap = Callable[[Path, Path], None]


def by_link(path: Path, victim: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to(victim)


def by_folder(path: Path, victim: Path) -> None:
    path.rename(path.with_name("away"))
    (victim / "box").rename(path)


@pytest.mark.parametrize("swap", [by_link, by_folder])
@pytest.mark.parametrize("place", ["ex.test/anna", "ex.test/anna/cur", "ex.test"])
def test_a_folder_swapped_when_it_was_just_made(
    base: Path, base_fd: int, victim: Path, monkeypatch: pytest.MonkeyPatch, place: str, swap: Swap
) -> None:
    """Between mkdir and open: what is opened is judged anew."""
    os.chown(victim / "box", BOB, GROUP)
    real = os.mkdir

    def swapped(name: bytes, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        if place.endswith(name.decode()):
            swap(base / place, victim)

    box_inode = (victim / "box").stat().st_ino
    secret = (victim / "secret").stat(), (victim / "cur").stat()
    monkeypatch.setattr(os, "mkdir", swapped)
    found = lines(base_fd, box("ex.test/anna/"))
    assert any(line.startswith("left alone: ") for line in found) or place == "ex.test"
    there = base / place if swap is by_folder else victim / "box"
    assert (there.stat().st_ino, there.stat().st_uid) == (box_inode, BOB)
    assert not (there / "new").exists()
    assert ((victim / "secret").stat(), (victim / "cur").stat()) == secret


@pytest.mark.parametrize("swap", [by_link, by_folder])
@pytest.mark.parametrize("place", ["ex.test/anna", "ex.test/anna/cur", "ex.test"])
def test_a_folder_swapped_when_it_was_just_looked_at(
    base: Path,
    base_fd: int,
    victim: Path,
    folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    swap: Swap,
) -> None:
    """Between open and chown: what was looked at is changed, wherever it is now."""
    folder("ex.test", 0o777)
    folder("ex.test/anna", 0o755, ANNA, GROUP)
    folder("ex.test/anna/cur", 0o755, ANNA, GROUP)
    real = folders.Folder.change
    inode = (base / place).stat().st_ino
    swaps = 0

    def swapped(self: folders.Folder, mode: int, uid: int = -1, gid: int = -1) -> None:
        nonlocal swaps
        if os.fstat(self.fd).st_ino == inode and not swaps:
            swaps += 1
            swap(base / place, victim)
        real(self, mode, uid, gid)

    outside = {path: path.stat() for path in (victim / "box", victim / "cur", victim / "secret")}
    monkeypatch.setattr(folders.Folder, "change", swapped)
    lines(base_fd, box("ex.test/anna/"))
    assert swaps == 1
    away = (base / place).with_name("away").stat()
    assert (away.st_ino, away.st_mode & 0o7777) == (inode, 0o755 if place == "ex.test" else 0o700)
    there = base / place if swap is by_folder else victim / "box"
    for path, before in outside.items():
        after = there.stat() if path.name == "box" else path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_two_runs_at_once(base: Path, base_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one makes the box, completely, while we look whether it is empty."""
    folder = folders.Folder
    real = folder.is_empty

    def other(self: folders.Folder) -> bool:
        monkeypatch.setattr(folder, "is_empty", real)
        make_box(base_fd, box("ex.test/anna/"))
        return real(self)

    make_box(base_fd, box("ex.test/bob/", BOB))
    monkeypatch.setattr(folder, "is_empty", other)
    assert lines(base_fd, box("ex.test/anna/")) == []
    assert listing(base)["ex.test/anna/tmp"] == "drwx------ 5001:5001"


def test_what_the_system_refuses_is_named_and_the_rest_goes_on(
    base: Path, base_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def full(name: bytes, mode: int, *, dir_fd: int) -> None:
        if name in (b"anna", b"full.test", b"tmp"):
            raise OSError(28, "No space left on device")
        real(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", full)
    before = open_files()
    found = lines(base_fd, box("ex.test/anna/"), box("ex.test/bob/", BOB), box("full.test/c/", 5003))
    assert open_files() == before
    assert found == [
        "done: ex.test/: missing -> 0711 0:0",
        "failed: ex.test/anna/: No space left on device",
        "done: ex.test/bob/: missing -> 0700 5002:5001",
        "done: ex.test/bob/cur/: missing -> 0700 5002:5001",
        "done: ex.test/bob/new/: missing -> 0700 5002:5001",
        "failed: ex.test/bob/tmp/: No space left on device",
        "failed: full.test/: No space left on device",
        "left alone: full.test/c/: not looked at -> full.test/ cannot be entered",
    ]


def test_boxes_at_many_depths(base: Path, base_fd: int) -> None:
    boxes = [box(path) for path in ("a/", "b/c/d/e/", "b/c/d/f/", "b/c/g/", "h/i/")]
    assert len(lines(base_fd, *boxes)) == len(lines(base_fd, *boxes, apply=False)) + 9
    assert lines(base_fd, *reversed(boxes)) == []
    assert (base / "b/c/d/e/cur").is_dir()


def test_inactive_boxes_and_strangers_are_not_touched(base: Path, base_fd: int, folder: MakeFolder) -> None:
    folder("ex.test", 0o711)
    folder("ex.test/gone", 0o777, 5003, 5003)
    folder("elsewhere.test", 0o777)
    before = listing(base)
    make_box(base_fd, box("ex.test/anna/"))
    assert {name: text for name, text in listing(base).items() if "anna" not in name} == before
