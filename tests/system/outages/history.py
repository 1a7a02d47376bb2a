"""What was true when, and whether an answer was.

Contract: writers note every state of a (table, key) with the time just before and just after its commit;
askers note every reply with the time of question and answer. An answer is right if it was true at some moment
from `patience` seconds before the question to its arrival:

    commit of A ...... commit of B ..|.. patience ..| question | answer      only B, and what came later

`Unavailable` claims nothing and is always right here. While a trouble lasts (`Trouble`), the answers it
names may be as old as its beginning, less `patience`. Times are `time.monotonic()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from mailmaps.maps.answer import Answer, Found, NotFound, Unavailable


class Place(NamedTuple):
    """One key of one table."""

    table: str
    key: str


class Reply(NamedTuple):
    """One question, and what was answered."""

    place: Place
    asked: float
    answered: float
    answer: Answer


class State(NamedTuple):
    """What one commit made true; the commit happened between the two moments."""

    answer: Answer
    begun: float
    ended: float


@dataclass
class Trouble:
    """From when to when the kinds of answers in `stale` may be old."""

    stale: tuple[type[Found] | type[NotFound], ...]
    begun: float
    ended: float = inf


@dataclass
class History:
    """The states of every key that a test speaks of, in the order of their commits."""

    patience: float
    states: dict[Place, list[State]] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)

    def note(self, answers: Mapping[Place, Answer], begun: float, ended: float) -> None:
        """One commit; of each place alone, commits are noted in their order."""
        for place, answer in answers.items():
            states = self.states.setdefault(place, [])
            if not states or states[-1].answer != answer:
                states.append(State(answer, begun, ended))

    def last(self, place: Place) -> Answer:
        return self.states[place][-1].answer

    def wrong(self, replies: Iterable[Reply]) -> list[str]:
        """A line for each reply that was not right."""
        return [self._line(reply) for reply in replies if not self.is_right(reply)]

    def is_right(self, reply: Reply) -> bool:
        if isinstance(reply.answer, Unavailable):
            return True
        since = self._since(reply)
        states = self.states[reply.place]
        ends = [state.ended for state in states[1:]] + [inf]
        return any(
            state.answer == reply.answer and state.begun <= reply.answered and end >= since
            for state, end in zip(states, ends, strict=True)
        )

    def _since(self, reply: Reply) -> float:
        since = reply.asked - self.patience
        for trouble in reversed(self.troubles):
            lasted = trouble.begun <= reply.asked and since <= trouble.ended
            if lasted and isinstance(reply.answer, trouble.stale):
                since = min(since, trouble.begun - self.patience)
        return since

    def _line(self, reply: Reply) -> str:
        states = ", ".join(
            f"{state.answer} {state.begun - reply.asked:+.3f}..{state.ended - reply.asked:+.3f}"
            for state in self.states[reply.place]
        )
        took = reply.answered - reply.asked
        return f"{reply.place.table} {reply.place.key} said {reply.answer} after {took:.3f} s; true: {states}"
