"""What one file has to become: rows to set, rows that are no longer wanted, and whether that is too much."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field

from mailmaps.filemaps.contents import LATER
from mailmaps.filemaps.targets import MAILBOXES, Target

# Rows that are changed in place; more of them, and another file takes its place.
MOST_IN_PLACE = 100_000

# Keys that may always go, if that is not more than half of them.
FEW = 20

# Keys that may always go, if any are left or others come instead.
VERY_FEW = 5

# With these empty, all mail would be refused; so they are not even made empty.
_ESSENTIAL = ("virtual_mailbox_domains", MAILBOXES)

Row = tuple[bytes, bytes]


@dataclass(slots=True)
class Plan:
    """`sets` of rows; `is_whole`: too many to be held here. `missing` keys are in the file and not wanted.
    `darkened` keys had a value and become `LATER`. `newer` keys stay as they are, in a file that exists.
    `again` are those of `lingering` that are wanted again."""

    target: Target
    exists: bool
    newer: Collection[bytes] = ()
    lingering: Container[bytes] = ()
    is_whole: bool = False
    held: int = 0
    wanted: int = 0
    added: int = 0
    changed: int = 0
    sets: dict[bytes, bytes] = field(default_factory=dict)
    missing: list[bytes] = field(default_factory=list)
    darkened: set[bytes] = field(default_factory=set)
    again: list[bytes] = field(default_factory=list)

    def see(self, key: bytes, held: bytes | None, wanted: bytes | None) -> None:
        """Compare one row."""
        if self.exists and key in self.newer:
            return
        if wanted is not None and key in self.lingering:
            self.again.append(key)
        self.held += held is not None
        self.wanted += wanted is not None
        if wanted is None:
            if held is not None:
                self.missing.append(key)
        elif held != wanted:
            self.added += held is None
            self.changed += held is not None
            if held and wanted == LATER:
                self.darkened.add(key)
            if not self.is_whole:
                self.sets[key] = wanted
                if len(self.sets) > MOST_IN_PLACE:
                    self.is_whole = True
                    self.sets = {}

    def excess(self, rows: int, most_removed: float) -> str:
        """Why this takes too much away from a file of `rows` rows; empty if it does not."""
        name, gone = self.target.name, len(self.missing) + len(self.darkened)
        if self.target.lingers:
            return ""  # another file tells
        if not self.exists:
            return f"{name}: would be empty" if name in _ESSENTIAL and not self.wanted else ""
        if gone and gone >= rows and not self.added:
            return f"{name}: all of its {rows} keys would go"
        if gone > max(VERY_FEW, min(FEW, rows / 2), most_removed * rows):
            return f"{name}: {gone} of its {rows} keys would go"
        return ""


def merged(held: Iterable[Row], wanted: Iterable[Row]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Each key of either, ascending, with its value in both."""
    left, right = iter(held), iter(wanted)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None
            yield one[0], one[1], None
            one = next(left, None)
        elif one is None or other[0] < one[0]:
            yield other[0], None, other[1]
            other = next(right, None)
        else:
            yield one[0], one[1], other[1]
            one, other = next(left, None), next(right, None)
