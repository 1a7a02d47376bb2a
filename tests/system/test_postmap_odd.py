"""What `postmap -q` answers, and we, where the server, the key or the query is out of the ordinary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.cf_site import login
from tests.conftest import Database, new_database
from tests.system.postmap_keys import mail_keys
from tests.system.postmap_tool import Postmap, ask, differences, our_reading

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

DDL = """
CREATE TABLE t (k text, v text, a text[], n int, ts timestamptz, iv interval, b bytea, m money);
INSERT INTO t VALUES ('a@one.test', 'box', '{x,y}', 7, '2020-02-29 12:00+00', '1 day 2:03', '\\x00ff', 1.5),
  (E'back\\\\slash@one.test', E'v\\\\', '{}', 0, NULL, '1 mon', 'abc', 0);
CREATE TABLE lines AS SELECT E'line\\nfeed@one.test' AS k, E'two\\nlines' AS v;
CREATE FUNCTION complain(text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN IF $1 LIKE 'a@%' THEN RAISE EXCEPTION 'no'; END IF; RETURN $1; END $$;
CREATE FUNCTION pair(text) RETURNS record LANGUAGE sql AS $$ SELECT $1, 1 $$;
"""


@pytest.fixture(scope="module")
def postmap() -> Iterator[Postmap]:
    with Postmap() as postmap:
        yield postmap


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with new_database(postgres) as database:
        await database.connection.execute(DDL)
        yield database


def _file(postmap: Postmap, database: Database, name: str, query: str) -> str:
    text = f"{login(database.dsn)}query = {query}\n"
    return f"pgsql:{postmap.write(f'{name}.cf', text)}"


async def test_keys_and_values_with_line_feeds(postmap: Postmap, database: Database) -> None:
    name = _file(postmap, database, "feed", "SELECT v, '%u' FROM lines WHERE k = '%s'")
    async with our_reading(postmap, [name]) as sources:
        for key in (b"line\nfeed@one.test", b"line\nfeed@two.test", b"\n", b"a@one.test\n"):
            assert await ask(sources[name], key) == await asyncio.to_thread(postmap.one, name, key)


async def test_bytes_that_are_no_utf_8_when_smtputf8_is_off(database: Database) -> None:
    """Every byte is a LATIN1 character then, in keys and in values."""
    asked = [bytes([byte]) + b"@one.test" for byte in range(1, 256) if byte != 0x0A] + mail_keys(7, 600)
    with Postmap(smtputf8=False) as postmap:
        names = {
            _file(postmap, database, f"raw{number}", query): asked
            for number, query in enumerate(
                ("SELECT '%s', v FROM t", "SELECT upper('%u')", "SELECT length('%u'), chr(233), 'x%D'")
            )
        }
        assert await differences(postmap, names) == []


QUERIES = {
    "complaint": "SELECT complain('%s')",
    "record": "SELECT pair('%s')",
    "no_columns": "SELECT FROM t WHERE k = '%s'",
    "show": "SHOW server_encoding",
    "table": "TABLE t",
    "zero": "SELECT 1 / (length('%u') - 1)",
    "for_update": "SELECT a FROM t WHERE k = '%s' FOR UPDATE",
    "order_of_arrays": "SELECT a, k FROM t WHERE n IS NOT NULL ORDER BY n DESC",
    "update_scalar": "UPDATE t SET n = n WHERE k = '%s' RETURNING v, n",
    "unicode_literal": "SELECT U&'d\\0061t' || '%u', B'10', X'1F', \"v\" FROM t AS \"T%%\"",
    "dollar_quotes": "SELECT $$it's$$ || '%u' || $x$ '' $x$, k$ FROM (SELECT 1 AS k$) AS x",
    "operators": "SELECT -n, @ -1, 2 ^ 3, '%u' || $$%%$$ FROM t WHERE k = '%s' AND 4 <> - - 5",
    "escape_clause": "SELECT k FROM t WHERE k LIKE '%u!%%%%' ESCAPE '!'",
    "nested": "SELECT (SELECT '%u'), (SELECT v FROM t WHERE k = '%s'), ARRAY(SELECT '%d')",
    "in_a_function": "SELECT string_agg(v || '%u', ',' ORDER BY k) FROM t WHERE k = '%s'",
    "lateral": "SELECT x FROM t, LATERAL (SELECT '%u' || n AS x) AS y WHERE n > 0",
    "window": "SELECT lag('%u') OVER (ORDER BY k) FROM t",
    "folded": "SELECT v FROM t WHERE k = 'none' AND n = '%u'::text::int",
    "having": "SELECT count(*) FROM t HAVING '%u' <> 'a'",
    "distinct_on": "SELECT DISTINCT ON (v) v FROM t WHERE '%s' <> v ORDER BY v",
    "recursive": "WITH RECURSIVE r AS (SELECT 1 AS i, '%u' AS x UNION ALL SELECT i + 1, x FROM r WHERE i < 3)"
    " SELECT * FROM r",
}

ASKED = [b"a@one.test", b"back\\slash@one.test", b"ab@one.test", b"x", b"'", b"@one.test"]


async def test_odd_queries(postmap: Postmap, database: Database) -> None:
    files = {_file(postmap, database, f"q_{name}", query): ASKED for name, query in QUERIES.items()}
    assert await differences(postmap, files) == []


SERVER_SETTINGS = {
    "datestyle": "SELECT ts, iv, b, m FROM t WHERE k = '%s'",
    "backslashes": "SELECT '%u', v FROM t WHERE k = '%s'",
    "null_equals": "SELECT 'x' WHERE '%s' = NULL",
}


async def test_what_the_server_is_set_to_is_the_same_for_both(postmap: Postmap, database: Database) -> None:
    await database.connection.execute(
        f"ALTER DATABASE {database.name} SET datestyle = 'German';"
        f"ALTER DATABASE {database.name} SET timezone = 'Asia/Kolkata';"
        f"ALTER DATABASE {database.name} SET intervalstyle = 'iso_8601';"
        f"ALTER DATABASE {database.name} SET bytea_output = 'escape';"
        f"ALTER DATABASE {database.name} SET standard_conforming_strings = off"
    )
    try:
        keys = [key for key in mail_keys(3, 500) if key]
        files = {_file(postmap, database, f"s_{n}", query): keys for n, query in SERVER_SETTINGS.items()}
        assert await differences(postmap, files) == []
    finally:
        await database.connection.execute(f"ALTER DATABASE {database.name} RESET ALL")


# Easily answered otherwise than Postfix answers it.
EASILY_MISREAD = {
    "ordinal": "SELECT v FROM t ORDER BY '%s'",  # no constant may stand there
    "grouping": "SELECT '%u', count(*) FROM t GROUP BY '%u'",  # nor here
    "returning_array": "UPDATE t SET n = n WHERE k = '%s' RETURNING a",  # no subquery
    "latin1_file": "SELECT 'caf\udce9' || v FROM t WHERE k = '%s'",
}


@pytest.mark.parametrize("name", EASILY_MISREAD)
async def test_what_is_easily_misread(postmap: Postmap, database: Database, name: str) -> None:
    text = f"{login(database.dsn)}query = {EASILY_MISREAD[name]}\n".encode(errors="surrogateescape")
    file = f"pgsql:{postmap.write(f'x_{name}.cf', text)}"
    assert await differences(postmap, {file: ASKED}) == []


@pytest.mark.parametrize("query", ["SELECT v FROM t WHERE k = '%s'", "SELECT v FROM t WHERE n = '%s'"])
async def test_the_empty_key(postmap: Postmap, database: Database, query: str) -> None:
    """db_common_expand() passes over an empty key before anything else."""
    await database.connection.execute("INSERT INTO t (k, v) VALUES ('', 'nobody')")
    name = _file(postmap, database, "empty", query)
    async with our_reading(postmap, [name]) as sources:
        assert await ask(sources[name], b"") == await asyncio.to_thread(postmap.one, name, b"")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_databases_in_other_encodings(
    postmap: Postmap, postgres: EmbeddedPostgres, encoding: str
) -> None:
    """With SQL_ASCII the server converts nothing, so that LATIN1 means "as it is"."""
    options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'"
    async with new_database(postgres, options) as other:
        await other.connection.execute("CREATE TABLE t (k text, v text)")
        await other.connection.execute("INSERT INTO t VALUES ('a@one.test', 'x'), ('ü@one.test', 'ü')")
        name = _file(postmap, other, f"encoding_{encoding}", "SELECT v FROM t WHERE k = '%s'")
        assert await differences(postmap, {name: ["ü@one.test".encode(), b"a@one.test", b"none"]}) == []
