"""The boxes of a database: the how-to's rows, a site's own views, and what is refused."""

from __future__ import annotations

import pytest
from tests.conftest import Connection, Database

from mailmaps.config import Settings, parse
from mailmaps.demo.data import HOWTO, MORE
from mailmaps.maildirs import reading
from mailmaps.maildirs.box import Row, normal
from mailmaps.maildirs.reading import CannotList, CannotRead, read, views_of

pytestmark = pytest.mark.postgres

VIEWS = """
CREATE VIEW boxes AS SELECT * FROM (VALUES {mailboxes}) AS v (key, value);
CREATE VIEW uids AS SELECT * FROM (VALUES {uids}) AS v (key, value);
CREATE VIEW gids AS SELECT DISTINCT key, '5001'::text AS value FROM boxes;
"""
OWN = """
[tables.virtual_mailbox_maps]
sources = ["view:public.boxes"]
[tables.virtual_uid_maps]
sources = ["view:public.uids"]
[tables.virtual_gid_maps]
sources = ["view:public.gids"]
"""


def settings(database: Database, more: str = "", *, as_reader: bool = False) -> Settings:
    return parse(f'[database]\ndsn = "{database.reader_dsn if as_reader else database.dsn}"\n{more}')


async def rows(site: Settings) -> list[Row]:
    found: list[Row] = []
    await read(site.database, views_of(site), found.append)
    return found


async def make_views(connection: Connection, mailboxes: str, uids: str) -> None:
    await connection.execute(VIEWS.format(mailboxes=mailboxes, uids=uids))


async def test_the_howtos_rows(database: Database) -> None:
    await database.connection.execute(HOWTO)
    assert await rows(settings(database)) == [
        Row("lxtreme.nl/info/", "5002", "5001", "info@lxtreme.nl", 1, 2),
        Row("lxtreme.nl/janwillem.janssen/", "5001", "5001", "hostmaster@lxtreme.nl", 5, 2),
    ]


async def test_inactive_accounts_are_no_boxes(database: Database) -> None:
    await database.connection.execute(HOWTO + MORE)
    assert [row.path for row in await rows(settings(database, as_reader=True))] == [
        "lxtreme.nl/info/", "lxtreme.nl/janwillem.janssen/", "second.example/anna/",
    ]  # fmt: skip


async def test_two_owners_of_one_path_are_two_rows(database: Database) -> None:
    await database.connection.execute(HOWTO)
    await database.connection.execute("UPDATE user_accounts SET mailbox = '/lxtreme.nl//x'")
    assert [(row.path, row.uid) for row in await rows(settings(database))] == [
        ("lxtreme.nl/x/", "5001"),
        ("lxtreme.nl/x/", "5002"),
    ]


async def test_a_sites_own_views(empty_database: Database) -> None:
    """Several values are one answer, as a lookup joins them; an empty one is none; a uid may be missing."""
    boxes = """('two', 'b/'), ('two', 'a/'), ('null', NULL), ('empty', ''), ('one', 'c/'), ('one', NULL),
       ('nouid', 'd/'), ('nulluid', 'e/'), (NULL, 'f/'), ('same', '/c/'), ('root', '//')"""
    await make_views(
        empty_database.connection,
        boxes,
        "('two', '1'), ('one', '2'), ('one', '3'), ('nulluid', NULL), ('other', '4'), ('same', '2,3')",
    )
    assert await rows(settings(empty_database, OWN)) == [
        Row("", None, "5001", "root", 1, 5),
        Row("a/,b/", "1", "5001", "two", 1, 5),
        Row("c/", "2,3", "5001", "one", 2, 5),
        Row("d/", None, "5001", "nouid", 1, 5),
        Row("e/", None, "5001", "nulluid", 1, 5),
    ]


async def test_the_first_source_that_knows_a_key_answers(empty_database: Database) -> None:
    connection = empty_database.connection
    await make_views(connection, "('a', 'a/'), ('off', NULL)", "('a', '1')")
    await connection.execute("CREATE VIEW more AS VALUES ('a', 'x/'), ('off', 'off/'), ('b', 'b/')")
    await connection.execute("ALTER VIEW more RENAME column1 TO key; ALTER VIEW more RENAME column2 TO value")
    two = OWN.replace('"view:public.boxes"', '"view:public.boxes", "view:public.more"')
    assert [row.path for row in await rows(settings(empty_database, two))] == ["a/", "b/"]


async def test_many_rows_come_in_the_order_of_their_bytes(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 7)
    names = [
        "a",
        "A",
        "a/b",
        "a-b",
        "a b",
        "ä",
        "日本",
        "z",
        "a.b",
        "a0",
        "/a//c",
        "~",
        "\x01",
        "\\",
        "_%",
        "'",
    ]
    paths = [f"{one}/{other}/" for one in names for other in names]
    connection = empty_database.connection
    await connection.execute("CREATE TABLE listed (key text, value text)")
    await connection.executemany(
        "INSERT INTO listed VALUES ($1, $2)", [(str(number), path) for number, path in enumerate(paths)]
    )
    views = [["public.listed"]] * 3
    found: list[Row] = []
    await read(settings(empty_database).database, views, found.append)
    assert [row.path for row in found] == sorted(set(map(normal, paths)), key=str.encode)
    assert sum(row.addresses for row in found) == len(paths)


async def test_limits_of_the_role_do_not_count(empty_database: Database) -> None:
    await make_views(empty_database.connection, "('a', 'a/' || pg_sleep(0.05))", "('a', '1')")
    name = empty_database.name
    await empty_database.connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '20ms'")
    assert len(await rows(settings(empty_database, OWN))) == 1


async def test_what_take_raises_is_not_the_databases(database: Database) -> None:
    await database.connection.execute(HOWTO)

    def take(row: Row) -> None:
        raise BrokenPipeError(row.path)

    site = settings(database)
    with pytest.raises(BrokenPipeError):
        await read(site.database, views_of(site), take)


async def test_trouble_is_named(database: Database, empty_database: Database) -> None:
    await make_views(empty_database.connection, "('a', 'a/')", "('a', (1/(random()*0)::int)::text)")
    away = parse('[database]\ndsn = "postgresql://nobody@127.0.0.1:1/none"')
    for site, why in (
        (away, "127.0.0.1"),
        (settings(empty_database), r'relation "mailmaps.virtual_mailbox_maps" does not exist \(42P01\)'),
        (settings(empty_database, OWN), r"division by zero \(22012\)"),
        (settings(empty_database, OWN, as_reader=True), r"permission denied for view boxes \(42501\)"),
    ):
        with pytest.raises(CannotRead, match=why):
            await rows(site)


async def test_it_reads_only(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute("CREATE SEQUENCE s")
    await make_views(connection, "('a', nextval('s') || '/')", "('a', '1')")
    with pytest.raises(CannotRead, match="read-only transaction"):
        await rows(settings(empty_database, OWN))


def test_queries_cannot_be_listed() -> None:
    site = parse('[tables.virtual_uid_maps]\nsources = ["builtin", "pgsql:/etc/postfix/uids.cf"]')
    with pytest.raises(
        CannotList, match="tables.virtual_uid_maps answers from pgsql:/etc/postfix/uids.cf, a"
    ):
        views_of(site)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(CannotList, match="no table virtual_mailbox_maps in the settings"):
        views_of(parse("builtin_tables = false"))


def test_the_builtin_views() -> None:
    assert views_of(parse("")) == [
        ["mailmaps.virtual_mailbox_maps"], ["mailmaps.virtual_uid_maps"], ["mailmaps.virtual_gid_maps"],
    ]  # fmt: skip
