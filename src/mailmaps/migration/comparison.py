"""Asks both sides the same keys and sorts what they say: the same, different, or one cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mailmaps.maps.answer import Answer, Found, Unavailable
from mailmaps.migration.new_side import NewSide
from mailmaps.migration.old_side import BATCH, OldSide


class Verdict(Enum):
    """How two answers to one key stand to each other; the value is the word for people."""

    SAME = "same"
    DIFFERENT = "different"
    OLD_CANNOT_SAY = "old cannot say"
    NEW_CANNOT_SAY = "new cannot say"
    NEITHER = "neither can say"


@dataclass(frozen=True, slots=True)
class Compared:
    """One key of one table, and both answers."""

    table: str
    key: str
    old: Answer
    new: Answer

    @property
    def verdict(self) -> Verdict:
        """What it comes to. That neither can say is no difference: mail waits, as it did."""
        old, new = isinstance(self.old, Unavailable), isinstance(self.new, Unavailable)
        if old and new:
            return Verdict.NEITHER
        if old or new:
            return Verdict.OLD_CANNOT_SAY if old else Verdict.NEW_CANNOT_SAY
        return Verdict.SAME if self.old == self.new else Verdict.DIFFERENT


@dataclass
class Result:
    """What a comparison found; only what is not the same is kept."""

    asked: int = 0
    found: int = 0
    differing: list[Compared] = field(default_factory=list)

    def add(self, one: Compared) -> None:
        """Count one key."""
        self.asked += 1
        self.found += isinstance(one.old, Found)
        if one.verdict is not Verdict.SAME:
            self.differing.append(one)

    def of(self, *verdicts: Verdict) -> list[Compared]:
        """The keys with one of these verdicts."""
        return [one for one in self.differing if one.verdict in verdicts]


def compare(table: str, keys: Sequence[str], old: OldSide, new: NewSide, result: Result) -> Iterator[int]:
    """Ask all keys of one table; after each batch, how many it had. Raises `PostmapError`."""
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        before = old.answers(batch)
        for key in batch:
            result.add(Compared(table, key, before[key], new.answer(key)))
        yield len(batch)


def shown(answer: Answer) -> str:
    """An answer in a word or two, on one line."""
    if isinstance(answer, Found):
        return repr(answer.value)
    return f"cannot say ({answer.reason})" if isinstance(answer, Unavailable) else "not found"
