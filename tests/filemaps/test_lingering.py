"""What lingers, and what is made of a file that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.filemaps.lingering import Lingering, load, save

KEYS = st.binary(min_size=1, max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
HOSTILE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=9,
)


def lingering(since: dict[bytes, float]) -> Lingering:
    one = Lingering()
    for key, moment in since.items():
        one.begin(key, (b"@d",), moment)
    return one


def test_a_key_lingers_from_the_first_time_on() -> None:
    one = lingering({b"a": 10.0})
    one.begin(b"a", (b"@e",), 20.0)
    assert (one.since(b"a", 30.0), one.before(10.0), one.before(10.5)) == (10.0, [], [b"a"])
    assert one.behind.of([b"@d"]) == {b"a"}
    one.end(b"a")
    one.end(b"a")
    assert (list(one), len(one), one.behind.of([b"@d"])) == ([], 0, set())


def test_a_clock_that_was_set_back_lets_nothing_linger_for_years() -> None:
    one = Lingering()
    one.recall({b"a": 1e12})
    one.begin(b"a", (), 100.0)
    assert one.before(101.0) == [b"a"]


@given(
    st.dictionaries(st.sampled_from(["a.queued", "b.queued"]), st.dictionaries(KEYS, st.integers(0, 1 << 40)))
)
def test_what_was_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, kept: dict[str, dict[bytes, float]]
) -> None:
    path = tmp_path_factory.mktemp("kept") / ".removed"
    path.write_text("old")
    save(path, {name: lingering(since) for name, since in kept.items()})
    assert load(path) == kept
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_save_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".removed.new").write_text("{")
    save(tmp_path / ".removed", {"a": lingering({b"k": 1.0})})
    assert load(tmp_path / ".removed") == {"a": {b"k": 1.0}}


@given(
    st.dictionaries(st.text(max_size=5), st.dictionaries(st.text(max_size=5), HOSTILE) | HOSTILE) | HOSTILE
)
def test_any_json(tmp_path_factory: pytest.TempPathFactory, hostile: object) -> None:
    path = tmp_path_factory.mktemp("kept") / ".removed"
    path.write_text(json.dumps(hostile))
    for keys in load(path).values():
        one = Lingering()
        one.recall(keys)
        for key in keys:
            one.begin(key, (), 1e9)
        assert set(one.before(1e9 + 1)) == set(keys)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b'{"a": {"k": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": {"\\ud800": 1}}',
        b'{"a": {"k": 1%s}}' % (b"0" * 400),
        b'{"a": {"k": 1%s}}' % (b"0" * 9000),
        b"[1]",
        b'"a"',
    ],
)
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".removed").write_bytes(text)
    assert load(tmp_path / ".removed") == {}


def test_numbers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / ".removed").write_bytes(b'{"a": {"k": NaN, "l": Infinity, "m": 1e999, "n": "1", "o": 5}}')
    assert load(tmp_path / ".removed") == {"a": {b"o": 5.0}}


def test_no_file_and_a_directory(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == {}
    assert load(tmp_path) == {}
