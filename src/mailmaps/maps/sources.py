"""Where the rows of a table come from, as the lookup sees it.

Rows map a candidate key to its values. A key that is missing is not known here and the search goes
on; a key with no values (`()`) is known and answers nothing: the search ends there, not found.

Of what sources are, a name tells: `builtin`, `view:SCHEMA.NAME`, `pgsql:FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Literal, Protocol

Values = tuple[str, ...]
Rows = Mapping[str, Values]


class Memory(Enum):
    """What memory says of a key, where that is no row."""

    ABSENT = "the source has no such key"
    UNSURE = "the source had no such key when it was last known"
    SILENT = "the source has to be asked"


ABSENT: Final = Memory.ABSENT
UNSURE: Final = Memory.UNSURE
SILENT: Final = Memory.SILENT
Recalled = Values | Literal[Memory.ABSENT, Memory.UNSURE, Memory.SILENT]


# The view behind smtpd_sender_login_maps has the rules beside each owner (`mailmaps.policy.ownership`).
_BUILTIN = {"smtpd_sender_login_maps": "mailmaps.sender_rights"}


def view_of(table: str, source: str) -> str:
    """The view (schema.name) that a source of the settings stands for, as the daemon asks it."""
    return _BUILTIN.get(table, f"mailmaps.{table}") if source == "builtin" else source.removeprefix("view:")


def plain_view_of(table: str, source: str) -> str:
    """The same as Postfix would ask it: what goes into a file, or into a pgsql_table(5)."""
    return f"mailmaps.{table}" if source == "builtin" else view_of(table, source)


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

    @property
    def steady(self) -> bool:
        """Whether `known` has an answer for every key, the same until a change is told."""

    @property
    def age(self) -> float | None:
        """Seconds since what is held was that of the database; None: nothing is held."""

    def known(self, key: str) -> Recalled:
        """Answer from memory and without waiting, or `SILENT` when the source has to be asked.

        `UNSURE`: it has to be asked too, unless a later candidate is found, which is then good enough.
        """

    def stale(self, key: str) -> Recalled:
        """The same when nobody can be asked now: an answer that may be out of date, if that is allowed."""

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """Ask for all candidates at once. Raises `CannotSay` when nobody can answer now."""
