"""What is said of one folder or one box: what is there, what should be, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What becomes of a finding. `NOTE` is for reading only; all others but `DONE` leave something open."""

    TODO = "to do"
    DONE = "done"
    LEFT = "left alone"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Action:
    """One line: `path` is below the base (empty: the base itself), `found` what is there, `wanted` the rest.

    `closes`: the folder is one that only root, or its owner, may write now, so that virtual(8) makes no box
    in it.
    """

    state: State
    path: str
    found: str
    wanted: str = ""
    closes: bool = False

    @staticmethod
    def failed(path: str, error: OSError) -> Action:
        """What the system refused."""
        return Action(State.FAILED, path, error.strerror or str(error))

    def __str__(self) -> str:
        """The line, with nothing in it that a terminal would obey."""
        text = f"{self.state.value}: {self.path or 'the base'}: {self.found}"
        return visible(f"{text} -> {self.wanted}" if self.wanted else text)


def visible(text: str) -> str:
    """`text` on one line, what is not printable written as Python writes it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
