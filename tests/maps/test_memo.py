"""Replies that are kept: until they are void, and no more of them than may be."""

from __future__ import annotations

import pytest

from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.memo import LONGEST, MOST, Memo


@pytest.mark.parametrize("found", [True, False])
def test_nothing_survives_a_change(found: bool) -> None:
    """A "not found" that did would be a wrong bounce."""
    memo = Memo()
    memo.put(b"get a\n", b"reply\n", LookupCounts(), found=found)
    assert memo.get(b"get a\n") == b"reply\n"
    memo.clear()
    assert memo.get(b"get a\n") is None


@pytest.mark.parametrize("found", [True, False])
def test_it_is_bounded_and_one_half_leaves_the_other_alone(found: bool) -> None:
    memo = Memo()
    memo.put(b"other", b"reply", LookupCounts(), found=not found)
    for number in range(3 * MOST):
        memo.put(b"%d" % number, b"reply", LookupCounts(), found=found)
    kept = [number for number in range(3 * MOST) if memo.get(b"%d" % number)]
    assert 0 < len(kept) <= MOST
    assert memo.get(b"other") == b"reply"


def test_long_ones_are_not_kept() -> None:
    memo = Memo()
    memo.put(b"long", b"x" * LONGEST, LookupCounts(), found=True)
    assert memo.get(b"long") is None


@pytest.mark.parametrize("found", [True, False])
def test_what_is_given_is_counted_for_its_table(found: bool) -> None:
    memo, ours, others = Memo(), LookupCounts(), LookupCounts()
    memo.put(b"get a\n", b"reply\n", ours, found=found)
    memo.put(b"get b\n", b"reply\n", others, found=found)
    for request in (b"get a\n", b"get a\n", b"get c\n"):
        memo.get(request)
    assert (ours.found, ours.not_found, ours.hits) == ((2, 0, 2) if found else (0, 2, 2))
    assert others.hits == 0
