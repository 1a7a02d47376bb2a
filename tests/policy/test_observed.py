"""What was observed waits in bounded memory, and adds up."""

from __future__ import annotations

import pytest

from mailmaps.policy.observed import OTHERS, Observed


def test_what_cannot_be_written_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.policy.observed.MOST", 10)
    monkeypatch.setattr("mailmaps.policy.observed.AT_ONCE", 4)
    observed = Observed()
    for number in range(10):
        observed.note("jan", f"{number}@a.example", "192.0.2.1", "refused", "why")
    taken = observed.take()
    assert len(taken) == 4
    for number in range(10, 20):
        observed.note("jan", f"{number}@a.example", "192.0.2.1", "refused", "why")
    observed.put_back(taken)
    held = observed.held(0.0)
    assert len(held) == 11
    assert sum(times.times for times in held.values()) == 20
    assert [event.login for event in held].count(OTHERS) == 1


def test_the_same_again_is_counted() -> None:
    now = [7200.0]
    observed = Observed(lambda: now[0])
    observed.note("jan", "x@a.example", "192.0.2.1", "refused", "why")
    now[0] = 7300.0
    observed.note("jan", "x@a.example", "192.0.2.1", "refused", "why")
    ((event, times),) = observed.held(0.0).items()
    assert (event.hour, times.times, times.first, times.last) == (7200, 2, 7200.0, 7300.0)
    observed.forget(7301.0)
    assert observed.held(0.0) == {}
    assert observed.take() == {}
