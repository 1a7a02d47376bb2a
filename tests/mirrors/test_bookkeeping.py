"""The fingerprint of rows, and the row that has it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.mirrors.bookkeeping import Bookkeeping, fingerprint

ROWS = st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=8), max_size=8)


def of(rows: dict[bytes, bytes]) -> int:
    return fingerprint(rows.keys(), rows.values())


@given(ROWS, ROWS)
def test_it_is_kept_by_adding_and_removing(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> None:
    empty = Bookkeeping.new("x")
    then = empty.changed(of(before), 0)
    assert then.changed(of(after), of(before)) == empty.changed(of(after), 0)
    assert then.changed(0, of(before)) == empty


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_count(rows: dict[bytes, bytes], rng: random.Random) -> None:
    items = list(rows.items())
    rng.shuffle(items)
    assert of(dict(items)) == of(rows)


@given(ROWS, ROWS)
def test_other_rows_other_fingerprint(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    assert (of(one) == of(other)) == (one == other)


def test_a_byte_does_not_pass_from_key_to_value() -> None:
    assert of({b"ab": b"c"}) != of({b"a": b"bc"})


def test_swapped_values_do_not_balance() -> None:
    """Sums of plain CRCs do, once in 10,000 times."""
    rng = random.Random(0)
    for _ in range(50_000):
        a, b, one, two = (rng.randbytes(4) for _ in range(4))
        assert of({a: one, b: two}) != of({a: two, b: one})


@given(st.integers(0, (1 << 64) - 1), st.binary(min_size=16, max_size=16), st.text())
def test_what_is_packed_comes_back(total: int, generation: bytes, identity: str) -> None:
    bookkeeping = Bookkeeping(total, generation, identity)
    assert Bookkeeping.unpack(bookkeeping.pack()) == bookkeeping


@pytest.mark.parametrize("value", [b"", b"x" * 23, b"x" * 24 + b"\xff"])
def test_what_makes_no_sense(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"short|decode"):
        Bookkeeping.unpack(value)
