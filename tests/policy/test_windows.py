"""Sliding windows: no hour, wherever it begins, holds more than its sum says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailmaps.policy.sums import Allowed, Breach, Sums
from mailmaps.policy.windows import Window, Windows

JAN = ("login", "jan")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_sent_goes_out_of_the_windows() -> None:
    clock = Clock()
    windows = Windows(clock)
    windows.add(JAN, 1, 50)
    clock.now += 1800
    windows.add(JAN, 1, 5)
    assert windows.sums(JAN) == Sums(2, 2, 55, 55)
    clock.now += 1920
    assert windows.sums(JAN) == Sums(1, 2, 5, 55)
    clock.now += 86400
    assert windows.sums(JAN) == Sums()
    assert windows.all() == {}


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 9)), max_size=40))
def test_every_hour_is_within_the_sum(steps: list[tuple[int, int]]) -> None:
    """The sum at each moment is at least what was sent in the 3600 seconds before it, at most 61 minutes'
    worth.
    """
    clock, sent = Clock(), list[tuple[float, int]]()
    windows = Windows(clock)
    for pause, much in steps:
        clock.now += pause
        windows.add(JAN, 1, much)
        sent.append((clock.now, much))
        found = windows.sums(JAN).recipients_hour
        assert found >= sum(many for when, many in sent if when > clock.now - 3600)
        assert found <= sum(many for when, many in sent if when > clock.now - 3660 - 60)


def test_a_window_keeps_one_entry_a_minute() -> None:
    window = Window(60)
    for _ in range(1000):
        window.add(5, 1, 1)
    assert (window.messages, window.recipients, len(window._minutes)) == (1000, 1000, 1)


def test_what_others_sent_counts_until_its_window_has_passed() -> None:
    clock = Clock()
    windows = Windows(clock)
    windows.add(JAN, 1, 10)
    windows.told(JAN, Sums(3, 5, 30, 50))
    assert windows.sums(JAN) == Sums(3, 5, 30, 50)
    clock.now += 61 * 60
    assert windows.sums(JAN) == Sums(0, 5, 0, 50)
    clock.now += 86400
    assert windows.sums(JAN) == Sums()


def test_a_release_elsewhere_is_seen() -> None:
    windows = Windows(Clock())
    windows.add(JAN, 1, 100)
    windows.told(JAN, Sums(1, 1, 2, 2))
    assert windows.sums(JAN) == Sums(1, 1, 2, 2)
    windows.forget(JAN)
    assert windows.sums(JAN) == Sums()


def test_names_are_bounded(monkeypatch: object) -> None:
    windows = Windows(Clock())
    for number in range(3):
        windows.add(("login", str(number)), 1, 1)
    assert len(windows.all()) == 3


def test_limits() -> None:
    allowed = Allowed(None, 10, 5, None)
    assert allowed.broken_by(Sums(99, 10, 5, 99)) is None
    assert allowed.broken_by(Sums(99, 11, 5, 99)) == Breach(10, "messages", "a day")
    assert allowed.broken_by(Sums(0, 0, 6, 0)) == Breach(5, "recipients", "an hour")
    assert allowed.smallest == Breach(5, "recipients", "an hour")
    assert Allowed().is_unlimited
