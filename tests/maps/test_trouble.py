"""What is logged of trouble: once at its beginning, once when it is over."""

from __future__ import annotations

import pytest

from mailmaps.maps.trouble import CALM, Trouble


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_is_said_once_and_over_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = Trouble("t", clock)
    trouble.is_not_seen()
    for _ in range(100):  # half of the lookups are well
        trouble.occurs("slow")
        trouble.is_not_seen()
        clock.now += CALM / 2
    clock.now += CALM
    trouble.is_not_seen()
    trouble.is_not_seen()
    assert [record.message for record in caplog.records] == [
        "cannot say of=t reason=slow",
        "answers again of=t",
    ]


def test_other_trouble_is_said_too_but_not_all_the_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = Trouble("t", clock)
    for number in range(100):
        trouble.occurs(f"number {number}")
        clock.now += CALM / 20
    said = [record.message for record in caplog.records]
    assert said[0] == 'cannot say of=t reason="number 0"'
    assert 3 <= len(said) <= 6


def test_it_is_said_again_after_a_while_without(caplog: pytest.LogCaptureFixture) -> None:
    """Tables that are held ask nobody once they are proven, so nobody says that it is over."""
    clock = Clock()
    trouble = Trouble("t", clock)
    for _ in range(2):
        trouble.occurs("away")
        clock.now += CALM + 1
    assert [record.message for record in caplog.records] == ["cannot say of=t reason=away"] * 2
