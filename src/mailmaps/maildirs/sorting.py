"""Makes boxes of rows that come in the order of their paths, and names the rows that do not go together.

In that order (of bytes) rows of one path are neighbours, and a box is followed by all that is inside it. So
a million rows pass with one path remembered.
"""

from __future__ import annotations

from mailmaps.maildirs.action import Action, State
from mailmaps.maildirs.box import Box, RefusedBox, Row, box_of, normal


class Sorter:
    """Give it all rows, ascending by the bytes of `normal(row.path)`; then `end`."""

    def __init__(self, minimum_uid: int) -> None:
        self._minimum_uid = minimum_uid
        self._same: list[Row] = []  # rows of one path, whose number is not known yet
        self._outer: tuple[str, Row] | None = None  # the last box that is in no other: its path, and a row

    def take(self, row: Row) -> list[Box | Action]:
        """What is certain with this row: boxes to look after, and refusals."""
        if self._same and normal(self._same[0].path) == normal(row.path):
            self._same.append(row)
            return []
        found = self.end()
        self._same = [row]
        return found

    def end(self) -> list[Box | Action]:
        """What the last row was waiting for."""
        rows, self._same = self._same, []
        if not rows:
            return []
        if len(rows) > 1:
            return [_conflict(rows)]
        try:
            box = box_of(rows[0], self._minimum_uid)
        except RefusedBox as error:
            return [Action(State.LEFT, rows[0].path or '""', f"{error} ({rows[0].who})")]
        return [self._placed(box, rows[0])]

    def _placed(self, box: Box, row: Row) -> Box | Action:
        path = box.path
        if self._outer is None or not path.startswith(self._outer[0]):
            if not box.is_file:
                self._outer = path, row
            return box
        outer, around = self._outer
        if (around.uid, around.gid) == (row.uid, row.gid):
            return Action(
                State.NOTE, path, f"is inside {outer} and of the same user, so virtual(8) makes it itself"
            )
        text = f"is inside {outer}, whose owner ({around.who}) could rename it ({row.who})"
        return Action(State.LEFT, path, text, "give it a path of its own")


def _conflict(rows: list[Row]) -> Action:
    claims = ", ".join(f"{row.uid}:{row.gid} ({row.who})" for row in rows)
    return Action(State.LEFT, rows[0].path, f"is the box of several owners: {claims}", "one path, one owner")
