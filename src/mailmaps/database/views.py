"""Rows out of views with the columns `key` and `value`: the builtin views and a site's own.

The contract of such a view: `key` folded and in external form, `value` one target a row, NULL for a
key that is known and answers nothing (docs/schema.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from mailmaps.maps.address import is_well_formed
from mailmaps.maps.sources import Rows

if TYPE_CHECKING:
    import asyncpg


class Queries(Protocol):
    """What a view source needs of `mailmaps.database.pool.Pool`."""

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a query. Raises `CannotSay`."""


class ViewSource:
    """One view as a `mailmaps.maps.sources.Source`, which takes all candidates at once.

    `replace` gives for a value as the view has it the value to answer (the builtin transport table has
    "virtual:" where our own delivery is meant).
    """

    one_by_one = False
    exactly = False
    volatile = False

    def __init__(
        self,
        queries: Queries,
        view: str,
        *,
        name: str,
        bare_keys: bool,
        replace: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.bare_keys = bare_keys
        self._queries = queries
        self._replace = replace or {}
        self._list = f"SELECT key::text, value::text FROM {quote_name(view)}"  # noqa: S608  # quoted
        self._ask = self._list + " WHERE key = ANY($1::text[])"

    def known(self, candidates: Sequence[str]) -> Rows | None:
        """Nothing is known without asking."""
        return None

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """All candidates in one statement. Raises `CannotSay`.

        Ill-formed UTF-8 (smtputf8_enable = no lets it through) stands in no row.
        """
        asked = [key for key in candidates if is_well_formed(key)]
        return self._rows(await self._queries.fetch(self._ask, asked)) if asked else {}

    async def list_rows(self) -> Rows:
        """Every row of the view. Raises `CannotSay`."""
        return self._rows(await self._queries.fetch(self._list))

    def _rows(self, records: Iterable[asyncpg.Record]) -> Rows:
        values: dict[str, set[str]] = {}
        for key, value in records:
            if key is not None:
                found = values.setdefault(key, set())
                if value:
                    found.add(self._replace.get(value, value))
        return {key: tuple(sorted(found)) for key, found in values.items()}


def quote_name(dotted: str) -> str:
    """Quote `schema.name` as SQL identifiers."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in dotted.split("."))
