"""Keys by the keys behind them, against two lines that look through everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailmaps.filemaps.behind import Behind

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"@x", b"@y"])
STEPS = st.lists(
    st.tuples(st.booleans(), KEYS, st.lists(KEYS, max_size=4, unique=True).map(tuple)), max_size=30
)


@given(STEPS, st.lists(KEYS, max_size=4))
def test_as_the_naive_one(steps: list[tuple[bool, bytes, tuple[bytes, ...]]], asked: list[bytes]) -> None:
    behind, naive = Behind(), dict[bytes, tuple[bytes, ...]]()
    for is_added, key, others in steps:
        if is_added:
            behind.add(key, others)
            naive.setdefault(key, others)
        else:
            behind.discard(key)
            naive.pop(key, None)
        assert behind.of(asked) == {key for key, others in naive.items() if {*others} & {*asked}}
        assert list(behind) == list(naive)
        assert len(behind) == len(naive)
        assert all((key in behind) == (key in naive) for key in (b"a", b"@x", b"none"))
        assert {key: behind.others(key) for key in behind} == naive
    for key in list(behind):
        behind.discard(key)
    assert behind.of([b"a", b"b", b"c", b"d", b"@x", b"@y"]) == set()
    assert not behind._behind, "memory that nobody gets back"


def test_what_is_found_is_nobody_elses() -> None:
    behind = Behind()
    behind.add(b"a", (b"@x",))
    behind.of([b"@x"]).clear()
    assert behind.of([b"@x"]) == {b"a"}
