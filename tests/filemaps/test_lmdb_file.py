"""One lmdb: file: what opens, what a change does, what a new file is like, and what trouble leaves."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.filemaps import hammer

from mailmaps.filemaps import lmdb_file as module
from mailmaps.filemaps.lmdb_file import Access, LmdbFile
from mailmaps.mirrors.environment import DiskTrouble, Unsound
from mailmaps.mirrors.soundness import check_pages

OURS = Access(0o644, os.geteuid(), os.getegid())
ROWS = {b"a@ex.test": b"1", b"b@ex.test": b"2", b"c@ex.test": b""}
Rows = dict[bytes, bytes]


def put(file: LmdbFile, rows: Rows) -> None:
    """Replace the file."""
    with file.made(sorted(rows.items())) as made:
        file.put_in_place(made)


def content(path: Path) -> Rows:
    """As somebody else reads it."""
    check_pages(path)
    with tempfile.TemporaryDirectory() as folder:  # py-lmdb opens no file twice
        copy = shutil.copy(path, folder)
        with lmdb.open(copy, subdir=False, lock=False, readonly=True) as env, env.begin() as transaction:
            return dict(transaction.cursor())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.lmdb"


@pytest.fixture
def file(path: Path) -> Iterator[LmdbFile]:
    file = LmdbFile(path, OURS)
    put(file, ROWS)
    yield file
    file.close()


# -- What it holds, and how it changes --


def test_what_is_there(file: LmdbFile) -> None:
    assert dict(file.rows()) == ROWS
    assert len(file) == 3
    assert file.get_all([b"a@ex.test", b"none", b"c@ex.test"]) == {b"a@ex.test": b"1", b"c@ex.test": b""}


CHANGES = st.dictionaries(
    st.sampled_from([b"a@ex.test", b"b@ex.test", b"c@ex.test", b"d", b"k" * 510, b"k" * 511]),
    st.none() | st.sampled_from([b"", b"1", b"v" * 5000]),
)


@given(st.lists(CHANGES, max_size=5))
def test_a_change_is_what_was_asked(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[bytes, bytes | None]]
) -> None:
    file = LmdbFile(tmp_path_factory.mktemp("file") / "map.lmdb", OURS)
    put(file, ROWS)
    rows = dict(ROWS)
    for change in changes:
        file.change(change)
        rows = {key: value for key, value in (rows | change).items() if value is not None}
        assert dict(file.rows()) == content(file.path) == rows
        assert len(file) == len(rows)
    file.close()


def test_a_change_of_nothing_writes_nothing(file: LmdbFile) -> None:
    before = file.path.read_bytes()
    file.change({})
    assert file.path.read_bytes() == before


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_a_key_that_cannot_be_changes_nothing(file: LmdbFile, key: bytes) -> None:
    with pytest.raises(DiskTrouble):
        file.change({b"0": b"1", key: b"v"})
    assert content(file.path) == ROWS
    assert file.open()
    file.change({b"d": b"4"})
    assert content(file.path) == ROWS | {b"d": b"4"}


def test_a_map_that_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST_MAP", 1 << 16)
    file = LmdbFile(path, OURS)
    rows = {b"%05d" % number: b"v" * 1000 for number in range(500)}
    put(file, rows)
    file.change({b"w%05d" % number: b"w" * 4000 for number in range(1000)})
    assert content(path) == rows | {b"w%05d" % number: b"w" * 4000 for number in range(1000)}
    file.close()


def test_somebody_else_made_it_grow(file: LmdbFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other mailmaps does while we have it open and go on, but it has to be trouble, not the end."""
    file.close()
    monkeypatch.setattr(module, "SMALLEST_MAP", 1 << 16)
    file.open()
    program = (
        "import sys, lmdb; e = lmdb.open(sys.argv[1], 1 << 24, subdir=False, lock=False)\n"
        "with e.begin(write=True) as t: t.put(b'big', b'x' * 1000000)"
    )
    subprocess.run([sys.executable, "-c", program, str(file.path)], check=True, timeout=20)
    with pytest.raises(DiskTrouble, match="RESIZED"):
        file.get_all([b"a@ex.test"])
    with pytest.raises(DiskTrouble, match="RESIZED"):
        list(file.rows())
    with pytest.raises(DiskTrouble, match="RESIZED"):
        len(file)
    with pytest.raises(DiskTrouble, match="RESIZED"):
        file.change({b"a@ex.test": b"2"})
    assert file.open()
    file.change({b"a@ex.test": b"2"})
    assert len(content(file.path)) == 4


# -- What opens --


def test_it_is_not_there(path: Path, file: LmdbFile) -> None:
    path.unlink()
    assert not file.open()
    put(file, {b"d": b"4"})
    assert file.open()
    path.unlink()
    assert not file.open()


def test_another_takes_its_place(path: Path, file: LmdbFile) -> None:
    other = LmdbFile(path, OURS)
    put(other, {b"d": b"4"})
    other.change({b"e": b"5"})
    other.close()
    assert file.open()
    assert dict(file.rows()) == {b"d": b"4", b"e": b"5"}
    file.change({b"d": None})
    assert content(path) == {b"e": b"5"}


@pytest.mark.parametrize(
    "what", ["fifo", "link", "dangling", "directory", "device", "empty", "text", "half", "meta", "mirror"]
)
def test_what_is_not_in_order(path: Path, file: LmdbFile, tmp_path: Path, what: str) -> None:
    data = path.read_bytes()
    other = tmp_path / "other"
    shutil.copy(path, other)
    path.unlink()
    if what == "fifo":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(other)
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "directory":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/null")
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"a 1\n" * 5000,
                "half": data[:8192],
                "meta": data[:4096],
                "mirror": bytes(len(data)),
            }[what]
        )
    with pytest.raises(Unsound):
        file.open()
    assert other.read_bytes() == data
    if what != "directory":
        put(file, {b"d": b"4"})
        assert content(path) == {b"d": b"4"}
    assert other.read_bytes() == data


def test_a_page_that_makes_no_sense(path: Path, file: LmdbFile) -> None:
    file.close()
    rows = {b"%05d" % number: b"v" * 50 for number in range(1000)}
    put(file, rows)
    file.close()
    good = path.read_bytes()
    rng = random.Random(1)
    for _ in range(50):
        data = bytearray(good)
        page = rng.randrange(2, len(data) // 4096) * 4096
        data[page : page + 16] = rng.randbytes(16)
        path.write_bytes(data)
        try:
            file.open()
        except Unsound:
            continue
        assert dict(file.rows()) == rows, "a page that nobody uses"
        file.close()


# -- Modes and owners --


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_modes(path: Path, mode: int) -> None:
    os.umask(os.umask(0o077))
    file = LmdbFile(path, Access(mode, os.geteuid(), os.getegid()))
    put(file, ROWS)
    assert path.stat().st_mode & 0o7777 == mode
    path.chmod(0o666)
    file.close()
    file.open()  # the setting may have changed
    assert path.stat().st_mode & 0o7777 == mode
    file.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners(path: Path) -> None:
    file = LmdbFile(path, Access(0o640, 65534, 65534))
    put(file, ROWS)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    os.chown(path, 0, 0)
    file.close()
    file.open()
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    file.close()


# -- A new file --


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_it_is_private_until_it_is_complete(path: Path, file: LmdbFile) -> None:
    def rows() -> Iterator[tuple[bytes, bytes]]:
        (temporary,) = (entry for entry in path.parent.iterdir() if entry != path)
        assert temporary.stat().st_mode & 0o777 == 0o600
        yield b"d", b"4"

    with file.made(rows()) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o644, "Postfix may come as soon as it has its name"
        assert content(path) == ROWS
    assert names(path) == [path.name]
    assert content(path) == ROWS


def test_trouble_while_it_is_made_leaves_nothing(path: Path, file: LmdbFile) -> None:
    with pytest.raises(ValueError, match="strictly ascending"), file.made([(b"b", b"1"), (b"a", b"1")]):
        pytest.fail("it is not in order")
    with pytest.raises(ValueError, match="strictly ascending"), file.made([(b"b", b"1"), (b"b", b"2")]):
        pytest.fail("it is not in order")
    with pytest.raises(ZeroDivisionError), file.made(iter([(b"d", b"%d" % (1 // n)) for n in (1, 0)])):
        pytest.fail("there are not all rows")
    assert names(path) == [path.name]
    assert content(path) == ROWS


def test_more_rows_than_one_transaction_takes(
    path: Path, file: LmdbFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 7)
    for count in (6, 7, 8, 21, 22):
        rows = {b"%05d" % number: b"v" for number in range(count)}
        put(file, rows)
        assert content(path) == rows


def test_what_was_left_by_a_killed_one_goes(path: Path, file: LmdbFile) -> None:
    (path.parent / ".0123abcd.map.lmdb").write_bytes(b"x")
    others = [".0123abcd.other.lmdb", ".map.lmdb", "0123abcd.map.lmdb"]
    for name in others:
        (path.parent / name).write_bytes(b"x")
    put(file, ROWS)
    assert names(path) == sorted([path.name, *others])


@pytest.mark.parametrize("seed", range(3))
def test_kill_while_it_is_made(path: Path, file: LmdbFile, seed: int) -> None:
    file.close()
    child = os.fork()
    if child == 0:
        while True:
            put(file, {b"%05d" % number: b"v" * 100 for number in range(5000)})
    time.sleep(0.3 * random.Random(seed).random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(content(path)) in (3, 5000)
    put(file, ROWS)
    assert names(path) == [path.name]
    assert content(path) == ROWS


# -- A full disk --


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "map.lmdb"
    file = LmdbFile(path, OURS)
    rows = {b"%05d" % number: b"v" * 100 for number in range(1000)}
    put(file, rows)
    for _ in range(3):
        with (
            pytest.raises((DiskTrouble, OSError)),
            file.made((b"%05d" % number, b"w" * 1000) for number in range(5000)),
        ):
            pytest.fail("there is no room for it")
        assert names(path) == [path.name]
        with pytest.raises(DiskTrouble):
            file.change({b"w%05d" % number: b"w" * 4000 for number in range(1000)})
        assert content(path) == rows
        assert file.open()
        assert dict(file.rows()) == rows
    file.change({b"00000": b"1", b"00001": None})
    del rows[b"00001"]
    assert content(path) == rows | {b"00000": b"1"}
    file.close()


# -- Postfix's readers --


@pytest.mark.postfix
def test_a_file_of_nothing(path: Path, file: LmdbFile) -> None:
    put(file, {})
    words = ["postmap", "-q", "a@ex.test", f"lmdb:{path.with_suffix('')}"]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    file.change({b"a@ex.test": b"1"})
    assert subprocess.run(words, capture_output=True, timeout=20, check=True).stdout == b"1\n"
    file.change({b"a@ex.test": None})
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.postfix
def test_readers_and_writer_hammer_together(tmp_path: Path) -> None:
    """The short one of `python -m tests.filemaps.hammer --seconds 180`."""
    words = [sys.executable, "-m", "tests.filemaps.hammer", "--seconds", "12", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 faults\n")


def test_what_the_hammer_expects_of_a_generation() -> None:
    """The judge's own arithmetic, against rows that are simply changed one generation after the other."""
    history, rows = hammer.History(), hammer.static_rows()
    for generation in range(1, 300):
        for key, value in hammer.change_of(generation).items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        history.go_on(generation)
        if generation % 37 == 0:
            assert history.rows(generation) == rows
    (state,) = history.states(hammer.RELATED[0], 120, 120)
    assert state == (120, hammer.value_of(hammer.RELATED[0], 120))
    assert [since for since, _ in history.states(hammer.RELATED[1], 120, 123)] == [120, 121, 122, 123]
