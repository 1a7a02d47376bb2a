"""Files that are damaged, foreign or none at all are noticed before they are mapped."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailmaps.mirrors import sidecar
from mailmaps.mirrors.file import MirrorFile, Unsound
from mailmaps.mirrors.soundness import check

IDENTITY = "a database, a view"
PAGE = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).parent.parent.parent
Rows = dict[bytes, bytes]


def build(path: Path, rows: Rows) -> MirrorFile:
    making = MirrorFile.build(path, IDENTITY)
    making.append(sorted(rows.items()))
    return making.finish()


def expect(path: Path, rows: Rows) -> None:
    """The file is sound without its sidecar, and holds these."""
    sidecar.remove(path)
    file = MirrorFile.open(path, IDENTITY)
    assert dict(file.after(None, len(rows) + 1)) == rows
    file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transport_maps.lmdb"


@pytest.fixture
def rows() -> Rows:
    return {b"%04d" % number: b"%d" % number for number in range(2000)}


# -- Sound files, walked --


@pytest.mark.parametrize("count", [0, 1, 2, 50, 100, 5000])
@pytest.mark.parametrize("length", [8, 100, 510])
def test_trees_of_any_height(path: Path, count: int, length: int) -> None:
    rows = {b"%08d" % number + b"k" * (length - 8): b"v" * (number % 50) for number in range(count)}
    build(path, rows).close()
    expect(path, rows)


def test_values_of_any_size(path: Path) -> None:
    rows = {b"%05d" % size: b"v" * size for size in range(0, 20_000, 7)}
    file = build(path, rows)
    for size in range(0, 20_000, 21):
        rows[b"%05d" % size] = b"w" * (20_000 - size)
    file.change(rows)
    file.close()
    expect(path, rows)


def test_lists_of_free_pages_of_any_size(path: Path, rows: Rows) -> None:
    rows |= {b"x%06d" % number: b"v" * 100 for number in range(50_000)}
    file = build(path, rows)
    for rest in (30_000, 1000, 10, 0):
        gone = [key for key in rows if key > b"x%06d" % rest]
        assert file.change(dict.fromkeys(gone)) == len(gone)
        for key in gone:
            del rows[key]
        copy = Path(shutil.copy(path, path.with_name("copy")))
        expect(copy, rows)
    more = {b"y%06d" % number: b"v" * 3000 for number in range(2000)}
    size = file.bytes_on_disk
    file.change(more)
    assert file.bytes_on_disk < size + 2000 * PAGE  # freed pages are used again
    file.close()
    expect(path, rows | more)


@pytest.mark.parametrize("seed", range(3))
def test_after_many_changes(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows: Rows = {}
    file = build(path, rows)
    for _ in range(300):
        changes: dict[bytes, bytes | None] = {}
        for _ in range(rng.choice((1, 10, 100))):
            key = bytes(rng.choices(b"abcdefgh", k=rng.choice((1, 3, 3, 100, 500))))
            changes[key] = None if rng.random() < 0.45 else rng.randbytes(rng.choice((0, 20, 20, 1000, 9000)))
        file.change(changes)
        for key, row in changes.items():
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
    file.close()
    expect(path, rows)


# -- What is no file of ours --


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    build(path.with_name("elsewhere"), {}).close()
    path.symlink_to("elsewhere")


def make_sparse(path: Path) -> None:
    build(path, {}).close()
    os.truncate(path, 1 << 40)


def make_empty_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def make_shared(path: Path) -> None:
    build(path, {}).close()
    path.chmod(0o660)


def make_named(path: Path) -> None:
    with lmdb.open(str(path), subdir=False, lock=False, max_dbs=2) as env:
        inner = env.open_db(b"inner")
        with env.begin(write=True) as transaction:
            transaction.put(b"a", b"b", db=inner)


def make_dupsort(path: Path) -> None:
    build(path, {b"a": b"b"}).close()
    data = bytearray(path.read_bytes())
    for meta in (0, PAGE):
        data[meta + 92] |= 4  # MDB_DUPSORT in the flags of the main database
    path.write_bytes(data)


def make_plain(path: Path) -> None:
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"a", b"b")


def make_unused(path: Path) -> None:
    lmdb.open(str(path), subdir=False, lock=False).close()


def make_of_postfix(path: Path) -> None:
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"\0mailmaps", b"")


def make_truncated(path: Path) -> None:
    build(path, {b"%05d" % number: b"v" * 50 for number in range(1000)}).close()
    os.truncate(path, path.stat().st_size - PAGE)


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "empty": (Path.touch, "truncated"),
    "a directory": (Path.mkdir, "not a regular file"),
    "a FIFO": (make_fifo, "not a regular file"),
    "a link": (make_link, "not a regular file"),
    "zeros": (lambda path: path.write_bytes(bytes(100 * PAGE)), "not a mirror's file"),
    "random": (lambda path: path.write_bytes(random.Random(1).randbytes(100 * PAGE)), "not a mirror's file"),
    "text": (lambda path: path.write_text("a@ex.test b@ex.test\n" * 2000), "not a mirror's file"),
    "sparse": (make_sparse, "of an impossible size"),
    "empty and sparse": (make_empty_sparse, "not a mirror's file"),
    "others may write to it": (make_shared, "others may write to it"),
    "of named databases": (make_named, "a row is not one that we write"),
    "of duplicates": (make_dupsort, "but not a mirror's"),
    "of anybody's": (make_plain, "but not a mirror's"),
    "of nobody's": (make_unused, "transaction"),
    "of Postfix": (make_of_postfix, "but not a mirror's"),
    "truncated": (make_truncated, "beyond the end"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_mirror(path: Path, kind: str) -> None:
    make, reason = NO_FILES[kind]
    make(path)
    with pytest.raises(Unsound, match=reason):
        check(path, IDENTITY)
    if not path.is_dir():
        build_again = MirrorFile.build(path, IDENTITY)
        build_again.append([(b"a", b"b")])
        build_again.finish().close()
        expect(path, {b"a": b"b"})


def test_a_path_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / ("x" * 300), tmp_path / "none" / "x"):
        with pytest.raises(Unsound):
            MirrorFile.open(path, IDENTITY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else(path: Path) -> None:
    build(path, {}).close()
    os.chown(path, 65534, -1)
    with pytest.raises(Unsound, match="belongs to uid 65534"):
        MirrorFile.open(path, IDENTITY)


AS_NOBODY = """
import os, sys
from pathlib import Path
from mailmaps.mirrors.file import MirrorFile, Unsound
path = Path(sys.argv[1])
MirrorFile.build(path.with_name("other"), "x").finish().close()  # imports what nobody may not be able to read
if os.geteuid() == 0:
    os.setuid(65534)
making = MirrorFile.build(path, "x")
making.finish().close()
path.chmod(0)
try:
    MirrorFile.open(path, "x")
except Unsound as error:
    print(error)
"""


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory(prefix="mailmaps-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, f"{folder}/file"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.stdout, done.returncode) == ("Permission denied\n", 0), done.stderr


# -- Sidecars --

SIDECAR = {
    "identity": IDENTITY,
    "generation": "00",
    "size": 1,
    "digest": "00",
    "txnid": 1,
    "is_synced": True,
    "boot": "0",
    "proven": 1.0,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.binary(max_size=50)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(list(SIDECAR)), JSON).map(
        lambda odd: json.dumps(SIDECAR | odd).encode()
    )
    | st.sampled_from([b"[" * 60_000, b'{"size":' * 8000, b"9" * 65_000, b"x" * 100_000])
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sidecar(path: Path, text: bytes) -> None:
    if not path.exists():
        build(path, {b"a": b"b"}).close()
    sidecar.path_of(path).write_bytes(text)
    os.utime(sidecar.path_of(path), (1e9, 1e9))
    file = MirrorFile.open(path, IDENTITY)
    assert file.get(b"a") == b"b"
    assert file.proven_at is None
    file.close()


@pytest.mark.parametrize("make", [make_fifo, lambda path: path.symlink_to("elsewhere")])
def test_a_sidecar_that_is_no_file(path: Path, make: Callable[[Path], None]) -> None:
    build(path, {b"a": b"b"}).close()
    sidecar.path_of(path).unlink()
    make(sidecar.path_of(path))
    file = MirrorFile.open(path, IDENTITY)
    assert file.get(b"a") == b"b"
    file.close()
    assert not sidecar.path_of(path).is_symlink()
    assert sidecar.path_of(path).is_file()


# -- Damage --


@pytest.mark.parametrize("has_sidecar", [True, False])
def test_truncated_anywhere(path: Path, rows: Rows, has_sidecar: bool) -> None:
    build(path, rows).close()
    data, summary = path.read_bytes(), sidecar.path_of(path).read_bytes()
    for size in [*range(0, 3 * PAGE, 509), *range(3 * PAGE, len(data), PAGE), len(data) - 1]:
        path.write_bytes(data[:size])
        sidecar.path_of(path).write_bytes(summary)
        if not has_sidecar:
            sidecar.remove(path)
        with pytest.raises(Unsound):
            MirrorFile.open(path, IDENTITY)


def test_a_flipped_bit_of_a_row_is_seen_by_the_walk_alone(path: Path, rows: Rows) -> None:
    build(path, rows).close()
    data = bytearray(path.read_bytes())
    at = data.index(b"12341234") + 5  # in the value
    data[at] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(Unsound, match="not those that were written"):
            MirrorFile.open(path, IDENTITY)
        sidecar.remove(path)


def test_damage_of_every_kind_harms_nobody() -> None:
    """In a process of its own, which a file that should not have been opened may end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mirrors.mutations", "--count", "200", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert ": the rows are not those that were written" in done.stdout
    assert ": sound" in done.stdout


def test_killed_writers_leave_sound_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mirrors.killing", "--rounds", "50"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    assert "'some':" in done.stdout
