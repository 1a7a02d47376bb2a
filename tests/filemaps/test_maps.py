"""A table as Postfix reads it: rows that a file cannot carry, postmaps that fail, work that was cut short."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailmaps.filemaps.contents import LATER
from mailmaps.filemaps.lmdb_file import Access
from mailmaps.filemaps.maps import CdbMap, LmdbMap, MapFile
from mailmaps.filemaps.postmap import Postmap, PostmapError

pytestmark = pytest.mark.postfix

OURS = Access(0o640, os.geteuid(), os.getegid())
ROWS = {b"a@ex.test": b"1", b"b@ex.test": b"2", b"c@ex.test": b"3"}
Rows = dict[bytes, bytes]
Make = Callable[[], MapFile]


def lmdb_map(folder: Path) -> LmdbMap:
    return LmdbMap(folder / "map", OURS, Postmap(folder))


def cdb_map(folder: Path) -> CdbMap:
    return CdbMap(folder / "map", folder / ".state", OURS, Postmap(folder))


@pytest.fixture(params=[lmdb_map, cdb_map])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MapFile]:
    made: MapFile = request.param(tmp_path)
    assert not made.open()
    assert replace(made, ROWS) == []
    yield made
    made.close()


@pytest.fixture
def cdb(tmp_path: Path) -> Iterator[CdbMap]:
    made = cdb_map(tmp_path)
    replace(made, ROWS)
    yield made
    made.close()


def replace(file: MapFile, rows: Rows) -> list[bytes]:
    return file.replace(lambda: sorted(rows.items()))


def answers(file: MapFile, keys: list[bytes]) -> Rows:
    """What postmap finds."""
    table = f"{file.path.suffix[1:]}:{file.path.with_suffix('')}"
    words = ["postmap", "-q", "-", table]
    done = subprocess.run(words, input=b"\n".join(keys), capture_output=True, timeout=30, check=False)
    assert b"fatal" not in done.stderr
    return dict(line.partition(b"\t")[::2] for line in done.stdout.splitlines())


def left_over(folder: Path) -> list[str]:
    """What lies about beside files in use."""
    paths = [*folder.iterdir(), *(folder / ".state").glob("*")]
    return [path.name for path in paths if path.name not in ("map.lmdb", "map.cdb", ".state", ".lock")]


def fork_and_kill(do: Callable[[], None], seconds: float) -> None:
    """Do it in another process, for so long; its postmap is killed with it."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            do()
        finally:
            os._exit(1)
    time.sleep(0.02 + seconds)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


# -- Both --


def test_rows_come_and_go(file: MapFile, tmp_path: Path) -> None:
    file.change({b"a@ex.test": None, b"b@ex.test": b"4", b"d@ex.test": b"5", b"none@ex.test": None})
    rows = {b"b@ex.test": b"4", b"c@ex.test": b"3", b"d@ex.test": b"5"}
    assert dict(file.rows()) == rows == file.get_all(iter([*rows, b"a@ex.test"]))
    assert answers(file, [b"a@ex.test", *rows]) == rows
    assert file.prove() == []
    assert replace(file, {b"e@ex.test": b"6"}) == []
    assert answers(file, [b"a@ex.test", b"e@ex.test", *rows]) == {b"e@ex.test": b"6"}
    assert file.path.stat().st_mode & 0o7777 == 0o640
    assert left_over(tmp_path) == []


def test_nothing(file: MapFile) -> None:
    assert replace(file, {}) == []
    assert file.open()
    assert (len(file), answers(file, list(ROWS)), file.prove()) == (0, {}, [])
    file.change({b"a@ex.test": b"1"})
    assert answers(file, list(ROWS)) == {b"a@ex.test": b"1"}


def test_it_replaces_itself(file: MapFile) -> None:
    assert file.replace(lambda: ((key, value + b"!") for key, value in file.rows())) == []
    assert dict(file.rows()) == {key: value + b"!" for key, value in ROWS.items()}


@pytest.mark.parametrize("script", ["kill -9 $$", "echo postmap: fatal: oh >&2; exit 1", "exit 127", None])
def test_a_postmap_that_fails_changes_nothing(
    file: MapFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    before = file.path.read_bytes()
    with monkeypatch.context() as patch:
        (tmp_path / "bin").mkdir()
        if script:
            (tmp_path / "bin/postmap").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "bin/postmap").chmod(0o755)
        patch.setenv("PATH", str(tmp_path / "bin"))
        patch.setattr("mailmaps.postconf.SBIN", ())
        with pytest.raises(PostmapError):
            replace(file, {b"d@ex.test": b"4"})
        with pytest.raises(PostmapError):
            file.prove()
        assert file.path.read_bytes() == before
    (tmp_path / "bin/postmap").unlink(missing_ok=True)
    (tmp_path / "bin").rmdir()
    assert file.open()
    file.prove()
    assert answers(file, [*ROWS, b"d@ex.test"]) == dict(file.rows())
    assert left_over(tmp_path) == []


def test_a_key_that_postfix_never_finds_is_lost(file: MapFile) -> None:
    ill = b"ill\xff@ex.test"
    assert replace(file, ROWS | {ill: b"4"}) == [ill]
    assert dict(file.rows()) == answers(file, list(ROWS)) == ROWS
    file.change({ill: b"4"})
    assert file.prove() == [ill]
    assert dict(file.rows()) == ROWS
    assert file.prove() == []


# -- lmdb: --


def test_a_wrong_postmap_does_not_find_what_it_has_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers to nothing: then there is nothing that could be put in place but an empty file."""
    file = lmdb_map(tmp_path)
    replace(file, ROWS)
    (tmp_path / "postmap").write_text("#!/bin/sh\ncat > /dev/null; echo 'x\t1'\n")
    (tmp_path / "postmap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert replace(file, ROWS) == sorted(ROWS)
    assert dict(file.rows()) == {}
    file.close()


def test_incremental_postmap_has_been_here(tmp_path: Path) -> None:
    """Its key ends in a NUL, and who finds that looks for no other from then on."""
    file = lmdb_map(tmp_path)
    replace(file, ROWS)
    inode = file.path.stat().st_ino
    words = ["postmap", "-i", f"lmdb:{tmp_path / 'map'}"]
    subprocess.run(words, input=b"aa@ex.test 9\n", check=True, timeout=20)
    assert answers(file, [b"aa@ex.test", *ROWS]) == {b"aa@ex.test": b"9"}
    assert file.prove() == []
    assert dict(file.rows()) == answers(file, [b"aa@ex.test", *ROWS]) == ROWS
    assert file.path.stat().st_ino != inode, "who reads the old one must begin anew"
    file.close()


# -- cdb: --

ODD = {
    b"#x@ex.test": b"v",
    b" lead@ex.test": b"v",
    b"a x@ex.test": b"v",
    b"trail@ex.test ": b"v",
    b'un"bal@ex.test': b"v",
    b"slash@ex.test\\": b"v",
    b"values@ex.test": b" v",
    b"valuet@ex.test": b"v ",
}
EVEN = {
    b'"#z"@ex.test': b"v",
    b'"x y"@ex.test': b"v w  x",
    b'"x\\"y z"@ex.test': b'"v"',
    b"back\\ slash@ex.test": b"# v",
    b"x#@ex.test": b"v:",
    b"colon:": b"v",
    b"@ex.test": b"a@ex.test,b@ex.test",
    "käse@ex.test".encode(): "größe".encode(),
    b"k" * 510: b"v" * 5000,
}


def test_what_text_can_carry(cdb: CdbMap) -> None:
    assert replace(cdb, ROWS | EVEN) == []
    assert answers(cdb, [*ROWS, *EVEN]) == ROWS | EVEN
    assert cdb.prove() == []


@pytest.mark.parametrize("odd", [{key: value} for key, value in ODD.items()])
def test_what_text_cannot_carry_is_lost_alone(cdb: CdbMap, tmp_path: Path, odd: Rows) -> None:
    """Neither does a row beside it become another, nor does anything answer that nobody has asked for."""
    rows = ROWS | EVEN | odd
    guesses = [*rows, b"a", b"lead@ex.test", b"trail@ex.test", b"x@ex.test", b"un", b"slash@ex.test"]
    assert replace(cdb, rows) == list(odd)
    assert dict(cdb.rows()) == answers(cdb, guesses) == ROWS | EVEN
    assert cdb.prove() == []
    cdb.change(odd)
    assert answers(cdb, guesses) == ROWS | EVEN
    assert cdb.prove() == list(odd)
    assert cdb.prove() == []
    assert dict(cdb.rows()) == answers(cdb, guesses) == ROWS | EVEN
    assert left_over(tmp_path) == []


TEXT = st.text(st.sampled_from('ab#"\\ :@,'), min_size=1, max_size=6).map(str.encode)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(TEXT, TEXT, max_size=12))
def test_any_text(cdb: CdbMap, rows: Rows) -> None:
    lost = replace(cdb, rows)
    kept = {key: value for key, value in rows.items() if key not in lost}
    assert answers(cdb, list(rows)) == kept == dict(cdb.rows())
    for key in lost:
        assert key.startswith((b"#", b" ")) or set(key + rows[key]) & set(b'" \\')


def test_later_is_not_in_it(cdb: CdbMap) -> None:
    rows = ROWS | {b"later@ex.test": LATER}
    assert replace(cdb, rows) == []
    assert dict(cdb.rows()) == rows
    assert answers(cdb, list(rows)) == ROWS
    assert cdb.prove() == []
    cdb.change({b"a@ex.test": LATER})
    assert answers(cdb, list(rows)) == {key: ROWS[key] for key in (b"b@ex.test", b"c@ex.test")}


def test_a_crash_between_the_rows_and_the_cdb(
    cdb: CdbMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Postmap, "make_cdb", _crash)
        with pytest.raises(ZeroDivisionError):
            cdb.change({b"a@ex.test": None, b"d@ex.test": b"4"})
    assert answers(cdb, [*ROWS, b"d@ex.test"]) == ROWS
    cdb.close()
    again = cdb_map(tmp_path)
    assert again.open()
    assert again.prove() == []
    assert answers(again, [*ROWS, b"d@ex.test"]) == dict(again.rows())
    assert b"d@ex.test" in dict(again.rows())
    assert left_over(tmp_path) == []
    again.close()


def test_the_same_change_once_more_after_a_failure(cdb: CdbMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none for the rows, so the set of files asks for a change of nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(Postmap, "make_cdb", _crash)
        with pytest.raises(ZeroDivisionError):
            cdb.change({b"d@ex.test": b"4"})
    cdb.change({})
    assert answers(cdb, [b"d@ex.test"]) == {b"d@ex.test": b"4"}
    before = cdb.path.stat()
    cdb.change({})
    assert os.path.samestat(cdb.path.stat(), before)


def _crash(*_: object) -> None:
    raise ZeroDivisionError


def test_somebody_else_changed_the_cdb(cdb: CdbMap, tmp_path: Path) -> None:
    source = tmp_path / "map"
    source.write_bytes(b"a@ex.test 9\n")
    subprocess.run(["postmap", f"cdb:{source}"], check=True, timeout=20)
    source.unlink()
    assert cdb.prove() == []
    assert answers(cdb, list(ROWS)) == ROWS
    cdb.path.unlink()
    assert not cdb.open()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [lmdb_map, cdb_map])
def test_kill(tmp_path: Path, make: Callable[[Path], MapFile], seed: int) -> None:
    """At any moment of replacing and changing: Postfix reads one state or the other, and `prove` repairs."""
    states: list[Rows] = [{b"%05d@ex.test" % n: b"%d" % state for n in range(2000)} for state in range(2)]
    file = make(tmp_path)
    replace(file, states[0])
    file.close()

    def write() -> None:
        file = make(tmp_path)
        file.open()
        for number in range(1, 1000):
            if number % 3:
                file.change(dict(states[number % 2]))
            else:
                replace(file, states[number % 2])

    fork_and_kill(write, 0.6 * random.Random(seed).random())
    found = answers(file, list(states[0]))
    assert found in states
    again = make(tmp_path)
    assert again.open()
    assert again.prove() == []
    assert dict(again.rows()) == answers(again, list(states[0]))
    assert dict(again.rows()) in states
    replace(again, ROWS)
    assert answers(again, list(ROWS)) == ROWS
    assert left_over(tmp_path) == []
    again.close()
