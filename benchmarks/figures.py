"""Numbers as they are reported: a median with its spread, a target beside it, met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

TIMES = "x"
"""The unit of a ratio."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some measurements, the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises `statistics.StatisticsError` for no values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """A limit that the median must keep."""

    limit: float
    at_least: bool

    def is_met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def at_most(limit: float) -> Target:
    return Target(limit, at_least=False)


def at_least(limit: float) -> Target:
    return Target(limit, at_least=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, in what unit, against which target, if any."""

    what: str
    unit: str
    spread: Spread
    target: Target | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        return self.target is not None and not self.target.is_met_by(self.spread.median)


def figure(what: str, unit: str, value: float, target: Target | None = None, note: str = "") -> Figure:
    """A figure that was measured once."""
    return Figure(what, unit, Spread(value, value, value), target, note)


@dataclass(frozen=True, slots=True)
class Absolute:
    """What one peer did, for orientation only: it is another machine's number tomorrow."""

    peer: str
    unit: str
    spread: Spread


@dataclass(slots=True)
class Result:
    """What one row of the suite found. `left_out` says what could not be measured here, and why."""

    figures: list[Figure] = field(default_factory=list)
    absolutes: list[Absolute] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Take another row's findings in."""
        self.figures += other.figures
        self.absolutes += other.absolutes
        self.left_out += other.left_out
