"""The file around the query: how Postfix reads it, what it refuses, where it finds the server.

Read by Debian's Postfix 3.7 and by us, and asked the same keys. What Postfix dies of when it opens a table,
we refuse with file and line; what it takes we take, but for the refusals that are meant.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.cf_site import login
from tests.conftest import Database, new_database
from tests.system.postmap_tool import TROUBLE, Postmap, ask, differences, our_reading

from mailmaps.config import SettingsError
from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

QUERY = "query = SELECT v FROM t WHERE k = '%s' ORDER BY v\n"
KEYS = [
    b"a@one.test",
    b"b@two.test",
    b"x@sub.one.test",
    b"@one.test",
    b"one.test",
    b"none@one.test",
    b"A@ONE.TEST",
]


@pytest.fixture(scope="module")
def postmap() -> Iterator[Postmap]:
    with Postmap() as postmap:
        yield postmap


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with new_database(postgres) as database:
        await database.connection.execute(
            "CREATE TABLE t (k text, v text); INSERT INTO t VALUES "
            "('a@one.test', 'box'), ('a@one.test', 'two'), ('b@two.test', 'b'), ('x@sub.one.test', 'x'), "
            "('@one.test', 'all'), ('one.test', 'domain')"
        )
        yield database


SPELLINGS = {
    "no_blanks": "query=SELECT v FROM t WHERE k='%s'\nresult_format=<%s>\nexpansion_limit=5",
    "many_blanks": "query \t =\t  SELECT v  FROM t WHERE k = '%s'  \t\nresult_format =   <%s>   ",
    "continued": "query = SELECT v\n  FROM t\n\tWHERE k = '%s'\n ORDER BY v\nresult_format = a\n  b %s",
    "comments": "# query = nothing\nquery = SELECT v\n# two\n\n  # three\n FROM t WHERE k = '%s'\n#end",
    "hash_in_value": "query = SELECT v FROM t WHERE k = '%s' AND '#' <> v\nresult_format = # %s",
    "twice": "query = SELECT 'first'\nresult_format = 1 %s\nquery = SELECT v FROM t WHERE k = '%s'",
    "unknown": QUERY + "require_result_set = no\nfrobnicate = 1\nQUERY = SELECT 'wrong case'",
    "quotes_stay": QUERY + 'result_format = "%s"',
    "dollar_stays": QUERY + "result_format = $myhostname $$ %s",
    "equals_in_value": QUERY + "result_format = a=b=%s",
    "empty_query": "query =\ntable = t\nselect_field = v\nwhere_field = k\n",
    "query_before_function": QUERY + "select_function = lower\ntable = t",
    "function_before_table": "select_function = upper\ntable = t\nselect_field = v\nwhere_field = k",
    "crlf": "query = SELECT v FROM t\r\n WHERE k = '%s'\r\nresult_format = <%s>\r\n\r\n# end\r\n",
    "no_newline_at_end": "query = SELECT v FROM t WHERE k = '%s'",
    "vertical": "query = SELECT v FROM t WHERE k = '%s'\v\f\nresult_format =\f<%s>",
    "zero_limit": QUERY + "expansion_limit = 0",
    "plus_limit": QUERY + "expansion_limit = +1",
    "limit": QUERY + "expansion_limit = 1",
    "colon": QUERY + "result_format = smtp:[%s]:25",
    "statement_end": "query = SELECT v FROM t WHERE k = '%s' ; ;",
    "national": "query = SELECT N'%s'",
    "latin1_comment": b"# caf\xe9\n".decode("latin-1") + QUERY,
}

DOMAINS = {
    "one": "one.test",
    "several": "two.test, ONE.test\tother.test",
    "exclusion": "!one.test, two.test, one.test",
    "only_exclusion": "!one.test",
    "twice_excluded": "!!one.test",
    "file": "/FOLDER/list",
    "not_file": "!/FOLDER/list, two.test",
    "nested": "/FOLDER/nested",
    "literal": "[one.test], sub.one.test",
    "empty": "",
    "comma": ", ,",
}


async def _same(postmap: Postmap, database: Database, files: dict[str, str]) -> None:
    written = {
        f"pgsql:{postmap.write(f'{name}.cf', login(database.dsn) + text)}": KEYS
        for name, text in files.items()
    }
    assert await differences(postmap, written) == []


async def test_every_spelling_is_read_alike(postmap: Postmap, database: Database) -> None:
    await _same(postmap, database, SPELLINGS)


async def test_domain_lists_let_the_same_keys_through(postmap: Postmap, database: Database) -> None:
    postmap.write("list", "# comment\none.test\n  !sub.one.test, sub.one.test\n")
    postmap.write("nested", f"!two.test, {postmap.folder}/list\n")
    lists = {name: text.replace("/FOLDER", str(postmap.folder)) for name, text in DOMAINS.items()}
    await _same(postmap, database, {f"d_{n}": f"{QUERY}domain = {text}\n" for n, text in lists.items()})


REFUSED = {
    "bad_code": ("query = SELECT '%x'", 5),
    "lone_percent": ("query = SELECT '%s' || '%", 5),
    "bad_code_in_result": (QUERY + "result_format = %z", 6),
    "like_percent": ("query = SELECT v FROM t WHERE v LIKE '%a' AND k = '%s'", 5),
    "empty_result_format": (QUERY + "result_format =", 6),
    "limit_unit": (QUERY + "expansion_limit = 5x", 6),
    "limit_empty": (QUERY + "expansion_limit =", 6),
    "limit_huge": (QUERY + "expansion_limit = 99999999999999999999", 6),
    "nothing": ("result_format = %s", 0),
    "no_where_field": ("table = t\nselect_field = v", 0),
    "no_name": (QUERY + "= x", 6),
    "no_equals": (QUERY + "\nwords alone", 7),
    "no_pattern": (QUERY + "domain = !", 6),
    "no_dbname": (QUERY + "dbname =", 0),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_postfix_dies_of_is_refused(postmap: Postmap, database: Database, name: str) -> None:
    text, line = REFUSED[name]
    file = postmap.write(f"bad_{name}.cf", login(database.dsn) + text + "\n")
    assert "fatal" in postmap.complaint(f"pgsql:{file}")
    with pytest.raises(SettingsError) as refused:
        async with our_reading(postmap, [f"pgsql:{file}"]):
            pass
    assert refused.value.problems[0].startswith(f"{file}:{line}: " if line else f"{file}:")


MEANT = {
    "outside_quotes": "query = SELECT v FROM t WHERE length(k) = %s",
    "in_identifier": 'query = SELECT v AS "%s" FROM t',
    "in_dollar_quotes": "query = SELECT v FROM t WHERE k = $$%s$$",
    "several_statements": "query = SELECT 1; SELECT v FROM t WHERE k = '%s'",
    "table_in_domain": QUERY + "domain = static:all",
    "missing_domain_file": QUERY + "domain = one.test, /nonexistent",  # Postfix: trouble from there on
}


@pytest.mark.parametrize("name", MEANT)
async def test_refusals_that_are_meant(postmap: Postmap, database: Database, name: str) -> None:
    file = postmap.write(f"meant_{name}.cf", login(database.dsn) + MEANT[name] + "\n")
    with pytest.raises(SettingsError) as refused:
        async with our_reading(postmap, [f"pgsql:{file}"]):
            pass
    line = 6 if MEANT[name].startswith(QUERY) else 5
    assert refused.value.problems[0].startswith(f"{file}:{line}: ")


# Easily read otherwise than Postfix reads it.
EASILY_MISREAD = {
    "intervals": QUERY + "idle_interval = 60s\nretry_interval = 0\n",  # fatal since 3.9, unknown to 3.7
    "negative_limit": QUERY + "expansion_limit = -1\n",  # cfg_parser.c: no least value, so no limit
    "big_limit": QUERY + "expansion_limit = 2000000000\n",  # an int is an int
    "cr_in_query": "query = SELECT v FROM t WHERE k = '%s'\rORDER BY v\n",  # no line end for readlline.c
    "crlf_in_literal": "query = SELECT 'a\r\n b' WHERE '%s' <> ''\n",
    "comment_ended_by_cr": "query = SELECT v -- comment\r\n FROM t WHERE k = '%s'\n",
    "constant": "query = SELECT v || 'é' FROM t WHERE k = '%s'\n",  # the query is LATIN1, too
    "escape": "query = SELECT E'\\u00e9%s'\n",  # the server makes it é, which is one byte to Postfix
}


@pytest.mark.parametrize("name", EASILY_MISREAD)
async def test_what_is_easily_misread(postmap: Postmap, database: Database, name: str) -> None:
    await _same(postmap, database, {f"misread_{name}": EASILY_MISREAD[name]})


async def test_a_first_line_that_begins_with_a_blank_is_dropped(postmap: Postmap, database: Database) -> None:
    text = f"# comment\n  result_format = <%s>\n{login(database.dsn)}{QUERY}"
    name = f"pgsql:{postmap.write('blank_first.cf', text)}"
    assert await differences(postmap, {name: KEYS}) == []


async def test_settings_in_main_cf(database: Database) -> None:
    prefixed = "".join(f"t_{line}\n" for line in login(database.dsn).splitlines())
    lines = dict(line.split(" = ", 1) for line in prefixed.splitlines())
    lines |= {
        "t_query": "SELECT v FROM $relation WHERE k = '%s' ORDER BY v",
        "relation": "t",
        "t_result_format": "$$<%s>",
        "u_query": "$t_query",
        "u_expansion_limit": "1",
        **{f"u_{name}": f"$t_{name}" for name in ("hosts", "user", "password", "dbname")},
    }
    with Postmap(lines) as postmap:
        assert await differences(postmap, {"pgsql:t": KEYS, "pgsql:u": KEYS}) == []
        async with our_reading(postmap, ["pgsql:t"]) as sources:
            assert await ask(sources["pgsql:t"], b"b@two.test") == b"$<b>"


async def test_hosts_in_every_spelling(postmap: Postmap, database: Database, tmp_path: Path) -> None:
    parts = urlsplit(database.dsn)
    port = parts.port
    async with _unix_socket(tmp_path, int(port or 0)):
        spellings = [
            f"127.0.0.1:{port}",
            f"inet:127.0.0.1:{port}",
            f"localhost:{port}",
            f"unix:{tmp_path}",
            str(tmp_path),
            f"127.0.0.1:1, 127.0.0.1:{port}",
            f"unix:/nonexistent\tinet:127.0.0.1:1 127.0.0.1:{port},",
            f"127.0.0.1:1 {tmp_path}",
            database.dsn,
            f"127.0.0.1:1, {database.dsn}",
        ]
        files = [
            f"pgsql:{postmap.write(f'host{number}.cf', login(database.dsn, hosts) + QUERY)}"
            for number, hosts in enumerate(spellings)
        ]
        # Not side by side: a spelling that nobody understands must not pass because both fail.
        async with our_reading(postmap, files) as sources:
            for name in files:
                assert await asyncio.to_thread(postmap.one, name, b"b@two.test") == b"b"
                assert await ask(sources[name], b"b@two.test") == b"b"


async def test_hosts_that_are_all_dead(postmap: Postmap, database: Database) -> None:
    name = f"pgsql:{postmap.write('dead.cf', login(database.dsn, '127.0.0.1:1, /nonexistent') + QUERY)}"
    async with our_reading(postmap, [name]) as sources:
        assert await ask(sources[name], b"b@two.test") == TROUBLE
    assert postmap.one(name, b"b@two.test") == TROUBLE


@asynccontextmanager
async def _unix_socket(folder: Path, port: int) -> AsyncIterator[None]:
    """PostgreSQL's socket in this folder; the embedded server has none of its own."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_unix_server(serve, folder / ".s.PGSQL.5432")
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()
