"""At most one mail about a subject in a period; an end is told to whom the beginning was told."""

from __future__ import annotations

from mailmaps.notices import once
from mailmaps.notices.notice import Notice, database_away, database_back, limit_reached
from mailmaps.notices.once import OnceAPeriod

HOUR = 3600.0
AWAY, BACK = database_away("mail", 5, "refused"), database_back("mail", 5)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(memory: OnceAPeriod, notice: Notice, period: float = HOUR) -> bool:
    passes = memory.passes(notice, period)
    if passes:
        memory.remember(notice)
    return passes


def a_limit(name: str) -> Notice:
    return limit_reached("login", name, 5, "messages", "a day", "defer")


def test_a_subject_is_told_once_in_its_period() -> None:
    clock = Clock()
    memory = OnceAPeriod(clock)
    assert [told(memory, a_limit("jan")), told(memory, a_limit("jan")), told(memory, a_limit("eva"))] == [
        True,
        False,
        True,
    ]
    clock.now += HOUR - 0.1
    assert not told(memory, a_limit("jan"))
    clock.now += 0.1
    assert told(memory, a_limit("jan"))
    assert not told(memory, a_limit("jan"))


def test_a_period_of_nothing_tells_all() -> None:
    memory = OnceAPeriod(Clock())
    assert all(told(memory, a_limit("jan"), 0) for _ in range(3))


def test_whoever_heard_of_an_outage_hears_of_its_end() -> None:
    clock = Clock()
    memory = OnceAPeriod(clock)
    assert told(memory, AWAY)
    clock.now += HOUR - 60
    assert told(memory, BACK)
    assert [told(memory, AWAY), told(memory, BACK)] == [False, False]  # neither of a short one in between
    clock.now += 61
    assert [told(memory, AWAY), told(memory, BACK), told(memory, BACK)] == [True, True, False]


def test_the_one_told_longest_ago_goes_first() -> None:
    clock = Clock()
    memory = OnceAPeriod(clock)
    memory.remember(a_limit("jan"))
    memory.remember(a_limit("eva"))
    clock.now += HOUR
    memory.remember(a_limit("jan"))  # told again: not the oldest any more
    for number in range(once.MOST - 1):
        memory.remember(a_limit(str(number)))
    assert not memory.passes(a_limit("jan"), HOUR)


def test_a_flood_of_names_costs_bounded_memory() -> None:
    memory = OnceAPeriod(Clock())
    told(memory, a_limit("first"))
    for number in range(once.MOST - 1):
        memory.remember(a_limit(str(number)))
    assert not memory.passes(a_limit("first"), HOUR)
    memory.remember(a_limit("one more"))
    assert memory.passes(a_limit("first"), HOUR)
    assert not memory.passes(a_limit("0"), HOUR)
