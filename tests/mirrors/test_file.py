"""A mirror's file: what it holds, how it changes, what stands on disk, and who may open it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mailmaps.maps.row_bytes import LONGEST_KEY, pack
from mailmaps.mirrors import builder, environment, seal, sidecar, soundness
from mailmaps.mirrors import file as module
from mailmaps.mirrors.file import DiskTrouble, Lost, MirrorFile, Unsound

IDENTITY = "database, view, layout 1"
Rows = dict[bytes, bytes]
ROWS = {b"a@ex.test": b"1", b"b@ex.test": b"2", b"c@ex.test": b"\0"}


def build(path: Path, rows: Rows = ROWS, identity: str = IDENTITY) -> MirrorFile:
    """A finished file of these rows."""
    making = MirrorFile.build(path, identity)
    making.append(sorted(rows.items()))
    return making.finish()


def content(file: MirrorFile) -> Rows:
    """All of it, by every way there is."""
    rows = dict(file.after(None, 1_000_000))
    assert list(rows) == sorted(rows)
    assert len(file) == len(rows)
    assert {key: file.get(key) for key in rows} == rows
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "virtual_alias_maps.lmdb"


@pytest.fixture
def file(path: Path) -> Iterator[MirrorFile]:
    opened = build(path)
    yield opened
    opened.close()


@pytest.fixture
def never_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only files whose digest is right can be opened."""
    refuse_to_walk(monkeypatch)


def refuse_to_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on only files whose digest is right can be opened."""

    def walk(fd: int, meta: object) -> object:
        raise Unsound("it has to be walked")

    monkeypatch.setattr(soundness, "_walk", walk)


def opened_elsewhere(file: MirrorFile, tmp_path: Path) -> MirrorFile:
    """A copy of the file as it is now, opened: what is found after kill -9."""
    copy = tmp_path / "copy" / file.path.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir(parents=True)
    shutil.copy2(file.path, copy)
    shutil.copy2(sidecar.path_of(file.path), sidecar.path_of(copy))
    return MirrorFile.open(copy, IDENTITY)


# -- What it holds --


def test_rows_are_found(file: MirrorFile) -> None:
    assert content(file) == ROWS
    assert file.get(b"d@ex.test") is None
    assert file.get(b"x" * LONGEST_KEY) is None
    assert file.get(b"x" * 100_000) is None
    assert file.bytes_on_disk == file.path.stat().st_size


def test_nothing_is_a_content_too(path: Path) -> None:
    file = build(path, {})
    assert content(file) == {}
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    assert content(file) == {}
    file.close()


def test_rows_come_a_few_at_a_time(file: MirrorFile) -> None:
    first = file.after(None, 2)
    assert first == [(b"a@ex.test", b"1"), (b"b@ex.test", b"2")]
    assert file.after(first[-1][0], 2) == [(b"c@ex.test", b"\0")]
    assert file.after(b"c@ex.test", 2) == []
    assert file.after(b"bb", 1) == [(b"c@ex.test", b"\0")]


def test_the_bookkeeping_is_a_row_that_nobody_can_ask(file: MirrorFile, tmp_path: Path) -> None:
    copy = shutil.copy(file.path, tmp_path / "copy")
    with lmdb.open(str(copy), subdir=False, lock=False, readonly=True) as env, env.begin() as transaction:
        keys = list(transaction.cursor().iternext(values=False))
    assert [key for key in keys if len(key) <= LONGEST_KEY] == sorted(ROWS)
    assert len(keys) == len(ROWS) + 1


def test_the_longest_key_and_long_values(path: Path) -> None:
    rows = {b"k" * LONGEST_KEY: b"v" * 100_000, b"k": b""}
    file = build(path, rows)
    file.change({b"j" * LONGEST_KEY: b"w" * 5000})
    assert content(file) == rows | {b"j" * LONGEST_KEY: b"w" * 5000}
    file.close()


# -- How it changes --


def test_a_change_tells_what_differed(file: MirrorFile) -> None:
    assert file.change({b"a@ex.test": b"1", b"b@ex.test": b"3", b"c@ex.test": None, b"d@ex.test": None}) == 2
    assert content(file) == {b"a@ex.test": b"1", b"b@ex.test": b"3"}


def test_nothing_is_written_when_nothing_differs(file: MirrorFile) -> None:
    before = file.path.read_bytes()
    assert file.change({b"a@ex.test": b"1", b"d@ex.test": None}) == 0
    assert file.change({}) == 0
    assert file.path.read_bytes() == before


@pytest.mark.parametrize("key", [b"", b"\0", b"\0mailmaps", b"x" * (LONGEST_KEY + 1)])
def test_keys_that_cannot_be_held(file: MirrorFile, path: Path, key: bytes) -> None:
    with pytest.raises(ValueError, match="a key is"):
        file.change({b"a": b"b", key: b"1"})
    assert content(file) == ROWS
    making = MirrorFile.build(path.with_name("other"), IDENTITY)
    with pytest.raises(ValueError, match="a key is"):
        making.append([(key, b"1")])
    making.abandon()


def test_the_map_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST_MAP", 65536)
    monkeypatch.setattr(builder, "SMALLEST_MAP", 65536)
    rows = {b"%05d" % number: b"v" * 500 for number in range(5000)}
    file = build(path, rows)
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    for number in range(0, 20_000, 1000):
        more: dict[bytes, bytes] = {b"x%05d" % at: b"w" * 500 for at in range(number, number + 1000)}
        assert file.change(more) == 1000
        rows |= more
    assert content(file) == rows
    file.close()


class Changes(RuleBasedStateMachine):
    """Any changes, with checkpoints, closings and killings between them, against a dict."""

    KEYS = st.sampled_from([b"%03d" % number for number in range(300)]) | st.binary(
        min_size=1, max_size=9
    ).map(lambda key: key.replace(b"\0", b"a"))
    VALUES = st.binary(max_size=40) | st.integers(0, 9000).map(bytes)

    folder: ClassVar[Path]

    @initialize(rows=st.dictionaries(KEYS, VALUES, max_size=300))
    def begin(self, rows: Rows) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.file = build(self.folder / "file", rows)
        self.rows = dict(rows)

    @rule(changes=st.dictionaries(KEYS, VALUES | st.none(), max_size=40))
    def change(self, changes: dict[bytes, bytes | None]) -> None:
        different = sum(self.rows.get(key) != row for key, row in changes.items())
        assert self.file.change(changes) == different
        for key, row in changes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    @rule()
    def checkpoint(self) -> None:
        assert asyncio.run(self.file.checkpoint())

    @rule()
    def close_and_open(self) -> None:
        self.file.close()
        self.file = MirrorFile.open(self.folder / "file", IDENTITY)

    @rule()
    def kill_and_open(self) -> None:
        elsewhere = opened_elsewhere(self.file, self.folder)
        assert content(elsewhere) == self.rows
        elsewhere.close()

    @invariant()
    def holds_the_rows(self) -> None:
        assert content(self.file) == self.rows

    def teardown(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def test_any_changes(tmp_path: Path) -> None:
    class Here(Changes):
        folder = tmp_path / "changes"

    limits = settings(max_examples=40, stateful_step_count=12, deadline=None)
    run_state_machine_as_test(Here, settings=limits)


# -- How it is made --


@pytest.mark.parametrize("rows_a_flush", [1, 2, 20_000])
@pytest.mark.parametrize(
    "batches",
    [
        [[(b"b", b"1"), (b"a", b"2")]],
        [[(b"b", b"1"), (b"b", b"2")]],
        [[(b"b", b"1")], [(b"a", b"1")]],
        [[(b"b", b"1")], [], [(b"b", b"1")]],
    ],
)
def test_rows_must_ascend(
    path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[list[tuple[bytes, bytes]]], rows_a_flush: int
) -> None:
    monkeypatch.setattr(builder, "_ROWS", rows_a_flush)

    def make() -> None:
        for batch in batches:
            making.append(batch)
        making.finish()

    making = MirrorFile.build(path, IDENTITY)
    with pytest.raises(ValueError, match="not strictly ascending"):
        make()
    making.abandon()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("rows_a_flush", [1, 7, 20_000])
def test_rows_arrive_in_batches(path: Path, monkeypatch: pytest.MonkeyPatch, rows_a_flush: int) -> None:
    monkeypatch.setattr(builder, "_ROWS", rows_a_flush)
    rows = {b"%04d" % number: b"%d" % number for number in range(100)}
    making = MirrorFile.build(path, IDENTITY)
    for start in range(0, 100, 10):
        making.append(sorted(rows.items())[start : start + 10])
    file = making.finish()
    assert content(file) == rows
    file.close()


def test_abandoned_leaves_what_was_there(file: MirrorFile, path: Path) -> None:
    making = MirrorFile.build(path, IDENTITY)
    making.append([(b"x", b"y")])
    making.abandon()
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, path.name + ".sum"}
    assert content(file) == ROWS


def test_a_new_file_takes_the_place_of_the_old_which_stays_readable(file: MirrorFile, path: Path) -> None:
    file.proven(time.time())
    new = build(path, {b"x": b"y"})
    assert content(new) == {b"x": b"y"}
    assert content(file) == ROWS
    new.close()
    new = MirrorFile.open(path, IDENTITY)
    assert content(new) == {b"x": b"y"}
    assert new.proven_at is None
    new.close()


def test_files_are_for_the_group_to_read(path: Path) -> None:
    before = os.umask(0o077)
    try:
        file = build(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(sidecar.path_of(path).stat().st_mode) == 0o640
    file.close()


KILLED_BUILDER = """
import os, signal, sys
from pathlib import Path
from mailmaps.mirrors.file import MirrorFile
making = MirrorFile.build(Path(sys.argv[1]), "x")
making.append([(b"a", b"b")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_builders_left_is_removed(path: Path) -> None:
    living = MirrorFile.build(path, IDENTITY)
    subprocess.run([sys.executable, "-c", KILLED_BUILDER, str(path)], check=False, timeout=60)
    (path.parent / f"{path.name}.0123abcd.new.sum").touch()  # killed later
    (path.parent / f"{path.name}.0123abcd.new.sum.new").touch()
    (path.parent / f"{path.name}.new").touch()  # not ours
    assert len(list(path.parent.iterdir())) == 5
    build(path).close()
    assert len(list(path.parent.iterdir())) == 4
    living.append([(b"x", b"y")])
    living.finish().close()
    assert {entry.name for entry in path.parent.iterdir()} == {
        path.name,
        path.name + ".sum",
        path.name + ".new",
    }


@pytest.mark.usefixtures("never_walked")
def test_a_file_is_moved_with_its_sidecar(path: Path) -> None:
    other = path.with_name("other.lmdb")
    build(other, {b"x": b"y"}).close()
    file = build(path)
    file.proven(1e9)
    file.move_to(other)
    assert file.path == other
    file.change({b"a@ex.test": b"3"})
    file.close()
    assert not path.exists()
    file = MirrorFile.open(other, IDENTITY)
    assert content(file) == ROWS | {b"a@ex.test": b"3"}
    assert file.proven_at == 1e9
    file.close()


def test_the_sidecar_of_another_file_goes_first(path: Path) -> None:
    other = path.with_name("other.lmdb")
    build(other, {b"x": b"y"}).close()
    file = build(path)
    sidecar.path_of(path).unlink()
    file.move_to(other)
    assert not sidecar.path_of(other).exists()
    file.close()
    MirrorFile.open(other, IDENTITY).close()


# -- Its seal, and the proof that it is current --


@pytest.mark.usefixtures("never_walked")
def test_a_closed_file_is_not_walked(path: Path) -> None:
    build(path).close()
    file = MirrorFile.open(path, IDENTITY)
    file.change({b"a@ex.test": None})
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    assert b"a@ex.test" not in content(file)
    file.close()


def test_what_is_sealed_is_not_hashed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(path).close()
    file = MirrorFile.open(path, IDENTITY)
    monkeypatch.setattr(seal, "_sync", None)
    file.proven(1e9)
    assert asyncio.run(file.checkpoint())
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    assert file.proven_at == 1e9
    file.close()


@pytest.mark.usefixtures("never_walked")
async def test_a_checkpoint_saves_the_walk(file: MirrorFile, tmp_path: Path) -> None:
    opened_elsewhere(file, tmp_path).close()  # as it was built
    file.change({b"a@ex.test": b"9"})
    with pytest.raises(Unsound, match="it has to be walked"):
        opened_elsewhere(file, tmp_path)
    assert await file.checkpoint()
    opened_elsewhere(file, tmp_path).close()
    assert await file.checkpoint()


async def test_a_change_overtakes_a_checkpoint(file: MirrorFile, tmp_path: Path) -> None:
    file.change({b"a@ex.test": b"9"})
    checkpoint = asyncio.ensure_future(file.checkpoint())
    await asyncio.sleep(0)
    file.change({b"a@ex.test": b"10"})
    assert not await checkpoint
    elsewhere = opened_elsewhere(file, tmp_path)
    assert content(elsewhere) == ROWS | {b"a@ex.test": b"10"}
    elsewhere.close()
    assert await file.checkpoint()


async def test_closing_overtakes_a_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = build(path)
    may_end = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(seal, "_sync", lambda fd, stop: (may_end.wait(60), (0, "nothing"))[1])
        checkpoint = asyncio.ensure_future(file.checkpoint())
        await asyncio.sleep(0)
    file.close()
    again = MirrorFile.open(path, IDENTITY)  # the lock is free at once
    may_end.set()
    assert not await checkpoint
    assert content(again) == ROWS
    again.close()


async def test_a_checkpoint_may_be_cancelled(file: MirrorFile) -> None:
    checkpoint = asyncio.ensure_future(file.checkpoint())
    await asyncio.sleep(0)
    checkpoint.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checkpoint
    assert await file.checkpoint()


def test_a_file_that_was_walked_is_sealed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(path).close()
    sidecar.path_of(path).unlink()
    MirrorFile.open(path, IDENTITY)._let_go()
    refuse_to_walk(monkeypatch)
    file = MirrorFile.open(path, IDENTITY)
    assert content(file) == ROWS
    file.close()


def test_a_new_file_has_no_proof(file: MirrorFile) -> None:
    assert file.proven_at is None


def test_a_proof_is_remembered(path: Path, tmp_path: Path) -> None:
    file = build(path)
    now = time.time()
    file.proven(now - 5)
    assert file.proven_at == now - 5
    file.change({b"a@ex.test": None})
    for walked in (True, False):
        elsewhere = opened_elsewhere(file, tmp_path)
        assert elsewhere.proven_at == pytest.approx(now - 5, abs=0.001)
        elsewhere.close()
        if walked:
            file.close()
            file = MirrorFile.open(path, IDENTITY)
            assert file.proven_at == pytest.approx(now - 5, abs=0.001)
    file.close()


def test_proofs_are_written_now_and_then(file: MirrorFile) -> None:
    written = sidecar.path_of(file.path)
    noted = []
    for second in range(0, 31, 3):
        file.proven(1e9 + second)
        noted.append(written.stat().st_mtime - 1e9)
    assert noted == [0, 0, 0, 0, 12, 12, 12, 12, 24, 24, 24]
    assert file.proven_at == 1e9 + 30


@pytest.mark.parametrize("ahead", [61.5, 1e9, 1e300])
def test_a_proof_of_the_future_is_none(path: Path, ahead: float) -> None:
    file = build(path)
    file.close()
    if ahead < 1e12:
        os.utime(sidecar.path_of(path), (0, time.time() + ahead))
    else:
        text = sidecar.path_of(path).read_text().replace('"proven": null', f'"proven": {ahead}')
        sidecar.path_of(path).write_text(text.replace(sidecar.boot(), "another"))
    file = MirrorFile.open(path, IDENTITY)
    assert file.proven_at is None
    file.close()


def test_after_a_reboot_only_what_was_synced_counts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = build(path)
    file.proven(1e9)
    elsewhere = opened_elsewhere(file, tmp_path)
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    file.proven(1e9 + 1000)
    file.change({b"a@ex.test": None})
    monkeypatch.setattr(sidecar, "boot", lambda: "another")
    after = opened_elsewhere(file, tmp_path / "after")
    assert after.proven_at == 1e9
    after.close()
    file.close()
    assert elsewhere.proven_at == 1e9
    elsewhere._let_go()
    copy = MirrorFile.open(elsewhere.path, IDENTITY)  # never synced
    assert copy.proven_at is None
    copy.proven(1e9 + 2000)
    copy._let_go()
    copy = MirrorFile.open(elsewhere.path, IDENTITY)  # killed, not booted again
    assert copy.proven_at == 1e9 + 2000
    copy.close()


def test_a_proof_is_not_that_of_an_older_file(path: Path, tmp_path: Path) -> None:
    file = build(path)
    file.close()
    old = path.read_bytes()
    file = MirrorFile.open(path, IDENTITY)
    file.change({b"a@ex.test": None})
    file.proven(1e9)
    file.close()
    path.write_bytes(old)
    file = MirrorFile.open(path, IDENTITY)
    assert content(file) == ROWS
    assert file.proven_at is None
    file.close()


async def test_a_sidecar_that_is_gone_comes_again(file: MirrorFile, path: Path, tmp_path: Path) -> None:
    sidecar.path_of(path).unlink()
    file.proven(1e9)
    assert await file.checkpoint()
    elsewhere = opened_elsewhere(file, tmp_path)
    assert elsewhere.proven_at == 1e9
    elsewhere.close()


# -- Trouble --


def test_where_no_sidecar_can_be_written(path: Path) -> None:
    build(path).close()
    sidecar.path_of(path).unlink()
    sidecar.path_of(path).mkdir()
    file = MirrorFile.open(path, IDENTITY)
    file.proven(1e9)
    assert content(file) == ROWS
    with pytest.raises(IsADirectoryError):
        file.close()
    sidecar.path_of(path).rmdir()
    MirrorFile.open(path, IDENTITY).close()


def test_one_file_is_for_one_mailmaps(file: MirrorFile, path: Path) -> None:
    with pytest.raises(Unsound, match="in use"):
        MirrorFile.open(path, IDENTITY)


def test_a_file_is_for_one_view(path: Path) -> None:
    build(path, identity="another").close()
    with pytest.raises(Unsound, match="is that of 'another'"):
        MirrorFile.open(path, IDENTITY)
    sidecar.path_of(path).unlink()
    with pytest.raises(Unsound, match="is that of 'another'"):
        MirrorFile.open(path, IDENTITY)


def test_a_closed_file_gives_nothing(path: Path) -> None:
    file = build(path)
    file.close()
    file.close()
    file.proven(1e9)
    assert not asyncio.run(file.checkpoint())
    with pytest.raises(lmdb.Error):
        file.get(b"a@ex.test")
    file = MirrorFile.open(path, IDENTITY)
    assert file.proven_at is None
    file.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from mailmaps.mirrors.file import DiskTrouble, MirrorFile

path = Path(sys.argv[1])
rows = [(b"%06d" % number, b"v" * 100) for number in range(2000)]
making = MirrorFile.build(path, "x")
making.append(rows)
file = making.finish()
resource.setrlimit(resource.RLIMIT_FSIZE, (file.bytes_on_disk + 8192, resource.RLIM_INFINITY))
try:
    file.change({b"x%06d" % number: b"v" * 100 for number in range(2000)})
except DiskTrouble as error:
    print(error)
assert file.after(None, 3000) == rows
assert file.change({b"000000": b"w"}) == 1
making = MirrorFile.build(path, "x")
try:
    making.append(rows * 1)
    making.append([(b"x%06d" % number, b"v" * 100) for number in range(9000)])
    making.finish()
except DiskTrouble as error:
    print(error)
making.abandon()
assert file.get(b"000000") == b"w"
file.close()
assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, path.name + ".sum"]
"""


def test_a_full_disk_harms_no_row(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    MirrorFile.open(path, "x").close()


NO_ADDRESS_SPACE = """
import resource, sys
from pathlib import Path
import mailmaps.mirrors.builder
from mailmaps.mirrors.file import DiskTrouble, MirrorFile

mailmaps.mirrors.builder.SMALLEST_MAP = 1 << 20
making = MirrorFile.build(Path(sys.argv[1]), "x")
making.append([(b"a", b"b")])
file = making.finish()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
rows = {}
try:
    for number in range(1000):
        more = {b"%04d%03d" % (number, at): b"v" * 500 for at in range(100)}
        file.change(more)
        rows |= more
except DiskTrouble as error:
    print(error)
assert rows
assert dict(file.after(None, 100_000)) == {b"a": b"b", **rows}
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.change({b"a": None})
file.close()
"""


def test_no_room_for_a_larger_map_harms_no_row(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ADDRESS_SPACE, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "no address space" in done.stdout
    MirrorFile.open(path, "x").close()


def test_a_file_that_cannot_be_mapped_again_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(env: lmdb.Environment) -> None:
        env.close()
        raise DiskTrouble("no address space")

    monkeypatch.setattr(environment, "_grow", grow)
    monkeypatch.setattr(module, "SMALLEST_MAP", 65536)
    build(path).close()
    file = MirrorFile.open(path, IDENTITY)
    big: dict[bytes, bytes | None] = {b"a": b"v" * 1_000_000}
    with pytest.raises(DiskTrouble):
        file.change(big)
    assert content(file) == ROWS
    path.rename(path.with_name("other"))
    build(path, {}).close()
    with pytest.raises(Lost, match="has been replaced"):
        file.change(big)
    with pytest.raises(lmdb.Error):
        file.get(b"a")
    file.close()
    MirrorFile.open(path.with_name("other"), IDENTITY).close()  # it is not locked any more


# -- Postfix --


@pytest.mark.postfix
def test_postfix_reads_the_file(path: Path, tmp_path: Path) -> None:
    if shutil.which("postmap") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    values = {
        "one@ex.test": ("jan@home.test",),
        "two@ex.test": ("jan@home.test", "piet@home.test"),
        "comma@ex.test": ('"a,b"@home.test', "c@home.test"),
        "nothing@ex.test": (),
        "@catch.test": ("x" * 6000,),
        "caf\u00e9@ex.test": ("\u00e9",),
    }
    rows = {key.encode(): pack(value) for key, value in values.items()}
    rows |= {b"%d@ex.test" % number: b"%d" % number for number in range(10_000)}
    file = build(path, rows)
    file.change({b"7@ex.test": b"changed", b"8@ex.test": None})
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    command = ["postmap", "-c", str(tmp_path), "-q", "-", f"lmdb:{path.with_suffix('')}"]
    keys = [
        *values,
        *(f"{number}@ex.test" for number in range(10_000)),
        "none@ex.test",
        "mailmaps",
        "@ex.test",
    ]
    done = subprocess.run(
        command, input="\n".join(keys).encode(), capture_output=True, check=False, timeout=60
    )
    found = dict(line.split(b"\t", 1) for line in done.stdout.splitlines())
    wanted = {key.encode(): ",".join(value).encode() for key, value in values.items()}
    wanted |= {key: row for key, row in rows.items() if key[:1].isdigit()} | {b"7@ex.test": b"changed"}
    del wanted[b"8@ex.test"]
    assert found == wanted
    file.close()
