"""Counting foreign senders, against a plain list of everything that happened."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailmaps.notices import foreign
from mailmaps.notices.foreign import ForeignSenders
from mailmaps.notices.notice import Notice


class Clock:
    now = 50_000.0

    def __call__(self) -> float:
        return self.now


def test_the_threshold_makes_one_notice() -> None:
    counter = ForeignSenders(3, Clock())
    said = [counter.refused("jan", f"a{number}@ex.org", "192.0.2.1") for number in range(6)]
    assert [notice is not None for notice in said] == [False, False, True, False, False, False]
    assert said[2] is not None
    assert said[2].title == "jan sends as others (3 times within an hour)"
    assert "  from <a0@ex.org>, client 192.0.2.1" in said[2].lines


def test_logins_do_not_count_for_each_other() -> None:
    counter = ForeignSenders(2, Clock())
    assert counter.refused("jan", "a@ex.org", "::1") is None
    assert counter.refused("eva", "a@ex.org", "::1") is None
    assert counter.refused("eva", "a@ex.org", "::1") is not None


def test_after_an_hour_it_is_said_again_with_the_count_of_that_hour() -> None:
    clock = Clock()
    counter = ForeignSenders(2, clock)
    counter.refused("jan", "a@ex.org", "::1")
    assert counter.refused("jan", "a@ex.org", "::1") is not None
    clock.now += 1800
    for _ in range(4):
        assert counter.refused("jan", "a@ex.org", "::1") is None
    clock.now += 1800
    notice = counter.refused("jan", "b@ex.org", "::1")
    assert notice is not None
    assert "(5 times within an hour)" in notice.title


def test_five_examples_are_kept_the_last_ones() -> None:
    counter = ForeignSenders(8, Clock())
    notice = [counter.refused("jan", f"a{number}@ex.org", "::1") for number in range(8)][-1]
    assert isinstance(notice, Notice)
    examples = [line for line in notice.lines if line.startswith("  from ")]
    assert examples == [f"  from <a{number}@ex.org>, client ::1" for number in range(3, 8)]


def test_nothing_is_counted_with_a_threshold_of_nothing() -> None:
    counter = ForeignSenders(0, Clock())
    assert counter.refused("jan", "a@ex.org", "::1") is None
    assert len(counter) == 0


def test_the_oldest_login_goes() -> None:
    counter = ForeignSenders(2, Clock())
    counter.refused("first", "a@ex.org", "::1")
    counter.refused("second", "a@ex.org", "::1")
    for number in range(foreign.MOST_LOGINS - 2):
        counter.refused(str(number), "a@ex.org", "::1")
    counter.refused("third", "a@ex.org", "::1")
    assert len(counter) == foreign.MOST_LOGINS
    assert counter.refused("second", "a@ex.org", "::1") is not None
    assert counter.refused("first", "a@ex.org", "::1") is None


def test_a_login_that_goes_on_is_not_the_oldest() -> None:
    counter = ForeignSenders(3, Clock())
    counter.refused("jan", "a@ex.org", "::1")
    for number in range(foreign.MOST_LOGINS - 1):
        counter.refused(str(number), "a@ex.org", "::1")
    counter.refused("jan", "a@ex.org", "::1")
    counter.refused("one more", "a@ex.org", "::1")
    assert counter.refused("jan", "a@ex.org", "::1") is not None


@settings(deadline=None)
@given(
    threshold=st.integers(1, 6),
    pauses=st.lists(st.sampled_from([0.0, 1.0, 59.0, 61.0, 600.0, 3540.0, 3600.0, 7201.0]), max_size=80),
)
def test_it_counts_as_a_list_of_everything_does(threshold: int, pauses: list[float]) -> None:
    clock, happened = Clock(), list[int]()
    said: float | None = None
    counter = ForeignSenders(threshold, clock)
    for pause in pauses:
        clock.now += pause
        minute = int(clock.now // 60)
        happened.append(minute)
        count = sum(minute - 60 < other for other in happened)
        due = count >= threshold and (said is None or clock.now - said >= 3600)
        notice = counter.refused("jan", "a@ex.org", "::1")
        assert (notice is not None) == due
        if notice is not None:
            said = clock.now
            assert f"({count} times within an hour)" in notice.title
