"""Measures peers in interleaved rounds, since the machine is another one every minute.

A round measures every peer once, one right after the other, each round beginning with another peer. A ratio
is taken within a round; the figure is the median of these ratios. A first round is not counted: it warms the
database's and the processor's caches for all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

from benchmarks.figures import Absolute, Spread

WARM_UP = -1
"""The number of the round that does not count; the others are 0, 1, 2..."""

Measure = Callable[[int], float]
"""Measures once; is told the number of the round."""


class Measured:
    """What the rounds gave, by peer: a measurement a round."""

    def __init__(self, values: Mapping[str, list[float]], unit: str) -> None:
        self._values = values
        self._unit = unit

    def ratio(self, one: str, other: str) -> Spread:
        """`one` as so many times `other`."""
        pairs = zip(self._values[one], self._values[other], strict=True)
        return Spread.of([mine / theirs for mine, theirs in pairs])

    def __contains__(self, peer: str) -> bool:
        return peer in self._values

    def absolutes(self, title: str) -> list[Absolute]:
        """Each peer's own numbers."""
        return [
            Absolute(f"{title}: {peer}", self._unit, Spread.of(values))
            for peer, values in self._values.items()
        ]


def interleaved(peers: Mapping[str, Measure], rounds: int, unit: str) -> Measured:
    """Measure every peer `rounds` times."""
    names = list(peers)
    values: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for number in range(WARM_UP, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            value = peers[name](number)
            if number != WARM_UP:
                values[name].append(value)
    return Measured(values, unit)
