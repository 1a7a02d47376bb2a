"""What is remembered, for how long, and that a dictionary attack evicts nobody."""

from __future__ import annotations

from mailmaps.maps.cache import LONGEST_CACHED_KEY, NO_ROW, Cache, Row


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock, **changes: float) -> Cache:
    return Cache(
        ttl=changes.get("ttl", 30),
        negative_ttl=changes.get("negative_ttl", 5),
        size=int(changes.get("size", 2)),
        negative_size=int(changes.get("negative_size", 2)),
        clock=clock,
    )


ROW = Row(0, ("v",), "builtin")


def test_each_kind_has_its_ttl() -> None:
    clock = Clock()
    one = cache(clock)
    one.put(("a",), ROW)
    one.put(("b",), NO_ROW)
    clock.now = 4.9
    assert one.get(("a",)) is ROW
    assert one.get(("b",)) is NO_ROW
    clock.now = 5.0
    assert one.get(("b",)) is None
    clock.now = 30.0
    assert one.get(("a",)) is None


def test_a_dictionary_attack_evicts_no_known_key() -> None:
    one = cache(Clock())
    one.put(("known",), ROW)
    for number in range(100):
        one.put((f"unknown{number}",), NO_ROW)
    assert one.get(("known",)) is ROW
    assert len(one) == 3


def test_a_key_that_changes_kind_is_remembered_once() -> None:
    one = cache(Clock())
    one.put(("a",), ROW)
    one.put(("a",), NO_ROW)
    assert one.get(("a",)) is NO_ROW
    assert len(one) == 1


def test_a_known_key_that_answers_nothing_counts_as_missing() -> None:
    clock = Clock()
    one = cache(clock)
    one.put(("a",), Row(0, (), "builtin"))
    clock.now = 6
    assert one.get(("a",)) is None


def test_nothing_is_remembered_when_switched_off_or_absurdly_long() -> None:
    off = cache(Clock(), ttl=0, negative_size=0)
    off.put(("a",), ROW)
    off.put(("b",), NO_ROW)
    assert len(off) == 0
    one = cache(Clock())
    one.put(("x" * (LONGEST_CACHED_KEY + 1),), NO_ROW)
    assert len(one) == 0


def test_what_was_found_is_stale_after_its_time_and_after_a_change() -> None:
    clock = Clock()
    one = cache(clock)
    one.put(("a",), ROW)
    one.put(("b",), NO_ROW)
    clock.now = 1.0
    one.outdate()
    assert one.get(("a",)) is one.get(("b",)) is None
    assert one.stale(("a",), 60) is ROW
    assert one.stale(("b",), 60) is None
    clock.now = 61.0
    assert one.stale(("a",), 60) is None
    one.put(("a",), ROW)
    assert one.get(("a",)) is ROW
