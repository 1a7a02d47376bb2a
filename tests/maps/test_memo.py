"""Replies that are kept: until they are void, and no more of them than may be."""

from __future__ import annotations

import pytest

from mailmaps.maps.memo import LONGEST, MOST, Memo


@pytest.mark.parametrize("found", [True, False])
def test_nothing_survives_a_change(found: bool) -> None:
    """A "not found" that did would be a wrong bounce."""
    memo = Memo()
    memo.put(b"get a\n", b"reply\n", found=found)
    assert memo.get(b"get a\n") == b"reply\n"
    memo.clear()
    assert memo.get(b"get a\n") is None


@pytest.mark.parametrize("found", [True, False])
def test_it_is_bounded_and_one_half_leaves_the_other_alone(found: bool) -> None:
    memo = Memo()
    memo.put(b"other", b"reply", found=not found)
    for number in range(3 * MOST):
        memo.put(b"%d" % number, b"reply", found=found)
    kept = [number for number in range(3 * MOST) if memo.get(b"%d" % number)]
    assert 0 < len(kept) <= MOST
    assert memo.get(b"other") == b"reply"


def test_long_ones_are_not_kept() -> None:
    memo = Memo()
    memo.put(b"long", b"x" * LONGEST, found=True)
    assert memo.get(b"long") is None
