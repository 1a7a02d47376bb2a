"""Rows out of views with the columns `key` and `value`: the builtin views and a site's own.

The contract of such a view: `key` folded and in external form, `value` one target a row, NULL for a
key that is known and answers nothing (docs/schema.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mailmaps.database.batch import Batch
from mailmaps.maps.address import is_well_formed
from mailmaps.maps.sources import SILENT, Recalled, Rows

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection


class Statements(Protocol):
    """What a view source needs of `mailmaps.database.pool.Pool`."""

    async def run(self, work: Callable[[Connection], Awaitable[Rows]]) -> Rows:
        """Have work done on a connection. Raises `CannotSay`, and what PostgreSQL says of the work."""


class ViewSource:
    """One view as a `mailmaps.maps.sources.Source`, which takes all candidates at once.

    `replace` gives for a value as the view has it the value to answer (the builtin transport table has
    "virtual:" where our own delivery is meant). At most `at_once` statements run at a time, for `deadline`
    seconds each.
    """

    one_by_one = False
    exactly = False
    volatile = False
    steady = False
    age = None

    def __init__(
        self,
        statements: Statements,
        view: str,
        *,
        name: str,
        bare_keys: bool,
        replace: Mapping[str, str],
        at_once: int,
        deadline: float,
    ) -> None:
        self.name = name
        self.bare_keys = bare_keys
        self._statements = statements
        self._view = view
        self._replace = replace
        self._batch = Batch(view, self._fetch, at_once=at_once, deadline=deadline)

    def known(self, key: str) -> Recalled:
        """Nothing is known without asking."""
        return SILENT

    def stale(self, key: str) -> Recalled:
        """Nor then."""
        return SILENT

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """All candidates in one statement, with what others ask now. Raises `CannotSay`.

        Ill-formed UTF-8 (smtputf8_enable = no lets it through) stands in no row.
        """
        asked = [key for key in candidates if is_well_formed(key)]
        return await self._batch.ask(asked) if asked else {}

    async def _fetch(self, keys: list[str]) -> Rows:
        return await self._statements.run(
            lambda connection: fetch_rows(connection, self._view, keys, self._replace)
        )


async def fetch_rows(
    connection: Connection, view: str, keys: Sequence[str], replace: Mapping[str, str]
) -> Rows:
    """The rows of a view (schema.name) that have these keys. Raises what asyncpg raises."""
    values: dict[str, set[str]] = {}
    for key, value in await connection.fetch(question_of(view), keys):
        if key is not None:
            found = values.setdefault(key, set())
            if value:
                found.add(replace.get(value, value))
    return {key: tuple(sorted(found)) for key, found in values.items()}


def question_of(view: str) -> str:
    """The statement that asks a view (schema.name), with the keys as its parameter."""
    return f"SELECT key::text, value::text FROM {quote_name(view)} WHERE key = ANY($1::text[])"  # noqa: S608  # quoted


def quote_name(dotted: str) -> str:
    """Quote `schema.name` as SQL identifiers."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in dotted.split("."))
