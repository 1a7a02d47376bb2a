"""Counts the SQL statements that mailmaps sends, out of the server's own log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.dataset import Cluster
from mailmaps.demo.site import READER

# log_line_prefix is the role and a blank; log_statement writes "statement: SELECT..." for the simple protocol
# and "execute NAME: SELECT..." for the extended one.
# Further lines of a statement begin with a tab.
_STATEMENT = re.compile(rf"^{READER} LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", re.MULTILINE)

_HEARTBEAT = re.compile(r"\bNOTIFY\b|\bpg_notify\b", re.IGNORECASE)

SAMPLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Statements:
    """How many statements there were, by their first line."""

    by_text: Counter[str] = field(default_factory=Counter)

    def __sub__(self, earlier: Statements) -> Statements:
        return Statements(self.by_text - earlier.by_text)

    @property
    def heartbeats(self) -> int:
        return sum(count for text, count in self.by_text.items() if _HEARTBEAT.search(text))

    @property
    def others(self) -> int:
        return self.by_text.total() - self.heartbeats

    @property
    def samples(self) -> str:
        """The commonest of the others, for a note; empty when there are none."""
        others = Counter({text: n for text, n in self.by_text.items() if not _HEARTBEAT.search(text)})
        return "".join(f"; {count} x {text[:SAMPLE_LENGTH]}" for text, count in others.most_common(3))


class Counting:
    """Reads the log as often as it is asked."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def so_far(self) -> Statements:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return Statements(Counter(_STATEMENT.findall(text)))


@contextmanager
def counted(cluster: Cluster) -> Iterator[Counting]:
    """Have every statement of connections made within logged."""
    cluster.fetch(f"ALTER ROLE {READER} SET log_statement = 'all'")
    try:
        yield Counting(cluster.log)
    finally:
        cluster.fetch(f"ALTER ROLE {READER} RESET log_statement")
