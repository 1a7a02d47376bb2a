"""The small site with `type = "cdb"`: each change is another file, which a process meets when it begins anew.

What a cdb cannot do: say "later", and hold a key that postmap(1) takes for a comment. Such keys are named.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from tests.system.filemaps import FileMaps
from tests.system.mail_data import load
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.smtp import Dialog
from tests.system.test_filemaps import BASE, FILES, JAN, Churn, Site

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.filemaps.targets import QUEUED

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SECONDS = 4.0
"""For which mailboxes come and go."""

SEEN = 20.0
"""Seconds after which a change is in the files, on a machine that has other things to do."""

COMMENT = "#x@second.test"
"""What postmap(1) takes for a comment, whatever it is quoted with."""

GONE = "gone@catch.test"
"""Inactive, under a catch-all."""

TABLES = (
    "transport_maps",
    "virtual_mailbox_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "smtpd_sender_login_maps",
    f"virtual_alias_maps{QUEUED}",
    f"virtual_mailbox_maps{QUEUED}",
)


@pytest.fixture(scope="module")
def mail() -> Iterator[Path]:
    """virtual_mailbox_base, with room for the mailboxes of one domain."""
    mail = Path(tempfile.mkdtemp(prefix="mailmaps-mail-", dir="/tmp"))
    try:
        mail.chmod(0o755)
        for domain, gid in (("lxtreme.nl", 5001), ("catch.test", 5003)):
            (mail / domain).mkdir()
            os.chown(mail / domain, 0, gid)
            (mail / domain).chmod(0o1770)
        yield mail
    finally:
        shutil.rmtree(mail, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(mail_postgres: EmbeddedPostgres, mail: Path) -> AsyncIterator[Site]:
    """The complete example of postfix/virtual, with cdb: wherever it has lmdb:."""
    dsn = await load(mail_postgres)
    with FileMaps(dsn, kind="cdb", filemaps={"most_removed": 0.9}) as filemaps:  # it is a small site
        moved = {f"lmdb:{FILES}": f"cdb:{filemaps.files}", BASE: str(mail)}
        async with AsyncExitStack() as stack:
            filemaps.start()
            postfix = PrivatePostfix.from_example("virtual", moved)
            yield Site(mail_postgres, filemaps, await stack.enter_async_context(postfix), mail)


async def test_once(mail_postgres: EmbeddedPostgres) -> None:
    """All that is in an lmdb file is in the cdb file, but for the keys that are named."""
    dsn = await load(mail_postgres)
    with FileMaps(dsn, kind="cdb") as cdb, FileMaps(dsn) as lmdb:
        done = cdb.once(code=1)
        assert set(_names(done.stderr)) == {
            ("virtual_alias_maps", GONE),
            ("virtual_alias_maps", "gone.too@catch.test"),
        }
        lmdb.once(code=1)
        for table in TABLES:
            wanted = {key: value for key, value in lmdb.rows(table).items() if value}
            assert wanted
            assert _answers(cdb, table, lmdb.rows(table)) == wanted
        # Nothing holds it back, and a postmaster has been told.
        assert cdb.ask("virtual_alias_maps", GONE) is None
        assert lmdb.ask("virtual_alias_maps", GONE) == ""
        assert {path.suffix for path in cdb.files.iterdir() if path.is_file()} - {".cdb"} == {""}  # locks


async def test_followed(site: Site) -> None:
    """In a session that begins after the change; one that has begun keeps what it has."""
    connection = await site.connect()
    try:
        async with Dialog(site.postfix.port) as before:
            assert (await before.rcpt(JAN)).code == 250
            await site.make(connection, "fresh")
            assert await eventually_async(lambda: _has(site, "fresh@lxtreme.nl", 250), SEEN)
            assert (await before.rcpt("fresh@lxtreme.nl")).code == 550
        await site.remove(connection, "fresh")
        assert await eventually_async(lambda: _has(site, "fresh@lxtreme.nl", 550), SEEN)
        await site.make(connection, "next")  # when that is seen, all before it has been done
        assert await eventually_async(lambda: _has(site, "next@lxtreme.nl", 250), SEEN)
        # For mail that has been accepted meanwhile.
        assert site.filemaps.ask(f"virtual_mailbox_maps{QUEUED}", "fresh@lxtreme.nl") == "lxtreme.nl/fresh/"
        assert "has changed -- restarting" in site.postfix.log()
        await site.remove(connection, "next")
    finally:
        await connection.close()


async def test_key_that_a_cdb_cannot_hold(site: Site) -> None:
    """All others go on; it is named; and once, the exit code tells."""
    connection = await site.connect()
    try:
        await connection.execute("INSERT INTO user_addresses VALUES ('eve', $1)", COMMENT)
        await site.make(connection, "beside")
        assert await eventually_async(lambda: _has(site, "beside@lxtreme.nl", 250), SEEN)
        assert await eventually_async(
            lambda: _is_logged(site, f"table=virtual_mailbox_maps key={COMMENT} "), SEEN
        )
        assert await site.code(COMMENT) == 550
        with FileMaps(site.filemaps.dsn, kind="cdb") as once:
            named = set(_names(once.once(code=1).stderr))
        tables = ("virtual_alias_maps", "virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps")
        assert {(table, COMMENT) for table in (*tables, "smtpd_sender_login_maps")} <= named
        await site.remove(connection, "beside")
    finally:
        await connection.execute("DELETE FROM user_addresses WHERE alias = $1", COMMENT)
        await connection.close()


async def test_inactive_account_under_a_catch_all(site: Site) -> None:
    """A cdb cannot hold the mail back (lmdb: 451); that the catch-all gets it has been said."""
    assert await site.code(GONE) == 250
    assert f"table=virtual_alias_maps key={GONE} " in site.filemaps.log()


async def test_nothing_bounces_while_mailboxes_come_and_go(site: Site) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")  # noqa: T201  # pytest shows it when a test fails
    churn = Churn(site, "come", SECONDS, random.Random(seed))
    await churn.run()
    await churn.check()
    assert len(churn.accepted) > 10
    assert churn.refused.keys() <= {451, 550}, churn.refused


async def test_nothing_complained(site: Site) -> None:
    """Last."""
    assert site.postfix.complaints() == []


def _names(text: str) -> Iterator[tuple[str, str]]:
    """The tables and keys that a command's standard error names."""
    for line in text.splitlines():
        table, _, rest = line.partition(": ")
        yield table, rest.partition("': ")[0].removeprefix("'")


def _answers(filemaps: FileMaps, table: str, keys: dict[str, str]) -> dict[str, str]:
    """What postmap finds of these keys."""
    words = ["postmap", "-q", "-", filemaps.map(table)]
    lines = "".join(f"{key}\n" for key in keys)
    done = subprocess.run(words, input=lines, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return dict(line.split("\t", 1) for line in done.stdout.splitlines())


async def _has(site: Site, recipient: str, code: int) -> bool:
    return await site.code(recipient) == code


async def _is_logged(site: Site, text: str) -> bool:
    return text in await asyncio.to_thread(site.filemaps.log)
