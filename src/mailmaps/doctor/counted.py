"""Findings of one kind by the thousand: the first are shown, the others counted."""

from __future__ import annotations

from collections import defaultdict

from mailmaps.findings import Finding, Level

# Lines of one kind that are shown: enough to see what they have in common.
SHOWN = 5
SEE_ALL = "mailmaps check --all names each"


class Counted:
    """Collects them; of each kind no more than `most` are held (None: all)."""

    def __init__(self, most: int | None = SHOWN) -> None:
        self._most = most
        self._found: dict[tuple[Level, str, str], list[Finding]] = defaultdict(list)
        self._numbers: dict[tuple[Level, str, str], int] = defaultdict(int)

    def add(self, level: Level, subject: str, kind: str, text: str, remedy: str = "") -> None:
        """One more; those of one level, subject and kind are counted together."""
        key = (level, subject, kind)
        self._numbers[key] += 1
        if self._most is None or len(self._found[key]) < self._most:
            self._found[key].append(Finding(level, subject, text, remedy))

    def findings(self) -> list[Finding]:
        """What to print, the worst first."""
        out: list[Finding] = []
        for key in sorted(self._found, key=lambda key: -key[0]):
            out += self._found[key]
            if more := self._numbers[key] - len(self._found[key]):
                level, subject, kind = key
                out.append(Finding(level, subject, f"and {more:,} more like these ({kind})", SEE_ALL))
        return out
