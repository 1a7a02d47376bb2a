"""What Postfix's own postmap says of a file; and a postmap that fails in every way."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mailmaps.filemaps import postmap as module
from mailmaps.filemaps.lmdb_file import Access, LmdbFile
from mailmaps.filemaps.postmap import Postmap, PostmapError

Rows = dict[bytes, bytes]
ROWS = {b"a@ex.test": b"1", b"b@ex.test": b"2", b"c@ex.test": b"3", b"d@ex.test": b"4"}


def table(folder: Path, rows: Rows) -> str:
    """A file of these rows."""
    file = LmdbFile(folder / "map.lmdb", Access(0o600, os.geteuid(), os.getegid()))
    with file.made(sorted(rows.items())) as made:
        file.put_in_place(made)
    file.close()
    return f"lmdb:{folder / 'map'}"


def differing(folder: Path, held: Rows, expected: Rows) -> list[bytes]:
    return Postmap(folder).differing(table(folder, held), lambda: sorted(expected.items()))


# -- A postmap that fails --


def put_postmap(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "postmap").write_text(f"#!/bin/sh\n{script}\n")
    (bin_ / "postmap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("kill -9 $$", "signal 9"),
        ("head -n 2 | sed 's/a@ex.test/a@ex.test\t1/; s/b@ex.test/b@ex.test\t2/'; kill -9 $$", "signal 9"),
        ("cat > /dev/null; kill -11 $$", "signal 11"),
        ("echo 'postmap: fatal: no room' >&2; exit 1", "^postmap: fatal: no room$"),
        ("echo 'postmap: panic: oh' >&2; kill -6 $$", "^postmap: panic: oh$"),
        ("echo 'libicu.so: cannot open' >&2; exit 127", "exit code 127"),
    ],
)
def test_trouble_is_not_taken_for_lost_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    put_postmap(tmp_path, monkeypatch, script)
    with pytest.raises(PostmapError, match=says):
        Postmap(tmp_path).differing("lmdb:/x", lambda: ROWS.items())
    with pytest.raises(PostmapError, match=says):
        Postmap(tmp_path).make_cdb(tmp_path / "source")


def test_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("mailmaps.postconf.SBIN", ())
    with pytest.raises(PostmapError, match=r"not installed here \(Debian: postfix"):
        Postmap(tmp_path).differing("lmdb:/x", lambda: ROWS.items())
    with pytest.raises(PostmapError, match="not installed"):
        Postmap(tmp_path).make_cdb(tmp_path / "source")


def test_one_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_postmap(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(module, "LIMIT", 0.3)
    began = time.monotonic()
    with pytest.raises(PostmapError, match=r"signal 9 \(after 0\.3 s"):
        Postmap(tmp_path).differing("lmdb:/x", lambda: ROWS.items())
    with pytest.raises(PostmapError, match=r"signal 9 \(after 0\.3 s"):
        Postmap(tmp_path).make_cdb(tmp_path / "source")
    assert time.monotonic() - began < 10


def test_it_is_told_which_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_postmap(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/words; cat > /dev/null; exit 1')
    Postmap(tmp_path).differing("lmdb:/x", list)
    (tmp_path / "main.cf").touch()
    Postmap(tmp_path).differing("lmdb:/x", list)
    assert (tmp_path / "words").read_text() == f"-q - lmdb:/x\n-c {tmp_path} -q - lmdb:/x\n"


def test_rows_that_fail_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_postmap(tmp_path, monkeypatch, "exec cat")
    calls = []

    def rows() -> list[tuple[bytes, bytes]]:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return list(ROWS.items())

    with pytest.raises(ZeroDivisionError):
        Postmap(tmp_path).differing("lmdb:/x", rows)


# -- The real one --


@pytest.mark.postfix
class TestReal:
    def test_nothing_differs(self, tmp_path: Path) -> None:
        assert differing(tmp_path, ROWS, ROWS) == []
        assert differing(tmp_path, {}, {}) == []
        assert differing(tmp_path, ROWS, {}) == []

    def test_all_is_missing(self, tmp_path: Path) -> None:
        assert differing(tmp_path, {}, ROWS) == sorted(ROWS)

    @pytest.mark.parametrize("number", range(4))
    def test_a_row(self, tmp_path: Path, number: int) -> None:
        key = sorted(ROWS)[number]
        for wrong in (b"9", ROWS[key] + b" ", b"", ROWS[key] + b"\t1", b"b@ex.test"):
            assert differing(tmp_path, ROWS | {key: wrong}, ROWS) == [key]
        without = {one: value for one, value in ROWS.items() if one != key}
        assert differing(tmp_path, without, ROWS) == [key]
        assert differing(tmp_path, ROWS, without) == []  # what is there beside them, nobody has asked for

    def test_keys_and_values_of_all_kinds(self, tmp_path: Path) -> None:
        rows = {
            b"x y@ex.test": b"v",
            b" lead@ex.test": b" v",
            b"trail@ex.test ": b"v ",
            b'"x y"@ex.test': b'"v"',
            b"#x@ex.test": b"#",
            "käse@ex.test".encode(): "größe".encode(),
            b"@ex.test": b"a@ex.test,b@ex.test",
            b"later@ex.test": b"",
            b"%s@ex.test": b"%d %n",
            b"-q@ex.test": b"-",
            b"fatal:@ex.test": b"",
            b"k" * 510: b"v" * 5000,
            b"k" * 511: b"v",
        }
        assert differing(tmp_path, rows, rows) == []

    def test_what_postfix_does_not_ask(self, tmp_path: Path) -> None:
        rows = ROWS | {b"ill\xff@ex.test": b"v", b"Upper@ex.test": b"v"}
        assert differing(tmp_path, rows, rows) == [b"Upper@ex.test", b"ill\xff@ex.test"]

    def test_a_value_that_postfix_does_not_take(self, tmp_path: Path) -> None:
        rows = ROWS | {b"a@ex.test": b"ill\xff"}
        with pytest.raises(PostmapError, match="query error"):
            differing(tmp_path, rows, rows)

    def test_many(self, tmp_path: Path) -> None:
        rows = {b"%07d@ex.test" % number: b"v%d" % number for number in range(100_000)}
        wrong = [b"%07d@ex.test" % number for number in range(0, 100_000, 997)]
        name = table(tmp_path, rows | dict.fromkeys(wrong, b"?"))
        assert Postmap(tmp_path).differing(name, rows.items) == wrong
        assert Postmap(tmp_path).differing(name, (rows | dict.fromkeys(wrong, b"?")).items) == []

    def test_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(PostmapError, match="^postmap: fatal: .*No such file"):
            Postmap(tmp_path).differing(f"lmdb:{tmp_path}/none", ROWS.items)

    def test_a_cdb(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_text("a@ex.test 1\n")
        Postmap(tmp_path).make_cdb(source)
        assert Postmap(tmp_path).differing(f"cdb:{source}", lambda: [(b"a@ex.test", b"1")]) == []
        with pytest.raises(PostmapError, match="^postmap: fatal: open"):
            Postmap(tmp_path).make_cdb(tmp_path / "none")

    def test_incremental_postmap_makes_ours_invisible(self, tmp_path: Path) -> None:
        """Why a key with a NUL must not stay in a file (`mailmaps.filemaps.maps`)."""
        name = table(tmp_path, ROWS)
        subprocess.run(["postmap", "-i", name], input=b"aa@ex.test v\n", check=True, timeout=20)
        rows = {b"aa@ex.test": b"v", b"b@ex.test": b"2", b"c@ex.test": b"3"}
        assert Postmap(tmp_path).differing(name, rows.items) == [b"b@ex.test", b"c@ex.test"]


def test_it_is_found_in_sbin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cron does not look there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PostmapError, match="fatal: open database"):
        Postmap(tmp_path).differing(f"lmdb:{tmp_path}/none", lambda: [(b"a", b"b")])
