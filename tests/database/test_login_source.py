"""Logins out of views of a site's own: other types, missing columns, rows that make no sense."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import pytest_asyncio
from tests.conftest import Database

from mailmaps.auth.accounts import Row
from mailmaps.config.settings import Database as DatabaseSettings
from mailmaps.database.connect import connect
from mailmaps.database.logins import LoginSource, needed_columns
from mailmaps.database.pool import Pool
from mailmaps.maps.answer import CannotSay

Make = Callable[[str], Awaitable[None]]
HASHES = needed_columns("postgresql")
TRUE = (
    "true",
    "'1'::char",
    "1",
    "1.0",
    "'t'::text",
    "'Y'::varchar(3)",
    "'yes'::text",
    "B'1'",
    "'1'::\"char\"",
)
FALSE = (
    "false",
    "'0'::char",
    "0",
    "0.0",
    "'f'::text",
    "'N'::varchar(3)",
    "NULL",
    "''::text",
    "B'0'",
    "'0'::\"char\"",
)


@pytest_asyncio.fixture
async def pool(empty_database: Database) -> AsyncIterator[Pool]:
    settings = DatabaseSettings(dsn=empty_database.dsn)
    pool = Pool(lambda: connect(settings, for_lookups=True), 1)
    pool.start()
    yield pool
    await pool.close()


async def find(
    pool: Pool, database: Database, select: str, login: str = "jan", needed: Sequence[str] = HASHES
) -> list[Row]:
    """What a view of this definition gives."""
    await database.connection.execute(f"CREATE OR REPLACE VIEW logins AS {select}")
    return await LoginSource(pool, "view:public.logins", 5.0, needed).find([login])


async def test_the_least_that_a_view_may_have(pool: Pool, empty_database: Database) -> None:
    select = "SELECT 'jan' AS login, 'Jan' AS username, '{PLAIN}x' AS password"
    [row] = await find(pool, empty_database, select)
    assert (row.login, row.username, row.by) == ("jan", "Jan", "")
    assert (row.uid, row.gid, row.mailbox, row.quota, row.active, row.denied) == (
        None, None, None, None, True, frozenset(),
    )  # fmt: skip
    assert row.stored.reveal() == b"{PLAIN}x"
    assert "PLAIN" not in repr(row)


@pytest.mark.parametrize("true", TRUE)
@pytest.mark.parametrize(
    "false", ["false", "'0'::char", "0", "'f'::text", "'N'::varchar(3)", "NULL", "''::text"]
)
async def test_truth_comes_in_every_type(pool: Pool, empty_database: Database, true: str, false: str) -> None:
    select = (
        f"SELECT 'jan' AS login, 'jan' AS username, NULL::text AS password, {true} AS active,"
        f" {true} AS imap, {false} AS smtp, {false} AS receive"
    )
    [row] = await find(pool, empty_database, select)
    assert row.active
    assert row.denied == {"smtp", "receive"}
    assert row.stored.reveal() == b""


@pytest.mark.parametrize("kind", ["integer", "bigint", "text", "numeric", "smallint"])
async def test_numbers_too(pool: Pool, empty_database: Database, kind: str) -> None:
    ids = f"'5001'::{kind} AS uid, NULL::{kind} AS gid"
    select = f"SELECT 'jan' AS login, 'jan' AS username, 'x' AS password, {ids}"
    [row] = await find(pool, empty_database, select)
    assert (row.uid, row.gid) == (5001, None)


@pytest.mark.parametrize(
    ("select", "problem"),
    [
        ("SELECT 'jan' AS login, 'x' AS password", "no column username"),
        ("SELECT 'jan' AS login, 'jan' AS username", "no column password"),
        (
            "SELECT 'jan' AS login, 'jan' AS username, 'x' AS password, 'vmail' AS uid",
            "uid of 'jan' is no number",
        ),
        ("SELECT 'jan' AS login, NULL::text AS username, 'x' AS password", "has no username"),
        ("SELECT 'jan' AS login, '' AS username, 'x' AS password", "has no username"),
        (
            "SELECT 'jan' AS login, 'jan' AS username, 'x' AS password, now() AS active",
            "active of 'jan' is neither yes nor no",
        ),
        (
            "SELECT 'jan' AS login, 'jan' AS username, 'x' AS password, 'inf'::float8 AS uid",
            "uid of 'jan' is no number",
        ),
        ("SELECT 'jan' AS name, 'jan' AS username", "login"),
        ("SELECT 1 AS login, 'jan' AS username, 'x' AS password", "operator does not exist"),
        (
            "SELECT 'jan' AS login, 'jan' AS username, (1/(random() * 0)::int)::text AS password",
            "division by zero",
        ),
    ],
)
async def test_what_makes_no_sense_is_cannot_say(
    pool: Pool, empty_database: Database, select: str, problem: str
) -> None:
    with pytest.raises(CannotSay, match=problem):
        await find(pool, empty_database, select)


async def test_a_view_that_is_not_there_or_hangs_is_cannot_say(pool: Pool, empty_database: Database) -> None:
    with pytest.raises(CannotSay, match="does not exist"):
        await LoginSource(pool, "view:public.nothing", 5.0, HASHES).find(["jan"])
    await empty_database.connection.execute("CREATE TABLE t (login text, username text, password text)")
    async with empty_database.connection.transaction():
        await empty_database.connection.execute("LOCK TABLE t")
        with pytest.raises(CannotSay):
            await LoginSource(pool, "view:public.t", 0.3, HASHES).find(["jan"])
    assert await LoginSource(pool, "view:public.t", 5.0, HASHES).find(["jan"]) == []


async def test_pam_needs_no_column_for_passwords(pool: Pool, empty_database: Database) -> None:
    select = "SELECT 'jan' AS login, 'jan' AS username"
    [row] = await find(pool, empty_database, select, needed=needed_columns("pam"))
    assert row.stored.reveal() == b""


async def test_a_view_that_was_made_anew_is_asked_as_it_is_now(pool: Pool, empty_database: Database) -> None:
    source = LoginSource(pool, "view:public.logins", 5.0, HASHES)
    for columns in ("'x' AS password", "'y' AS password, 7 AS uid", "7 AS uid, 'z' AS password"):
        await empty_database.connection.execute("DROP VIEW IF EXISTS logins")
        await empty_database.connection.execute(
            f"CREATE VIEW logins AS SELECT 'jan' AS login, 'jan' AS username, {columns}"
        )
        [row] = await source.find(["jan"])
        assert row.stored.reveal().decode() in columns
        assert row.uid == (7 if "uid" in columns else None)
