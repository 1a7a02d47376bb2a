"""Where the rows of a table come from, as the lookup sees it.

Rows map a candidate key to its values. A key that is missing is not known here and the search goes
on; a key with no values (`()`) is known and answers nothing: the search ends there, not found.

Of what sources are, a name tells: `builtin`, `view:SCHEMA.NAME`, `pgsql:FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

Rows = Mapping[str, tuple[str, ...]]


def view_of(table: str, source: str) -> str:
    """The view (schema.name) that a source of the settings stands for."""
    return f"mailmaps.{table}" if source == "builtin" else source.removeprefix("view:")


class Source(Protocol):
    """One source of one table.

    Whoever implements it may answer from memory (`known`) or must ask (`fetch`); both speak of
    candidate keys, folded where Postfix folds them, and never of how they were found.
    """

    @property
    def name(self) -> str:
        """The source as the settings spell it."""

    @property
    def bare_keys(self) -> bool:
        """Whether a key without `@` may be asked even where the table's kind says it means nothing."""

    @property
    def one_by_one(self) -> bool:
        """Whether each candidate is a query of its own, so that none is asked before it is needed."""

    @property
    def exactly(self) -> bool:
        """Whether its rows mean to the letter what Postfix makes of them, wherever that leads."""

    @property
    def volatile(self) -> bool:
        """Whether its answers change with time alone."""

    def known(self, candidates: Sequence[str]) -> Rows | None:
        """Answer from memory and without waiting, or None when the source has to be asked."""

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """Ask for all candidates at once. Raises `CannotSay` when nobody can answer now."""
