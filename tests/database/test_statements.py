"""How a query is run: bound wherever that means the same, written out where it does not, and never open."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Connection, Database

from mailmaps.database.statements import Plan, UnsafeQuery, literal_text, plan, quote_literal
from mailmaps.maps.sql_text import split
from mailmaps.maps.template import expand

pytestmark = pytest.mark.postgres

DDL = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE t (id int, k text, ci citext, e mood, u uuid, b bool, ch char(8), d date, ip inet, arr text[],
  dm email, j jsonb);
INSERT INTO t VALUES
  (1, 'a@b.c', 'A@b.C', 'happy', '00000000-0000-0000-0000-000000000001', true, 'pad', '2020-01-01',
   '10.0.0.1', '{a@b.c,x}', 'a@b.c', '{"a": 1}'),
  (2, NULL, 'x', 'sad', NULL, false, '', NULL, NULL, '{}', NULL, 'null');
CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'text ' || $1 $$;
CREATE FUNCTION f(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'int ' || $1 $$;
CREATE TYPE pair AS (a int, b text);
"""

BOUND = [
    "SELECT * FROM t WHERE id = '%u'",
    "SELECT k FROM t WHERE ci = '%s'",
    "SELECT k FROM t WHERE e = '%u'",
    "SELECT k FROM t WHERE u = '%s'",
    "SELECT k FROM t WHERE b = '%u'",
    "SELECT k FROM t WHERE ch = '%u'",
    "SELECT k FROM t WHERE dm = '%s'",
    "SELECT k FROM t WHERE ip <<= '%s'",
    "SELECT k FROM t WHERE j @> '%s'",
    "SELECT '%s', id FROM t ORDER BY 2",
    "SELECT f('%s')",
    "SELECT concat('%u', id, '@%d') FROM t",
    "SELECT format('%%s %%s', '%u', '%s')",
    "SELECT CASE WHEN '%u' = 'a' THEN '%s' ELSE k END FROM t",
    "SELECT k FROM t WHERE '%s' LIKE k",
    "SELECT k FROM t WHERE '%s' = ANY (arr)",
    "SELECT '%u' UNION SELECT k FROM t WHERE id = 1 ORDER BY 1",
    "SELECT coalesce(NULL, '%u')",
    "SELECT id FROM t WHERE '%u' IS NOT NULL AND id IN ('%u', '1')",
    "SELECT '%u'::int + id FROM t",
]
LITERAL = [
    "SELECT k FROM t WHERE d <= date '%s'",
    "SELECT k FROM t WHERE d < 'now' AND k = '%s'",
    "SELECT k FROM t WHERE arr = '%s'",
    "SELECT interval '%u'",
    "SELECT k FROM t WHERE d = ANY ('%s')",
]
UNSAMPLED = ["SELECT '%s'::pair", "SELECT 1 WHERE int4range(1, 2) = '%s'"]
KEYS = [
    *("a@b.c", "A@B.C", "1@x", "2", "happy@x", "true", "pad@x", "10.0.0.0/8", '{"a": 1}', "2020-01-01", "{}"),
    *(
        "00000000-0000-0000-0000-000000000001",
        "o'brien@x",
        "back\\slash",
        "%",
        "",
        " ",
        "(1,a@b.c)",
        "ü@é",
        "' --",
    ),
]


async def outcome(connection: Connection, text: str, *values: str) -> Sequence[object] | str:
    """The rows in text form, or the class of the error."""
    try:
        return [tuple(row) for row in await connection.fetch(text, *values)]
    except asyncpg.DataError:
        return "22"
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)


async def compare(connection: Connection, how: Plan) -> None:
    for schema, name in how.types:
        await connection.set_type_codec(name, schema=schema, encoder=str, decoder=str, format="text")
    for key in KEYS:
        user, _, domain = key.rpartition("@")
        parts = {"s": key, "u": user or key, "d": domain}
        values = [expand(value, parts) for value in how.statement.values]
        by_values = await outcome(connection, literal_text(how.statement, values))
        by_binding = await outcome(connection, how.text(values), *values)
        if by_values != "22" and not (isinstance(by_values, str) and by_values.startswith("22")):
            assert by_binding == by_values, key
        else:
            assert isinstance(by_binding, str), key


@pytest.mark.parametrize("query", BOUND)
async def test_bound_values_mean_what_literals_mean(empty_database: Database, query: str) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    how = await plan(connection, split(query))
    assert how.bound is not None
    if not how.columns:  # arrays would come as lists from one and as text from the other
        await compare(connection, how)


async def test_where_that_cannot_be_the_values_are_written_out(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    assert {query: (await plan(connection, split(query))).bound for query in LITERAL} == dict.fromkeys(
        LITERAL
    )


@pytest.mark.parametrize("query", UNSAMPLED)
async def test_types_whose_literals_no_sample_is(empty_database: Database, query: str) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    assert (await plan(connection, split(query))).bound is None


# Where no sample can be a value, that is not the query's fault, whatever the error is called.
@pytest.mark.parametrize(
    "query",
    [
        "SELECT '%u'::regclass",
        "SELECT nextval('%u')",
        "SELECT id FROM t WHERE j @? '%s'",
        "SELECT l FROM l WHERE l @> '%s'",
        "SELECT l FROM l WHERE l ~ '%s'",
        "SELECT h -> 'a' FROM l WHERE h @> '%s'",
    ],
)
async def test_samples_that_are_refused_as_syntax(empty_database: Database, query: str) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    await connection.execute(
        "CREATE EXTENSION ltree; CREATE EXTENSION hstore; CREATE TABLE l (l ltree, h hstore)"
    )
    assert await plan(connection, split(query))


async def test_arrays_rows_and_void_come_in_their_output_form(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    how = await plan(connection, split("SELECT arr, ROW(id, k), NULL::text[], id FROM t ORDER BY id"))
    assert [tuple(row) for row in await connection.fetch(how.text([]))] == [
        ("{a@b.c,x}", "(1,a@b.c)", "", "1"),
        ("{}", "(2,)", "", "2"),
    ]


@pytest.mark.parametrize("query", ["SELECT nope FROM t", "SELECT k FROM nope WHERE k = '%s'", "SELEC '%s'"])
async def test_a_query_that_postgresql_refuses_is_no_plan(empty_database: Database, query: str) -> None:
    await empty_database.connection.execute(DDL)
    with pytest.raises(asyncpg.PostgresError):
        await plan(empty_database.connection, split(query))


def test_quoting() -> None:
    assert quote_literal("it's") == "'it''s'"
    assert quote_literal("a\\'") == "E'a\\\\'''"


# No NUL, which no key holds, and no lone surrogates, which are no characters.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
nasty = st.text(alphabet="'\\\"%$-/*;\n\rnx0E ;\u2019é", max_size=30)
QUERIES = [
    "SELECT '%s'",
    "SELECT E'\\\\%s\\''",
    "SELECT 'a''%s'",
    "SELECT /* ' */ '%s' -- '",
    "SELECT text'%s'",
]
AROUND = {"SELECT E'\\\\%s\\''": ("\\", "'"), "SELECT 'a''%s'": ("a'", "")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=texts | nasty, query=st.sampled_from(QUERIES), conforming=st.sampled_from(["on", "off"]))
async def test_a_value_never_leaves_its_literal(
    empty_database: Database, value: str, query: str, conforming: str
) -> None:
    statement = split(query)
    values = [expand(literal, {"s": value}) for literal in statement.values]
    connection = empty_database.connection
    await connection.execute(f"SET standard_conforming_strings = {conforming}")
    before, after = AROUND.get(query, ("", ""))
    assert await connection.fetchval(literal_text(statement, values)) == before + value + after


async def test_a_backslash_that_the_server_reads_otherwise_is_refused(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    query = split("SELECT '\\', '%s'")
    assert (await plan(connection, query)).bound is not None
    await connection.execute("SET standard_conforming_strings = off")
    with pytest.raises(UnsafeQuery, match="a backslash in quotes"):
        await plan(connection, query)
    assert (await plan(connection, split("SELECT E'\\\\', '%s'"))).bound is not None
