"""A file as a source, on a real PostgreSQL whose schema and server change under it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from time import monotonic

import pytest
from tests import cf_site
from tests.conftest import Database

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.answer import Found, Unavailable

pytestmark = pytest.mark.postgres

DDL = "CREATE TABLE t (k text, v text, n int); INSERT INTO t VALUES ('a', 'one', 1), ('b', 'two', 2)"
BY_KEY = "SELECT v FROM t WHERE k = '%s'"
BY_NUMBER = "SELECT v FROM t WHERE n = '%s'"
DEADLINE = 1.0


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ALTER n TYPE text",
        "ALTER TABLE t ALTER n TYPE bigint",
        "ALTER TABLE t ALTER v TYPE varchar(20), ADD extra int",
        "ALTER TABLE t RENAME TO old; CREATE TABLE t AS SELECT * FROM old",
        "ALTER TABLE t RENAME TO old; CREATE VIEW t AS SELECT n::numeric AS n, v::text[] AS v FROM "
        "(SELECT n, '{' || v || '}' AS v FROM old) AS x",
        "CREATE TYPE word AS ENUM ('one', 'two'); ALTER TABLE t ALTER v TYPE word USING v::word",
        "ALTER TABLE t ALTER v TYPE int USING n",
        # The key is no value of the old type, which is seen before the statement is.
        "ALTER TABLE t ALTER n TYPE uuid USING lpad(n::text, 32, '0')::uuid",
    ],
)
async def test_a_type_that_changes_is_learnt_anew(
    empty_database: Database, tmp_path: Path, change: str
) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    async with cf_site.source(tmp_path, empty_database.dsn, BY_NUMBER) as source:
        assert await asyncio.gather(*(cf_site.value(source, "1") for _ in range(8))) == ["one"] * 8
        await connection.execute(change)
        key = str(await connection.fetchval("SELECT n::text FROM t ORDER BY n LIMIT 1"))
        expected = str(await connection.fetchval("SELECT v::text FROM t ORDER BY n LIMIT 1"))
        for _ in range(4):
            assert await cf_site.value(source, key) == expected


async def test_a_relation_that_comes_back_is_asked_again(
    empty_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    name = cf_site.write(tmp_path, "t", f"{cf_site.login(empty_database.dsn)}query = {BY_KEY}\n")
    async with cf_site.running(cf_site.settings({"t": [name]})) as tables:
        table = tables.tables["t"]
        assert await table.answer(b"a") == Found("one")
        await connection.execute("ALTER TABLE t RENAME TO gone")
        for _ in range(5):
            assert isinstance(await table.answer(b"a"), Unavailable)
        await connection.execute("ALTER TABLE gone RENAME TO t")
        for _ in range(3):
            assert await table.answer(b"a") == Found("one")
    assert len(warnings(caplog)) == 1, "once that it cannot say, not once a lookup"
    assert "t.cf" in warnings(caplog)[0]


async def test_a_relation_that_is_made_later_needs_no_reload(
    empty_database: Database, tmp_path: Path
) -> None:
    async with cf_site.source(tmp_path, empty_database.dsn, BY_KEY) as source:
        assert await cf_site.value(source, "a") == "?"
        await empty_database.connection.execute(DDL)
        await asyncio.sleep(1.1)  # PLAN_PAUSE: a query that is refused is not planned at every question
        assert await cf_site.value(source, "a") == "one"


async def test_a_key_that_a_column_cannot_take_is_logged_once(
    empty_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await empty_database.connection.execute(DDL)
    name = cf_site.write(tmp_path, "t", f"{cf_site.login(empty_database.dsn)}query = {BY_NUMBER}\n")
    async with cf_site.running(cf_site.settings({"t": [name]})) as tables:
        table = tables.tables["t"]
        for number in range(5):
            assert isinstance(await table.answer(b"no number %d" % number), Unavailable)
            assert await table.answer(b"1") == Found("one")
            assert isinstance(await table.answer(b"99999999999"), Unavailable)
    first, second = warnings(caplog)
    assert "22P02" in first
    assert "22003" in second, "each kind once, and the table does not flap between the two states"


async def test_limits_and_encodings_are_about_the_key_too(
    empty_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await empty_database.connection.execute(DDL + ", ('€', '€', 3)")
    text = f"{cf_site.login(empty_database.dsn)}encoding = LATIN1\nexpansion_limit = 1\n"
    name = cf_site.write(tmp_path, "t", f"{text}query = SELECT v FROM t WHERE n >= '%s'\n")
    async with cf_site.running(cf_site.settings({"t": [name]})) as tables:
        for _ in range(3):
            assert isinstance(await tables.tables["t"].answer(b"1"), Unavailable)
            assert isinstance(await tables.tables["t"].answer(b"3"), Unavailable)
    # Whether "€" or the limit is seen first for the key 1 does not matter.
    assert {"LATIN1" in line or "iso8859-1" in line for line in warnings(caplog)} == {True, False}
    assert len(warnings(caplog)) == 2


async def test_equal_places_share_connections_and_others_do_not(
    empty_database: Database, tmp_path: Path
) -> None:
    await empty_database.connection.execute(DDL)
    await empty_database.connection.execute("CREATE ROLE other LOGIN SUPERUSER PASSWORD 'x'")
    try:
        login = cf_site.login(empty_database.dsn)
        other = "".join(
            {"user": "user = other\n", "password": "password = x\n"}.get(line.split(" =")[0], f"{line}\n")
            for line in login.splitlines()
        )
        texts = [f"{login}query = {BY_KEY}\n", f"{login}query = {BY_NUMBER}\nretry_interval = 5\n"]
        texts += [f"query = {BY_KEY}\nresult_format = <%s>\n{login}", f"{other}query = {BY_KEY}\n"]
        names = [cf_site.write(tmp_path, f"t{number}", text) for number, text in enumerate(texts)]
        async with cf_site.running(cf_site.settings({"t": names}, connections=2)) as tables:
            assert await tables.tables["t"].answer(b"a") == Found("one")
            by_user = (
                "SELECT usename, count(*) FROM pg_stat_activity "
                "WHERE application_name = 'mailmaps' AND datname = current_database() GROUP BY 1"
            )
            await asyncio.sleep(0.3)  # the second connection of each pool is opened in the background
            rows = await empty_database.connection.fetch(by_user)
            assert sorted(row["count"] for row in rows) == [2, 2]
    finally:
        await empty_database.connection.execute("DROP OWNED BY other; DROP ROLE other")


async def test_a_backend_that_is_terminated_costs_no_answer(empty_database: Database, tmp_path: Path) -> None:
    connection = empty_database.connection
    await connection.execute(DDL)
    # Those that are open. One that is terminated while it connects means a server that cannot be reached.
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'mailmaps' AND state = 'idle' AND query <> ''"
    )
    for query, key in ((BY_KEY, "a"), (f"{BY_KEY} AND date '2020-01-01' < date '%s'", "2021-01-01")):
        await connection.execute("INSERT INTO t VALUES ('2021-01-01', 'one')")
        async with cf_site.source(tmp_path, empty_database.dsn, query) as source:
            for _ in range(5):
                assert await cf_site.value(source, key) == "one"
                await connection.execute(end)
            assert await cf_site.value(source, key) == "one"
        await connection.execute("DELETE FROM t WHERE k LIKE '20%'")


async def test_a_server_that_stops_hangs_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("site")
    with EmbeddedPostgres(tmp_path_factory.mktemp("stopped"), fsync=False) as server:
        name = cf_site.write(folder, "t", f"{cf_site.login(server.dsn())}query = SELECT 'x%s'\n")
        settings = cf_site.settings({"t": [name]}, lookup_deadline=DEADLINE, connect_timeout=DEADLINE)
        async with cf_site.running(settings) as tables:
            table = tables.tables["t"]
            assert await table.answer(b"a") == Found("xa")
            server.pause()
            began = monotonic()
            assert isinstance(await table.answer(b"b"), Unavailable)
            assert monotonic() - began < DEADLINE + 1
            server.resume()
            await asyncio.to_thread(server.stop)
            assert isinstance(await table.answer(b"c"), Unavailable)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                while await table.answer(b"d") != Found("xd"):
                    await asyncio.sleep(0.05)


async def test_types_asyncpg_cannot_be_taught_do_not_cost_the_others_their_connections(
    empty_database: Database, tmp_path: Path
) -> None:
    """Whatever becomes of the answer, the pool is shared and must not be thrown away at each question."""
    connection = empty_database.connection
    pids = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'mailmaps'"
    query = "SELECT 'x'::\"char\" WHERE '%s' <> ''"
    async with cf_site.source(tmp_path, empty_database.dsn, query, connections=1) as source:
        for _ in range(3):
            await cf_site.value(source, "a")
        before = await connection.fetchval(pids)
        for _ in range(3):
            await cf_site.value(source, "a")
        assert await connection.fetchval(pids) == before
