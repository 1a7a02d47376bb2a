"""Which outages are told, and when."""

from __future__ import annotations

from mailmaps.notices.away import AGAIN, AwayWatch

WHY = "connection refused"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def titles(watch: AwayWatch, **states: str | None) -> list[str]:
    return [notice.title for notice in watch.look(states)]


def test_a_long_outage_is_told_once_and_so_is_its_end() -> None:
    clock = Clock()
    watch = AwayWatch(300, clock)
    assert titles(watch, mail=None) == titles(watch, mail=WHY) == []
    clock.now += 300
    assert titles(watch, mail=WHY) == []
    clock.now += 1
    [notice] = watch.look({"mail": "too many connections"})
    assert notice.title == "The database mail has been away for 5 minutes"
    assert "  why: too many connections" in notice.lines
    clock.now += 600
    assert titles(watch, mail=WHY) == []
    assert titles(watch, mail=None) == ["The database mail is back after 15 minutes"]
    assert titles(watch, mail=None) == []


def test_a_break_begins_anew_and_a_short_outage_has_no_end_to_tell() -> None:
    clock = Clock()
    watch = AwayWatch(300, clock)
    for _ in range(5):
        assert titles(watch, mail=WHY) == []
        clock.now += 299
        assert titles(watch, mail=WHY) == titles(watch, mail=None) == []


def test_each_database_has_its_own_outage() -> None:
    clock = Clock()
    watch = AwayWatch(60, clock)
    titles(watch, mail=WHY, logins=None)
    clock.now += 61
    assert titles(watch, mail=WHY, logins=WHY) == ["The database mail has been away for 1 minute"]
    clock.now += 61
    assert titles(watch, mail=None, logins=WHY) == [
        "The database mail is back after 2 minutes",
        "The database logins has been away for 1 minute",
    ]


def test_an_outage_that_goes_on_is_told_again() -> None:
    clock = Clock()
    watch = AwayWatch(60, clock)
    titles(watch, mail=WHY)
    clock.now += 61
    assert len(titles(watch, mail=WHY)) == 1
    clock.now += AGAIN - 1
    assert titles(watch, mail=WHY) == []
    clock.now += 1
    assert titles(watch, mail=WHY) == ["The database mail has been away for 61 minutes"]


def test_a_database_that_a_reload_took_out_is_forgotten() -> None:
    clock = Clock()
    watch = AwayWatch(60, clock)
    titles(watch, mail=WHY)
    clock.now += 61
    assert len(titles(watch, mail=WHY)) == 1
    assert titles(watch) == titles(watch, mail=None) == []


def test_nothing_is_told_with_no_time_set() -> None:
    clock = Clock()
    watch = AwayWatch(0, clock)
    titles(watch, mail=WHY)
    clock.now += 86_400
    assert titles(watch, mail=WHY) == []
