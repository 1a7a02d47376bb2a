"""The how-to's delivery from our files, with nothing but Postfix and mailmaps: virtual(8), uid, gid, Maildir.

The example of postfix/virtual as it is copied, its files kept by `mailmaps filemaps --follow`. What must not
happen, whatever is made and removed, killed or away: that something smtpd(8) has accepted bounces.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from tests.system.filemaps import FileMaps
from tests.system.mail_data import DATABASE, load
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.smtp import PROBE, Dialog, Refused, send

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

FILES, BASE = "/var/lib/mailmaps-filemaps", "/var/local/mail"
"""What the example names; the test has its own."""

LIMIT = 60.0
"""Seconds in which a change is in the files, however busy the machine is."""

SECONDS = float(os.environ.get("SECONDS", "15"))
"""For which mailboxes come and go."""

JAN = "janwillem.janssen@lxtreme.nl"

MAKE = """
WITH account AS (
   INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   VALUES ($1, $2, 5001, $1 || '@lxtreme.nl', 'lxtreme.nl/' || $1, '1') RETURNING username)
INSERT INTO user_addresses (username, alias) SELECT username, username || '@lxtreme.nl' FROM account
UNION ALL SELECT username, 'other.' || username || '@lxtreme.nl' FROM account
"""
FORWARD = """
INSERT INTO mailmaps.forwards (address, target) VALUES ('to.' || $1 || '@lxtreme.nl', $1 || '@lxtreme.nl')
"""
REMOVE = (
    "DELETE FROM mailmaps.forwards WHERE address = 'to.' || $1 || '@lxtreme.nl'",
    "DELETE FROM user_addresses WHERE username = $1",
    "DELETE FROM user_accounts WHERE username = $1",
)


@dataclass
class Site:
    """PostgreSQL, the files, and a Postfix that reads nothing else."""

    postgres: EmbeddedPostgres
    filemaps: FileMaps
    postfix: PrivatePostfix
    mail: Path
    uids: Iterator[int] = field(default_factory=lambda: iter(range(6000, 60000)))

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self.postgres.dsn(DATABASE))

    async def make(self, connection: asyncpg.Connection[asyncpg.Record], name: str) -> int:
        """A new account with two addresses and a forward; its uid."""
        uid = next(self.uids)
        async with connection.transaction():
            await connection.execute(MAKE, name, uid)
            await connection.execute(FORWARD, name)
        return uid

    async def remove(self, connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
        async with connection.transaction():
            for statement in REMOVE:
                await connection.execute(statement, name)

    async def code(self, recipient: str) -> int:
        async with Dialog(self.postfix.port) as dialog:
            return (await dialog.rcpt(recipient)).code

    def probes(self) -> dict[str, list[Path]]:
        """The messages in all mailboxes, by what names them."""
        found: dict[str, list[Path]] = {}
        for path in self.mail.glob("*/*/new/*"):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith(f"{PROBE}: "):
                    found.setdefault(line.removeprefix(f"{PROBE}: "), []).append(path)
        return found

    def bounces(self) -> list[str]:
        return [line for line in self.postfix.log().splitlines() if "status=bounced" in line]


@pytest.fixture(scope="module")
def mail() -> Iterator[Path]:
    """virtual_mailbox_base: whoever has a domain's gid may make a mailbox, and nobody rename another's."""
    mail = Path(tempfile.mkdtemp(prefix="mailmaps-mail-", dir="/tmp"))
    try:
        mail.chmod(0o755)
        for domain, gid in (("lxtreme.nl", 5001), ("second.test", 5002), ("catch.test", 5003)):
            (mail / domain).mkdir()
            os.chown(mail / domain, 0, gid)
            (mail / domain).chmod(0o1770)
        yield mail
    finally:
        shutil.rmtree(mail, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(mail_postgres: EmbeddedPostgres, mail: Path) -> AsyncIterator[Site]:
    dsn = await load(mail_postgres)
    with FileMaps(dsn, filemaps={"most_removed": 0.9}) as filemaps:  # it is a small site
        filemaps.start()
        moved = {FILES: str(filemaps.files), BASE: str(mail)}
        async with AsyncExitStack() as stack:
            postfix = PrivatePostfix.from_example("virtual", moved)
            yield Site(mail_postgres, filemaps, await stack.enter_async_context(postfix), mail)


async def test_the_howtos_listing(site: Site) -> None:
    """Delivered as the owner, with the modes that the how-to shows."""
    for recipient, name, uid in (
        (JAN, "janwillem.janssen", 5001),
        ("postmaster+x@lxtreme.nl", "janwillem.janssen", 5001),
        ("info@lxtreme.nl", "info", 5002),
    ):
        reply = await send(site.postfix.port, f"listing {recipient}", recipient)
        await site.postfix.removed(reply.queue_id)
        [path] = site.probes()[f"listing {recipient}"]
        assert path.parent == site.mail / "lxtreme.nl" / name / "new"
        for there, mode in ((path, 0o600), (path.parent, 0o700), (path.parent.parent, 0o700)):
            status = there.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (uid, 5001, mode)
    assert await site.code("nobody@lxtreme.nl") == 550
    assert await site.code("someone@elsewhere.test") == 554
    assert await site.code("sleeper@second.test") == 550, "an inactive account"
    assert await site.code("gone@catch.test") == 451, "an inactive account that a catch-all would answer for"


@dataclass
class Churn:
    """Accounts that come and go, and mail for them that arrives meanwhile."""

    site: Site
    name: str
    seconds: float
    random: random.Random
    uids: dict[str, int] = field(default_factory=dict)  # of all accounts there ever were
    alive: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)  # the account, by probe
    refused: dict[int, int] = field(default_factory=dict)
    made: int = 0
    removed: int = 0

    async def run(self) -> None:
        until = time.monotonic() + self.seconds
        senders = (self._send(number, until) for number in range(6))
        await asyncio.gather(self._change(until), *senders)

    async def _change(self, until: float) -> None:
        """Twenty a second, half of them new."""
        connection = await self.site.connect()
        try:
            for number in range(10):
                await self._make(connection, f"{self.name}{number}")
            number, due = 10, time.monotonic()
            while time.monotonic() < until:
                due += 0.1
                await self._make(connection, f"{self.name}{number}")
                name = self.alive.pop(self.random.randrange(len(self.alive)))
                self.gone.append(name)
                await self.site.remove(connection, name)
                self.removed += 1
                number += 1
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        finally:
            await connection.close()

    async def _make(self, connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
        self.uids[name] = await self.site.make(connection, name)
        self.alive.append(name)
        self.made += 1

    async def _send(self, sender: int, until: float) -> None:
        """To one of the youngest, one of those just removed, or any."""
        number = 0
        while time.monotonic() < until:
            names = self.random.choice([self.alive[-3:], self.gone[-3:], self.alive]) or self.alive
            if not names:
                await asyncio.sleep(0.05)
                continue
            name = self.random.choice(names)
            address = self.random.choice(["", "other.", "to."]) + name + self.random.choice(["", "+x"])
            probe = f"{self.name} {sender} {number}"
            number += 1
            try:
                await send(self.site.postfix.port, probe, f"{address}@lxtreme.nl")
            except Refused as refused:
                self.refused[refused.reply.code] = self.refused.get(refused.reply.code, 0) + 1
            else:
                self.accepted[probe] = name

    async def check(self) -> None:
        """Nothing bounced, and every accepted message is where it belongs, once."""
        print(f"{self.made} made, {self.removed} removed, {len(self.accepted)} accepted, {self.refused}")  # noqa: T201
        await self.site.postfix.drained(120.0)
        assert self.site.bounces() == []
        probes = self.site.probes()
        lost = [probe for probe in self.accepted if len(probes.get(probe, ())) != 1]
        assert lost == []
        for probe, name in self.accepted.items():
            [path] = probes[probe]
            status = path.stat()
            assert path.parent == self.site.mail / "lxtreme.nl" / name / "new"
            assert (status.st_uid, status.st_gid) == (self.uids[name], 5001)


def _seed() -> random.Random:
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")  # noqa: T201  # pytest shows it when a test fails
    return random.Random(seed)


async def test_nothing_bounces_while_mailboxes_come_and_go(site: Site) -> None:
    churn = Churn(site, "come", SECONDS, _seed())
    await churn.run()
    await churn.check()
    assert len(churn.accepted) > 50
    assert churn.refused.keys() <= {451, 550}, churn.refused
    await _settled(churn)


async def test_nothing_bounces_although_the_writer_is_killed(site: Site) -> None:
    """Every now and then, in the middle of whatever it does."""
    churn = Churn(site, "killed", SECONDS, _seed())
    task = asyncio.ensure_future(churn.run())
    while not task.done():
        await asyncio.sleep(churn.random.uniform(0.3, 1.5))
        site.filemaps.kill()
        await asyncio.to_thread(site.filemaps.start)
    await task
    await churn.check()
    await _settled(churn)


async def _settled(churn: Churn) -> None:
    """In the end smtpd(8) knows those who are there and nobody else, of the last ones."""
    wanted = {f"{name}@lxtreme.nl": 250 for name in churn.alive[-5:]}
    wanted |= {f"to.{name}@lxtreme.nl": 550 for name in churn.gone[-5:]}
    codes: dict[str, int] = {}

    async def agrees() -> bool:
        for address in wanted:
            codes[address] = await churn.site.code(address)
        return codes == wanted

    assert await eventually_async(agrees, LIMIT), f"{codes}\n{churn.site.filemaps.log()[-4000:]}"


async def test_queued_mail_for_a_removed_mailbox_is_delivered(site: Site) -> None:
    """It was accepted; the mailbox is gone before virtual(8) has it."""
    connection = await site.connect()
    try:
        uid = await site.make(connection, "late")
        assert await eventually_async(lambda: _is(site, "late@lxtreme.nl", 250), LIMIT)
        site.postfix.configure({"defer_transports": "virtual"})
        site.postfix.reload()
        replies = [
            await send(site.postfix.port, f"late {to}", f"{to}@lxtreme.nl") for to in ("late", "to.late")
        ]
        await site.remove(connection, "late")
        assert await eventually_async(lambda: _is(site, "late@lxtreme.nl", 550), LIMIT)
        site.postfix.configure({"defer_transports": ""})
        site.postfix.reload()
        site.postfix.flush()
        for reply in replies:
            await site.postfix.removed(reply.queue_id)
        for to in ("late", "to.late"):
            [path] = site.probes()[f"late {to}"]
            assert path.stat().st_uid == uid
        assert site.bounces() == []
    finally:
        await connection.close()


async def _is(site: Site, recipient: str, code: int) -> bool:
    return await site.code(recipient) == code


async def test_a_new_account_has_its_folder_before_its_mail(site: Site, mail: Path) -> None:
    """virtual(8) could not make it there: nobody but root may write the domain's folder."""
    (mail / "closed").mkdir()
    connection = await site.connect()
    more: dict[str, str | bool | float] = {
        "maildirs": True,
        "most_removed": 0.9,
        "directory": str(site.filemaps.files),
    }
    base = {"virtual_mailbox_base": str(mail)}
    site.filemaps.stop()
    try:
        with FileMaps(site.filemaps.dsn, filemaps=more, postfix=base) as filemaps:
            filemaps.start()
            uid = await site.make(connection, "boxed")
            await connection.execute(
                "UPDATE user_accounts SET mailbox = 'closed/boxed' WHERE username = 'boxed'"
            )
            assert await eventually_async(lambda: (mail / "closed/boxed/new").is_dir(), LIMIT), filemaps.log()
            assert await eventually_async(lambda: _is(site, "boxed@lxtreme.nl", 250), LIMIT)
            reply = await send(site.postfix.port, "boxed", "boxed@lxtreme.nl")
            await site.postfix.removed(reply.queue_id)
            [path] = (mail / "closed/boxed/new").iterdir()
            assert (path.stat().st_uid, path.stat().st_gid) == (uid, 5001)
    finally:
        await connection.close()
        await asyncio.to_thread(site.filemaps.start)


async def test_what_cannot_be_delivered_is_not_accepted(site: Site) -> None:
    """451 and not 550: the account is there, and somebody will mend it, or remove it."""
    connection = await site.connect()
    try:
        cases = {
            "lowuid": "UPDATE user_accounts SET uid = 4999 WHERE username = $1",
            "rootuid": "UPDATE user_accounts SET uid = 0 WHERE username = $1",
            "rootgid": "WITH zero AS (INSERT INTO domains (gid, domain) VALUES (0, 'zero.test')) "
            "UPDATE user_accounts SET gid = 0 WHERE username = $1",
            "upwards": "UPDATE user_accounts SET mailbox = 'lxtreme.nl/../../etc/x' WHERE username = $1",
            "control": "UPDATE user_accounts SET mailbox = E'lxtreme.nl/a\\nb' WHERE username = $1",
        }
        for name, statement in cases.items():
            await site.make(connection, name)
            await connection.execute(statement, name)
            assert await eventually_async(partial(_is, site, f"{name}@lxtreme.nl", 451), LIMIT), name
            assert await site.code(f"other.{name}@lxtreme.nl") == 451
            assert await eventually_async(partial(_has_named, site, name), LIMIT)
            await _deferred_for_it_alone(site, connection, name)
            await site.remove(connection, name)
            assert await eventually_async(partial(_is, site, f"{name}@lxtreme.nl", 550), LIMIT)
    finally:
        await connection.close()


async def _deferred_for_it_alone(
    site: Site, connection: asyncpg.Connection[asyncpg.Record], name: str
) -> None:
    """A list that has the account goes on for all others."""
    await connection.execute(
        "INSERT INTO mailmaps.forwards (address, target) SELECT $1, unnest($2::text[])",
        f"list.{name}@lxtreme.nl",
        [f"{name}@lxtreme.nl", "info@lxtreme.nl"],
    )
    assert await eventually_async(partial(_is, site, f"list.{name}@lxtreme.nl", 250), LIMIT)
    reply = await send(site.postfix.port, f"list {name}", f"list.{name}@lxtreme.nl")
    line = f"{reply.queue_id}: to=<{name}@lxtreme.nl>"
    assert await eventually_async(
        lambda: any(line in one and "status=deferred" in one for one in site.postfix.log().splitlines()),
        LIMIT,
    )
    assert await eventually_async(lambda: len(site.probes().get(f"list {name}", ())) == 1, LIMIT)
    await connection.execute("DELETE FROM mailmaps.forwards WHERE address = $1", f"list.{name}@lxtreme.nl")
    site.postfix.delete(reply.queue_id)


def _has_named(site: Site, name: str) -> bool:
    return f"{name}@lxtreme.nl" in site.filemaps.log()


async def test_without_daemon_and_database_mail_is_delivered(site: Site) -> None:
    """Both killed, and the writer of the files too; when they are back, so are changes."""
    site.filemaps.kill()
    site.postgres.stop()
    try:
        for number, recipient in enumerate((JAN, "eve@second.test", "whoever@catch.test")):
            reply = await send(site.postfix.port, f"away {number}", recipient)
            await site.postfix.removed(reply.queue_id)
            assert len(site.probes()[f"away {number}"]) == 1
        assert await site.code("nobody@lxtreme.nl") == 550
        site.postfix.restart()
        assert await site.code(JAN) == 250
    finally:
        site.postgres.start()
    await asyncio.to_thread(site.filemaps.start)
    connection = await site.connect()
    try:
        await site.make(connection, "afterwards")
        assert await eventually_async(lambda: _is(site, "afterwards@lxtreme.nl", 250), LIMIT)
    finally:
        await connection.close()


async def test_a_database_that_goes_and_comes_is_followed_again(site: Site) -> None:
    site.postgres.kill()
    assert await site.code(JAN) == 250
    site.postgres.start()
    connection = await site.connect()
    try:
        await site.make(connection, "again")
        assert await eventually_async(lambda: _is(site, "again@lxtreme.nl", 250), LIMIT), site.filemaps.log()[
            -3000:
        ]
    finally:
        await connection.close()


async def test_nothing_complained(site: Site) -> None:
    """Last: but for keys that wait, of which the log names each, and mail that was held back."""
    expected = ("returns an empty string result", "should return NO RESULT", "lookup error for", "lookup ")
    assert [line for line in site.postfix.complaints() if not any(part in line for part in expected)] == []
