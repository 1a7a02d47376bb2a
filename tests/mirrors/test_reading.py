"""Whole readings: whatever the file has and however the rows come, the file has those rows in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailmaps.maps.row_bytes import LONGEST_KEY, Rows
from mailmaps.mirrors.file import MirrorFile
from mailmaps.mirrors.reading import FirstReading, Mending, PackedRows

Table = dict[bytes, bytes]

# Keys of any length, so that every border is met: none, one, before the first, between two, after the last.
keys = st.sampled_from(
    [b"", b"\1", b"a", b"a\0", b"a@", b"b", b"b@ex.test", b"c", b"\xc3\xa9", b"z" * LONGEST_KEY,
     b"z" * (LONGEST_KEY + 1), b"\xff"]
).filter(lambda key: b"\0" not in key)  # fmt: skip
rows = st.dictionaries(keys, st.sampled_from([b"1", b"2", b"\0", b""]))
counts = st.lists(st.integers(1, 4), min_size=1, max_size=12)


def in_pieces(rows: Table, counts: Iterable[int]) -> list[PackedRows]:
    """Pairs and columns by turns."""
    left: list[tuple[bytes, bytes]] = sorted(rows.items())
    pieces: list[PackedRows] = []
    for count in counts:
        if left:
            pieces.append(Rows.of(left[:count]) if len(pieces) % 2 else left[:count])
            left = left[count:]
    return [*pieces, Rows.of(left)] if left else pieces


def holdable(rows: Table) -> Table:
    return {key: row for key, row in rows.items() if 0 < len(key) <= LONGEST_KEY}


def made(path: Path, rows: Table, counts: Iterable[int] = ()) -> MirrorFile:
    reading = FirstReading(path, "ours")
    for piece in in_pieces(rows, counts):
        reading.take(piece)
    return reading.finish()


def content(file: MirrorFile) -> Table:
    found = dict(file.after(None, 1000))
    assert len(file) == len(found)
    return found


def changing(file: MirrorFile, written: list[int]) -> Callable[[Mapping[bytes, bytes | None]], None]:
    """Changes the file; how many rows differed is written down."""
    return lambda changes: written.append(file.change(changes))


@settings(deadline=None)
@given(rows=rows, counts=counts)
def test_a_first_reading_holds_what_came(rows: Table, counts: list[int]) -> None:
    with TemporaryDirectory() as directory:
        file = made(Path(directory) / "v.lmdb", rows, counts)
        assert content(file) == holdable(rows)
        file.close()


@settings(deadline=None, max_examples=300)
@given(before=rows, after=rows, newer=st.sets(keys), counts=counts)
def test_a_mended_file_holds_what_came_but_for_newer_rows(
    before: Table, after: Table, newer: set[bytes], counts: list[int]
) -> None:
    before, names = holdable(before), {key.decode(errors="surrogateescape") for key in newer}
    with TemporaryDirectory() as directory:
        file = made(Path(directory) / "v.lmdb", before)
        written: list[int] = []
        reading = Mending(file, names.__contains__, changing(file, written))
        for piece in in_pieces(after, counts):
            reading.take(piece)
        assert reading.finish() is file
        expected = {key: row for key, row in holdable(after).items() if key not in newer}
        expected |= {key: row for key, row in before.items() if key in newer}
        assert content(file) == expected
        changed = {key for key in before.keys() | expected.keys() if before.get(key) != expected.get(key)}
        assert sum(written) == len(changed), "nothing is written that is as it was"
        assert all(written)
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.lmdb"


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_many_rows(path: Path, size: int, batch: int) -> None:
    """More than are looked at together: rows gone at the end, at the beginning, and every third."""
    before = {b"%06d" % number: b"1" for number in range(size)}
    file = made(path, before)
    for after in ({}, before, {key: row for key, row in before.items() if int(key) % 3}, {b"000005": b"2"}):
        reading = Mending(file, lambda key: False, changing(file, []))
        pieces = sorted(after.items())
        for first in range(0, len(pieces), batch):
            reading.take(pieces[first : first + batch])
        reading.finish()
        assert content(file) == after if len(after) <= 1000 else len(file) == len(after)
    file.close()


def test_rows_changed_while_it_is_compared(path: Path) -> None:
    """Before and behind the place where the comparison is: read again by themselves, they stay."""
    file = made(path, dict.fromkeys((b"a", b"b", b"c", b"d"), b"1"))
    newer: set[str] = set()
    reading = Mending(file, newer.__contains__, changing(file, []))
    reading.take([(b"a", b"1"), (b"b", b"1")])
    newer |= {"a", "c", "e", "f"}
    file.change({b"a": b"2", b"c": None, b"e": b"2"})
    reading.take([(b"c", b"1"), (b"d", b"1"), (b"f", b"1")])
    reading.finish()
    assert content(file) == {b"a": b"2", b"b": b"1", b"d": b"1", b"e": b"2"}
    file.close()


def test_an_abandoned_comparison_keeps_what_is_mended(path: Path) -> None:
    file = made(path, {b"a": b"1", b"b": b"1"})
    reading = Mending(file, lambda key: False, changing(file, []))
    reading.take([(b"a", b"2")])
    reading.abandon()
    assert content(file) == {b"a": b"2", b"b": b"1"}
    file.close()


def test_an_abandoned_first_reading_leaves_nothing(path: Path) -> None:
    reading = FirstReading(path, "ours")
    reading.take([(b"a", b"1")])
    reading.abandon()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("second", [b"a", b"b"])
def test_rows_out_of_order_are_refused(path: Path, second: bytes) -> None:
    """A view's order may be another one than bytes have; a file must not be made of that."""
    reading = FirstReading(path, "ours")
    with pytest.raises(ValueError, match="ascending"):  # noqa: PT012
        reading.take([(b"b", b"1"), (second, b"2")])
        reading.finish()
    reading.abandon()


def test_columns_are_rows() -> None:
    pairs = [(b"a", b"1"), (b"b", b"2")]
    rows = Rows.of(iter(pairs))
    assert list(rows) == list(rows) == pairs
    assert (len(rows), len(Rows([], []))) == (2, 0)
    assert Rows.of(rows) is rows
    assert dict(rows) == dict(pairs)
    assert pairs[1] in rows
    assert (b"a", b"2") not in rows


def test_an_equal_stretch_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all of them are: they are compared as they are."""
    file = made(path, {b"%06d" % number: b"1" for number in range(100)})
    asked: list[bytes | None] = []
    after = MirrorFile.after

    def asking(self: MirrorFile, key: bytes | None, count: int) -> list[tuple[bytes, bytes]]:
        asked.append(key)
        return after(self, key, count)

    monkeypatch.setattr(MirrorFile, "after", asking)
    reading = Mending(file, lambda key: False, changing(file, []))
    for piece in in_pieces(content(file), [50]):
        reading.take(piece)
    reading.finish()
    assert asked[1:] == [None, b"000049", b"000099"]
    file.close()
