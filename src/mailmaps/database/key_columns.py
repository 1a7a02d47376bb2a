"""Which keys a query can know: the values of the columns that it compares with `%s`, `%u` or `%d`.

PostgreSQL's planner says which columns these are (EXPLAIN VERBOSE names relation and column, through joins
and views), for a key that nobody has. A column inside a function other than lower() is not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from mailmaps.database import places
from mailmaps.database.connect import ConnectError, connect_to_first, reason
from mailmaps.database.statements import literal_text
from mailmaps.maps import template

if TYPE_CHECKING:
    from mailmaps.config.settings import Database
    from mailmaps.database.connect import Connection
    from mailmaps.maps.pgsql_cf import CfTable

_SENTINELS = {"s": "mailmaps-s@mailmaps.invalid", "u": "mailmaps-u", "d": "mailmaps-d.invalid"}
_NAME = r'(?:"((?:[^"]|"")+)"|(\w+))'
_COMPARED = re.compile(rf"(?:lower)?\(*(?:{_NAME}\.){_NAME}\)*(?:::[\w \"]+)?\)* = '(mailmaps-[^']*)'")
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter")


class KeysUnknown(Exception):
    """The keys cannot be listed; the text says why."""


class Column(NamedTuple):
    """A column that is compared with the code (`s`, `u`, `d`) of a query."""

    code: str
    schema: str
    relation: str
    name: str


async def values(table: CfTable, database: Database, limit: int) -> Mapping[str, list[str]]:
    """The values of each code, at most `limit` of each column. Raises `KeysUnknown`."""
    try:
        connection = await connect_to_first(places.hosts(table.place), database, None)
    except ConnectError as error:
        raise KeysUnknown(str(error)) from None
    try:
        columns = await compared(connection, table)
        found: dict[str, list[str]] = {}
        for column in columns:
            found.setdefault(column.code, []).extend(await _distinct(connection, column, limit))
        return found
    except asyncpg.PostgresError as error:
        raise KeysUnknown(reason(error)) from None
    finally:
        await connection.close(timeout=database.connect_timeout)


async def compared(connection: Connection, table: CfTable) -> list[Column]:
    """The columns that the query compares with a code. Raises `asyncpg.PostgresError`."""
    parts = {code: _SENTINELS.get(code.lower(), "mailmaps") for code in template.CODES}
    literals = [template.expand(value, parts) for value in table.query.values]
    text = f"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) {literal_text(table.query, literals)}"
    plan = json.loads(await connection.fetchval(text))
    return list(dict.fromkeys(column for node in _nodes(plan[0]["Plan"]) for column in _columns(node)))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _columns(node: dict[str, Any]) -> Iterator[Column]:
    if "Relation Name" not in node:
        return
    codes = {sentinel: code for code, sentinel in _SENTINELS.items()}
    for condition in _CONDITIONS:
        for match in _COMPARED.finditer(node.get(condition, "")):
            alias, name = match[1] or match[2], match[3] or match[4]
            if alias.replace('""', '"') == node["Alias"] and match[5] in codes:
                yield Column(codes[match[5]], node["Schema"], node["Relation Name"], name.replace('""', '"'))


async def _distinct(connection: Connection, column: Column, limit: int) -> list[str]:
    schema, relation, name = (f'"{part.replace(chr(34), chr(34) * 2)}"' for part in column[1:])
    rows = await connection.fetch(
        f"SELECT DISTINCT {name}::text FROM {schema}.{relation} WHERE {name} IS NOT NULL LIMIT {limit:d}"  # noqa: S608  # quoted
    )
    return [row[0] for row in rows]
