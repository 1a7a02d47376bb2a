"""How two answers stand to each other."""

from __future__ import annotations

import pytest

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.migration.comparison import Compared, Result, Verdict, shown

AWAY = Unavailable("away")


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (Found("x"), Found("x"), Verdict.SAME),
        (NOT_FOUND, NOT_FOUND, Verdict.SAME),
        (Found("x"), Found("X"), Verdict.DIFFERENT),
        (Found("x"), NOT_FOUND, Verdict.DIFFERENT),
        (NOT_FOUND, Found("x"), Verdict.DIFFERENT),
        (AWAY, Found("x"), Verdict.OLD_CANNOT_SAY),
        (NOT_FOUND, AWAY, Verdict.NEW_CANNOT_SAY),
        (AWAY, Unavailable("too"), Verdict.NEITHER),
    ],
)
def test_verdict(old: Answer, new: Answer, verdict: Verdict) -> None:
    assert Compared("t", "k", old, new).verdict is verdict


def test_only_what_is_not_the_same_is_kept() -> None:
    result = Result()
    result.add(Compared("t", "a", Found("x"), Found("x")))
    result.add(Compared("t", "b", Found("x"), NOT_FOUND))
    result.add(Compared("t", "c", NOT_FOUND, AWAY))
    assert (result.asked, result.found, len(result.differing)) == (3, 2, 2)
    assert [one.key for one in result.of(Verdict.DIFFERENT)] == ["b"]


def test_shown() -> None:
    assert [shown(one) for one in (Found("a\nb"), NOT_FOUND, AWAY)] == [
        r"'a\nb'",
        "not found",
        "cannot say (away)",
    ]
