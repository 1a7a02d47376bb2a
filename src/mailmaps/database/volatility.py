"""Tells whether a query's answer changes with time alone, so that it must not be remembered for long.

`now()` and its like are marked stable in PostgreSQL, so they are known by name; whatever is marked
volatile is looked up. They are looked for in the query and in its generic plan, which shows what the
views it reads are made of; of functions written in SQL or PL/pgSQL the source is read, one level deep.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.maps.sql_text import Statement

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# PostgreSQL manual, 9.9.5 Current Date/Time. age() of one argument counts from today.
TIME_WORDS = frozenset(
    "now current_date current_time current_timestamp localtime localtimestamp clock_timestamp "
    "statement_timestamp transaction_timestamp timeofday age pg_postmaster_start_time".split()
)
_IDENTIFIER = re.compile(r"[A-Za-z_][\w$]*")

# A statement that changes something is never the same twice.
_CHANGES = frozenset({"insert", "update", "delete", "merge", "call", "nextval", "setval"})

_NUMBER = count()  # a statement outlives a transaction that fails

_FUNCTIONS = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
  WHERE p.proname = ANY ($1::text[])
    AND (p.provolatile = 'v' AND p.proname <> ALL ($2::text[])
      OR l.lanname NOT IN ('internal', 'c')
      AND lower(p.prosrc) ~ ('\\m(' || array_to_string($2::text[], '|') || ')\\M')))
"""


async def is_volatile(connection: Connection, statement: Statement, text: str, parameters: int) -> bool:
    """`text` is the query as it is run, with `parameters` parameters."""
    words = set(statement.words)
    if statement.frozen or words & (TIME_WORDS | _CHANGES):
        return True
    words |= {word.lower() for word in _IDENTIFIER.findall(await _generic_plan(connection, text, parameters))}
    if words & TIME_WORDS:
        return True
    return bool(await connection.fetchval(_FUNCTIONS, sorted(words), sorted(TIME_WORDS)))


async def _generic_plan(connection: Connection, text: str, parameters: int) -> str:
    """The plan as text; empty where PostgreSQL gives none."""
    name = f"mailmaps_plan_{next(_NUMBER)}"
    nothing = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE {name} AS {text}")
            rows = await connection.fetch(f"EXPLAIN (VERBOSE, COSTS OFF) EXECUTE {name}{nothing}")
            await connection.execute(f"DEALLOCATE {name}")
    except asyncpg.PostgresError:
        return ""  # the words of the query have to do
    return "\n".join(row[0] for row in rows)
