"""Which answers change with time alone, and that none is frozen at the time its query was prepared."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests import cf_site
from tests.conftest import Database

from mailmaps.database.statements import plan
from mailmaps.maps.sql_text import split

pytestmark = pytest.mark.postgres

DDL = """
CREATE TABLE t (k text, v text, ends timestamptz DEFAULT 'infinity', day date);
INSERT INTO t VALUES ('a', 'b');
CREATE VIEW current AS SELECT * FROM t WHERE ends > now();
CREATE VIEW stacked AS SELECT * FROM current;
CREATE VIEW by_date AS SELECT * FROM t WHERE day = CURRENT_DATE;
CREATE VIEW calm AS SELECT * FROM t WHERE ends > '2020-01-01';
CREATE FUNCTION inlined(x text) RETURNS SETOF text STABLE LANGUAGE sql
  AS $$ SELECT v FROM t WHERE k = x AND ends > now() $$;
CREATE FUNCTION procedural(x text) RETURNS text STABLE LANGUAGE plpgsql
  AS $$ BEGIN RETURN (SELECT v FROM t WHERE k = x AND ends > CURRENT_TIMESTAMP); END $$;
CREATE FUNCTION careless(x text) RETURNS text LANGUAGE sql AS $$ SELECT x $$;
CREATE FUNCTION quiet(x text) RETURNS text STABLE LANGUAGE plpgsql
  AS $$ BEGIN RETURN (SELECT v FROM t WHERE k = x); END $$;
CREATE SEQUENCE s;
"""

VOLATILE = [
    "SELECT v FROM t WHERE k = '%s' AND ends > now()",
    "SELECT v FROM t WHERE k = '%s' AND ends > Current_Timestamp",
    "SELECT v FROM t WHERE k = '%s' AND ends > 'now'",
    "SELECT v FROM t WHERE k = '%s' AND day = 'today'::date",
    "SELECT v FROM current WHERE k = '%s'",
    "SELECT v FROM stacked WHERE k = '%s'",
    "SELECT v FROM by_date WHERE k = '%s'",
    "SELECT inlined('%s')",
    "SELECT procedural('%s')",
    "SELECT careless('%s')",
    "SELECT random() WHERE '%s' <> ''",
    "SELECT pg_catalog.clock_timestamp()",
    "SELECT nextval('s')",
    "UPDATE t SET v = v WHERE k = '%s' RETURNING v",
    "WITH gone AS (DELETE FROM t WHERE k = '%s' RETURNING v) SELECT v FROM gone",
]
CALM = [
    "SELECT v FROM t WHERE k = '%s'",
    "SELECT v FROM t WHERE k = '%s' AND ends > '2020-01-01'",
    "SELECT v FROM calm WHERE k = '%s'",
    "SELECT quiet('%s')",
    "SELECT lower(v) || coalesce('%s', '') FROM t",
    "SELECT v FROM t WHERE arr = '%s'",
    "SELECT date '%s'",
]


async def test_what_changes_with_time_is_known(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    assert [query for query in VOLATILE if not (await plan(connection, split(query))).volatile] == []


async def test_what_does_not_is_remembered(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    await connection.execute("ALTER TABLE t ADD arr text[]")
    assert [query for query in CALM if (await plan(connection, split(query))).volatile] == []


async def test_planning_changes_nothing(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    for query in VOLATILE:
        await plan(connection, split(query))
    assert await connection.fetchval("SELECT nextval('s')") == 1
    assert await connection.fetchval("SELECT count(*) FROM t") == 1
    assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE from_sql") == 0


@pytest.mark.parametrize(
    "now",
    [
        "now()",
        "'now'::timestamptz",
        "timestamptz 'now'",
        "'Now'::timestamptz",
        "E'now'::timestamptz",
        "CAST('now' AS timestamptz)",
        "'%s'::timestamptz",
        "timestamptz '%s'",
        "(SELECT max(x) FROM (VALUES ('%s'::timestamptz)) AS y (x))",
    ],
)
async def test_two_questions_are_two_times(empty_database: Database, tmp_path: Path, now: str) -> None:
    """Also where `now` is the key itself: a literal is read at each question."""
    async with cf_site.source(tmp_path, empty_database.dsn, f"SELECT {now}, '%s'") as source:
        first = await cf_site.value(source, "now")
        await asyncio.sleep(0.01)
        assert await cf_site.value(source, "now") not in (first, "?")


async def test_an_answer_that_changes_has_a_short_life(empty_database: Database, tmp_path: Path) -> None:
    await empty_database.connection.execute(DDL)
    async with cf_site.source(tmp_path, empty_database.dsn, "SELECT inlined('%s')") as source:
        assert source.volatile
    async with cf_site.source(tmp_path, empty_database.dsn, "SELECT quiet('%s')") as source:
        assert not source.volatile
