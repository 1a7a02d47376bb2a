"""Decides how the query of a pgsql_table(5) file is run, so that it means what it meant to Postfix.

Postfix writes the key into the text, where it is an *untyped literal*: its type comes from what stands
around it. A parameter without a type gets its type by the same rules (PostgreSQL manual, 10), one number a
literal, so the query is prepared once and the values are bound, as text in both directions. Where
PostgreSQL wants to know more of a parameter than of a literal (`concat('%s', ...)`) it is told `text`,
which is what it makes of the literal there. Where that cannot be (`date '%s'`, `expiry > 'now'`, which a
prepared statement would answer for ever with the time it was prepared), the literals are written into the
text, quoted so that no value can end them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.database.volatility import is_volatile
from mailmaps.maps.sql_text import Statement

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement
    from asyncpg.types import Type

    from mailmaps.database.connect import Connection

    Prepared = PreparedStatement[asyncpg.Record]

# What a literal may be where only its being a literal matters: an address, or, where that is no value of
# the type, a number, a day, an array, an identifier, a network, a point, a box, a range, a hardware address.
SAMPLES = (
    "mailmaps@mailmaps.invalid",
    "1",
    "2000-01-01",
    "{}",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "(0,0)",
    "(1,1),(0,0)",
    "empty",
    "08:00:2b:01:02:03",
)

# Types whose values asyncpg hands over as text by itself.
_TEXT = {("pg_catalog", name) for name in ("text", "varchar", "bpchar", "unknown")}

# Base, enum and domain types: what a codec can be set for. Arrays, rows and pseudo-types are not, nor is
# "char" (18), which asyncpg knows as one byte.
_SCALARS = """
SELECT oid FROM pg_catalog.pg_type
WHERE oid = ANY ($1::oid[]) AND typtype IN ('b', 'e', 'd') AND typcategory <> 'A' AND oid <> 18
"""

TypeName = tuple[str, str]
"""Schema and name of a type."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a statement is run.

    `bound`: its text with `$1`, `$2`...; None where the values go into the text. `types` are those that the
    connection has to be told to exchange as text. `columns` > 0 wraps a query with arrays or rows among
    its columns, which the library would take apart. `volatile`: the answer changes with time alone.
    """

    statement: Statement
    bound: str | None
    types: frozenset[TypeName]
    columns: int
    volatile: bool

    def text(self, values: Sequence[str]) -> str:
        """The query to run; `values` are bound to it if `bound`."""
        query = literal_text(self.statement, values) if self.bound is None else self.bound
        return _wrapped(query, self.columns) if self.columns else query


class UnsafeQuery(Exception):
    """The server would end a literal somewhere else than we do."""


async def plan(connection: Connection, statement: Statement) -> Plan:
    """Try how the statement can be run.

    Raises `asyncpg.PostgresError` when PostgreSQL refuses it, `UnsafeQuery`.
    """
    if statement.backslashes and connection.get_settings().standard_conforming_strings == "off":
        raise UnsafeQuery("a backslash in quotes, and standard_conforming_strings is off; write E'...'")
    literal, why = await _literal(connection, statement)
    bound, shape = None, literal  # what shows the types of the columns
    if not statement.frozen and (text := await _bound_text(connection, statement)) is not None:
        prepared = await _prepared(connection, text)
        shape = literal or prepared
        if await _same_meaning(connection, prepared, literal):
            bound, shape = text, prepared
    if shape is None:
        raise why
    columns = [attribute.type for attribute in shape.get_attributes()]
    parameters = shape.get_parameters() if bound is not None else ()
    scalars = await _scalars(connection, [*columns, *parameters])
    return Plan(
        statement,
        bound,
        frozenset(scalars - _TEXT),
        len(columns) if any(_name(kind) not in scalars for kind in columns) else 0,
        await is_volatile(connection, statement, shape.get_query(), len(shape.get_parameters())),
    )


def literal_text(statement: Statement, values: Sequence[str]) -> str:
    """The query with the values written into it."""
    return _joined(statement, [quote_literal(value) for value in values])


def quote_literal(value: str) -> str:
    """Quote like PQescapeLiteral() of libpq: right whatever standard_conforming_strings is."""
    quoted = "'" + value.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted


def _joined(statement: Statement, places: Sequence[str]) -> str:
    # The blanks keep `date'%s'` from becoming the identifier date$1.
    parts = [f"{text} {place} " for text, place in zip(statement.texts, places, strict=False)]
    return "".join([*parts, statement.texts[-1]])


def _wrapped(query: str, columns: int) -> str:
    """Every column in its output form; format() uses the type's output function, a cast need not."""
    names = [f"c{number}" for number in range(columns)]
    outputs = ", ".join(f"pg_catalog.format('%s', {name})" for name in names)
    if _CHANGE.match(query):  # only WITH takes what changes rows
        return f"WITH q ({', '.join(names)}) AS ({query}\n) SELECT {outputs} FROM q"  # noqa: S608
    return f"SELECT {outputs} FROM ({query}\n) AS q ({', '.join(names)})"  # noqa: S608  # the site's query


_CHANGE = re.compile(r"\s*(insert|update|delete|merge)\b", re.IGNORECASE)


async def _literal(
    connection: Connection, statement: Statement
) -> tuple[Prepared | None, asyncpg.PostgresError]:
    """The first sample that can be prepared; or None, and why no sample is a value of some type.

    Raises `asyncpg.PostgresError` when it is not the sample's fault.
    """
    why = asyncpg.PostgresError("no sample fits")
    for sample in SAMPLES:
        text = literal_text(statement, [sample] * len(statement.values))
        try:
            return await _prepared(connection, text), why
        except asyncpg.PostgresError as error:
            why = error
            if not error.sqlstate.startswith("22"):
                break
    # NULL has no type of its own either, and is a value of every one: a relation that is not there (regclass)
    # or a syntax error (ltree, jsonpath) was then the sample's.
    try:
        return await _prepared(connection, _joined(statement, ["NULL"] * len(statement.values))), why
    except asyncpg.PostgresError:
        if not why.sqlstate.startswith("22"):
            raise why from None
    return None, why


async def _bound_text(connection: Connection, statement: Statement) -> str | None:
    """The text with parameters, or None where it cannot be prepared like that."""
    places = [f"${number}" for number in range(1, len(statement.values) + 1)]
    for _ in range(len(places) + 1):
        text = _joined(statement, places)
        try:
            await _prepared(connection, text)
        except asyncpg.IndeterminateDatatypeError as error:
            match = re.search(r"\$(\d+)", str(error))
            if match is None or "::" in places[int(match[1]) - 1]:
                return None
            places[int(match[1]) - 1] += "::text"
        except asyncpg.PostgresError:
            return None
        else:
            return text
    return None


async def _prepared(connection: Connection, text: str) -> Prepared:
    """Prepare without a name: behind PgBouncer a name may be another client's already."""
    return await connection.prepare(text, name="")


async def _same_meaning(connection: Connection, bound: Prepared, literal: Prepared | None) -> bool:
    """Whether the columns have the types they had with literals, and every value can be sent as text."""
    parameters = bound.get_parameters()
    if {_name(kind) for kind in parameters} - await _scalars(connection, parameters):
        return False
    if literal is None:
        return True
    return [a.type.oid for a in bound.get_attributes()] == [a.type.oid for a in literal.get_attributes()]


async def _scalars(connection: Connection, types: Sequence[Type]) -> set[TypeName]:
    found = {row[0] for row in await connection.fetch(_SCALARS, list({kind.oid for kind in types}))}
    return {_name(kind) for kind in types if kind.oid in found}


def _name(kind: Type) -> TypeName:
    return kind.schema, kind.name
