"""`--follow` against a real PostgreSQL: what is heard is in the files, and what cannot be heard is read.

The service runs in the test's own event loop; the files are read as a client would, each under its own lock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.conftest import Connection, Database

from mailmaps.config import Settings, parse
from mailmaps.demo.data import HOWTO
from mailmaps.filemaps import service as service_module
from mailmaps.filemaps.fileset import FileSet
from mailmaps.filemaps.folder import ask_to_force
from mailmaps.filemaps.service import Service
from mailmaps.filemaps.targets import ALIASES, GIDS, MAILBOXES, QUEUED, UIDS, listable

pytestmark = [pytest.mark.postgres, pytest.mark.postfix]

LIMIT = 60.0
"""Seconds, however busy the machine is."""

ACCOUNT = """
WITH made AS (INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   VALUES ($1, $2, 5001, $1 || '@lxtreme.nl', 'lxtreme.nl/' || $1, '1') RETURNING username)
INSERT INTO user_addresses (username, alias) SELECT username, username || '@lxtreme.nl' FROM made
"""
FORWARD = "INSERT INTO mailmaps.forwards (address, target) VALUES ($1 || '@lxtreme.nl', $2 || '@lxtreme.nl')"
FORWARD += " ON CONFLICT DO NOTHING"


def settings_of(dsn: str, folder: Path, more: str = "") -> Settings:
    text = f'''
[database]
dsn = "{dsn}"
[filemaps]
directory = "{folder}"
most_removed = 0.9
[postfix]
recipient_delimiter = "+"
virtual_minimum_uid = 5000
{more}
'''
    return parse(text, "test.toml")


class Following:
    """A running service, and a look at its files."""

    def __init__(self, settings: Settings) -> None:
        self.folder = Path(settings.filemaps.directory)
        tables = listable(settings)
        self.files = FileSet(settings, tables)
        self.service = Service(settings, tables, self.files)

    def rows(self, name: str) -> dict[str, str]:
        """A file's rows, as Postfix lists them; none if it is not there."""
        if not (self.folder / f"{name}.lmdb").exists():
            return {}
        words = ["postmap", "-s", f"lmdb:{self.folder / name}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)
        assert "fatal" not in done.stderr, done.stderr
        return dict(line.split("\t", 1) for line in done.stdout.splitlines())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def following(settings: Settings) -> AsyncIterator[Following]:
    """Run it, until the test ends."""
    one = Following(settings)
    task = asyncio.ensure_future(one.service.run())
    try:
        yield one
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def howto(database: Database) -> Connection:
    """The how-to's rows."""
    await database.connection.execute(HOWTO)
    return database.connection


async def test_changes_are_followed(database: Database, howto: Connection, tmp_path: Path) -> None:
    async with following(settings_of(database.reader_dsn, tmp_path)) as files:
        await files.until(lambda: "info@lxtreme.nl" in files.rows(MAILBOXES))
        await howto.execute(ACCOUNT, "new", 6000)
        await files.until(lambda: "new@lxtreme.nl" in files.rows(ALIASES))
        assert files.rows(UIDS)["new@lxtreme.nl"] == "6000"
        await howto.execute("UPDATE user_accounts SET uid = 6001 WHERE username = 'new'")
        await files.until(lambda: files.rows(UIDS)["new@lxtreme.nl"] == "6001")
        await howto.execute("UPDATE user_accounts SET active = '0' WHERE username = 'new'")
        await files.until(lambda: "new@lxtreme.nl" not in files.rows(MAILBOXES))
        assert "new@lxtreme.nl" in files.rows(MAILBOXES + QUEUED)
        await howto.execute("INSERT INTO domains (gid, domain) VALUES (5009, 'more.test')")
        await files.until(lambda: "more.test" in files.rows("virtual_mailbox_domains"))
        await howto.execute("TRUNCATE mailmaps.relay_recipients")


async def test_whatever_an_alias_leads_to_is_there(
    database: Database, howto: Connection, tmp_path: Path
) -> None:
    """Two writers who do not see each other, whole readings in between, and a reader who trusts nothing: the
    targets of all aliases are in the files that deliver, whenever one looks."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  # pytest shows it when the test fails
    chance = random.Random(seed)

    async def write(name: str, uid: int, connection: Connection) -> None:
        for number in range(40):
            await connection.execute(ACCOUNT, f"{name}{number}", uid + number)
            for target in {f"{name}{number}", f"{name}{chance.randrange(number + 1)}", f"other{number}"}:
                await connection.execute(FORWARD, f"to{number}{chance.randrange(5)}.{name}.{target}", target)

    async with following(settings_of(database.reader_dsn, tmp_path)) as files:
        await files.until(lambda: "info@lxtreme.nl" in files.rows(MAILBOXES))
        async with database.connect() as other:
            writers = asyncio.gather(write("one", 6000, howto), write("other", 7000, other))
            looks = 0
            while not writers.done():
                if chance.random() < 0.2:
                    files.service.listening()  # a whole reading
                aliases = await asyncio.to_thread(files.rows, ALIASES)
                delivered = await asyncio.to_thread(files.rows, MAILBOXES + QUEUED)
                uids, gids = files.rows(UIDS), files.rows(GIDS)
                targets = {one for value in aliases.values() for one in value.split(",")}
                assert targets <= delivered.keys() | aliases.keys()
                assert delivered.keys() <= uids.keys() & gids.keys()
                looks += 1
                await asyncio.sleep(0)
            await writers
        assert looks > 10
        count = await howto.fetchval("SELECT count(DISTINCT key) FROM mailmaps.virtual_alias_maps")
        await files.until(lambda: len(files.rows(ALIASES)) == count)


async def test_without_the_database_the_files_stay(
    database: Database, howto: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "files"
    async with following(settings_of(database.reader_dsn, folder)) as files:
        await files.until(lambda: "lxtreme.nl" in files.rows("virtual_mailbox_domains"))
    dead = settings_of("postgresql://mailreader@127.0.0.1:1/mail", folder)
    with caplog.at_level(logging.ERROR):
        async with following(dead) as files:
            await files.until(lambda: "the files stay as they are" in caplog.text)
            assert "info@lxtreme.nl" in files.rows(MAILBOXES)


async def test_where_nothing_is_heard_everything_is_read_now_and_then(
    database: Database, howto: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LISTEN fails, as through a pooler."""
    monkeypatch.setattr(service_module, "UNFOLLOWED", 0.2)

    async def deaf(*_: object) -> None:
        raise TimeoutError

    async with following(settings_of(database.reader_dsn, tmp_path)) as files:
        monkeypatch.setattr(files.service._changes, "_follow", deaf)
        await files.until(lambda: "info@lxtreme.nl" in files.rows(MAILBOXES))
        await howto.execute(ACCOUNT, "new", 6000)
        await files.until(lambda: "new@lxtreme.nl" in files.rows(ALIASES))


VIEW = """
CREATE TABLE public.lists (address text, target text);
CREATE VIEW public.all_lists AS SELECT address AS key, target AS value FROM public.lists;
GRANT SELECT ON public.all_lists, public.lists TO mailreader;
"""
SOURCES = '[tables.virtual_alias_maps]\nsources = ["builtin", "view:public.all_lists"]'


async def test_a_view_of_ones_own_is_one_of_the_sources(
    database: Database, howto: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "UNFOLLOWED", 0.2)
    await howto.execute(VIEW)
    await howto.execute(
        "INSERT INTO lists VALUES ('info@lxtreme.nl', 'loses@x.test'), ('l@x.test', 'a@b.test')"
    )
    async with following(settings_of(database.reader_dsn, tmp_path, SOURCES)) as files:
        await files.until(lambda: "l@x.test" in files.rows(ALIASES))
        assert files.rows(ALIASES)["info@lxtreme.nl"] == "info@lxtreme.nl", "the first that knows a key"
        await howto.execute("INSERT INTO lists VALUES ('m@x.test', 'a@b.test')")
        await files.until(lambda: "m@x.test" in files.rows(ALIASES))
        await howto.execute(ACCOUNT, "new", 6000)
        await files.until(lambda: "new@lxtreme.nl" in files.rows(ALIASES))


async def test_force_is_carried_out_by_who_follows(
    database: Database, howto: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask_to_force(tmp_path)  # of somebody long ago: means nothing
    await howto.execute("INSERT INTO mailmaps.relay_recipients (address) VALUES ('a@relay.test')")
    with caplog.at_level(logging.ERROR):
        async with following(settings_of(database.reader_dsn, tmp_path)) as files:
            await files.until(lambda: "a@relay.test" in files.rows("relay_recipient_maps"))
            await howto.execute("DELETE FROM mailmaps.relay_recipients")
            await files.until(lambda: "relay_recipient_maps: all of its 1 keys would go" in caplog.text)
            await howto.execute(ACCOUNT, "new", 6000)
            await files.until(lambda: "new@lxtreme.nl" in files.rows(ALIASES))
            assert files.rows("relay_recipient_maps")
            ask_to_force(tmp_path)
            await files.until(lambda: not files.rows("relay_recipient_maps"))


async def test_a_file_that_is_removed_comes_back(
    database: Database, howto: Connection, tmp_path: Path
) -> None:
    async with following(settings_of(database.reader_dsn, tmp_path)) as files:
        await files.until(lambda: "lxtreme.nl" in files.rows("virtual_mailbox_domains"))
        (tmp_path / f"{UIDS}.lmdb").unlink()
        await files.until(lambda: "info@lxtreme.nl" in files.rows(UIDS))  # nothing has changed meanwhile
        (tmp_path / f"{UIDS}.lmdb").unlink()
        await howto.execute(ACCOUNT, "new", 6000)
        await files.until(lambda: files.rows(UIDS).get("new@lxtreme.nl") == "6000")
        await files.until(lambda: "new@lxtreme.nl" in files.rows(ALIASES))


async def test_many_keys_at_once(database: Database, howto: Connection, tmp_path: Path) -> None:
    async with following(settings_of(database.reader_dsn, tmp_path)) as files:
        await files.until(lambda: "lxtreme.nl" in files.rows("virtual_mailbox_domains"))
        await howto.executemany(ACCOUNT, [(f"m{number}", 6000 + number) for number in range(700)])
        await files.until(lambda: "m699@lxtreme.nl" in files.rows(ALIASES))
        await howto.execute("UPDATE user_accounts SET uid = uid + 1000 WHERE username LIKE 'm%'")
        await files.until(lambda: files.rows(UIDS)["m0@lxtreme.nl"] == "7000")
        assert files.rows(UIDS)["m699@lxtreme.nl"] == "7699"
