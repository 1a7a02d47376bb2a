"""What is held back, and when it is said after all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from mailmaps.logs.events import COUNTED
from mailmaps.logs.repeats import BURST, COUNTED_BURST, MOST_KINDS, PERIOD, Line, Repeats


def record(text: str = "text", level: int = logging.WARNING, name: str = "m") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, (), None)


class Log:
    """What is written, on a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.repeats = Repeats()

    def say(self, one: logging.LogRecord, line: str) -> None:
        self.wait(0)
        if self.repeats.passes(one, Line(one.levelno, line), self.now):
            self.lines.append(line)

    def due(self) -> float | None:
        return self.repeats.next_at

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.lines += [line.text for line in self.repeats.over(self.now)]


def test_the_first_pass_and_the_last_is_said_with_their_number() -> None:
    log = Log()
    for number in range(BURST + 1000):
        log.say(record(), f"n={number}")
    assert log.lines == [f"n={number}" for number in range(BURST)]
    assert log.due() == PERIOD
    log.wait(PERIOD - 1)
    assert len(log.lines) == BURST
    log.wait(1)
    assert log.lines[BURST:] == [f"n={BURST + 999} repeated=1000 in=60s"]
    assert log.due() is None
    log.say(record(), "again")
    assert log.lines[-1] == "again"


def test_few_are_said_as_they_come() -> None:
    log = Log()
    for number in range(10 * BURST):
        log.say(record(), f"n={number}")
        log.wait(PERIOD / BURST)
    assert log.lines == [f"n={number}" for number in range(10 * BURST)]


def test_kinds_do_not_hide_each_other() -> None:
    log = Log()
    for number in range(BURST + 5):
        log.say(record(), f"n={number}")
    for other in (record("other"), record(level=logging.ERROR), record(name="n")):
        log.say(other, "new")
    assert log.lines[-3:] == ["new"] * 3


def test_what_people_count_is_held_back_in_a_flood_only() -> None:
    log = Log()
    one = record()
    setattr(one, COUNTED, True)
    for _ in range(COUNTED_BURST):
        log.say(one, "login")
    assert len(log.lines) == COUNTED_BURST
    assert log.due() is None
    for _ in range(7):
        log.say(one, "login")
    log.wait(PERIOD)
    assert log.lines[COUNTED_BURST:] == ["login repeated=7 in=60s"]


def _at_one_place() -> None:
    raise ValueError


def _at_another() -> None:
    raise ValueError


def test_faults_at_other_places_are_other_kinds() -> None:
    log = Log()

    def fail(how: Callable[[], None]) -> None:
        try:
            how()
        except ValueError:
            one = record(level=logging.ERROR)
            one.exc_info = sys.exc_info()
            log.say(one, how.__name__)

    for _ in range(BURST + 1):
        fail(_at_one_place)
    fail(_at_another)
    assert log.lines.count("_at_one_place") == BURST
    assert log.lines[-1] == "_at_another"


def test_the_traceback_stays_behind() -> None:
    repeats = Repeats()
    for number in range(BURST + 1):
        repeats.passes(record(), Line(logging.ERROR, f"text n={number}", "Traceback | E"), 0)
    assert list(repeats.rest()) == [Line(logging.ERROR, f"text n={BURST} repeated=1 in=60s", "Traceback | E")]


def test_texts_that_vary_take_no_memory_without_end() -> None:
    log = Log()
    for number in range(MOST_KINDS + 10 * BURST):
        log.say(record(f"text {number}"), f"{number}")
    assert len(log.lines) == MOST_KINDS + BURST
    assert len(log.repeats._kinds) == MOST_KINDS + 1
