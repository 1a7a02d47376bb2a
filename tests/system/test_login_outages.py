"""Postfix, Dovecot and mailmaps together, as the shipped configurations have them; then PostgreSQL goes away.

A message goes the whole way: SMTP AUTH, Postfix, LMTP, Maildir, IMAP. In the outage nobody hears "wrong
password", "no such user", or "yes".
"""

from __future__ import annotations

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import pytest
import pytest_asyncio
from tests.conftest import AUTH_PASSWORD, READER_PASSWORD
from tests.system.dovecot import PrivateDovecot, installed_version
from tests.system.lmtp_sink import LmtpSink
from tests.system.login_site import ACCOUNTS, ANNA, BERT, GONE, JAN, SECRET, LoginSite, insert
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.test_dovecot import GRACE
from tests.system.test_postfix_sasl import DEFAULT_PORTS, Mail, auth, link_mux, use_cyrus

from mailmaps.database.migrations import Site as SchemaSite
from mailmaps.database.migrations import create
from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

OUTSIDE = "somebody@outside.test"
SENDER = "friend@outside.test"


@dataclass(frozen=True)
class Everything:
    """All of a mail server."""

    mail: Mail
    dovecot: PrivateDovecot
    postgres: EmbeddedPostgres

    @property
    def logins(self) -> LoginSite:
        return self.mail.logins


def by_virtual(logins: LoginSite) -> dict[str, str]:
    """Options of virtual(8), for mail that it gets in place of Dovecot: all of it is JAN's."""
    values = {
        "virtual_mailbox_base": str(logins.base),
        "virtual_mailbox_maps": f"static:{JAN.mailbox}/",
        "virtual_uid_maps": f"static:{JAN.uid}",
        "virtual_gid_maps": "static:5001",
    }
    return {f"virtual/unix/{name}": value for name, value in values.items()}


async def make_database(postgres: EmbeddedPostgres) -> None:
    """The roles, the schema and the accounts."""
    connection = await asyncpg.connect(postgres.dsn())
    try:
        for role, password in (("mailreader", READER_PASSWORD), ("mailauth", AUTH_PASSWORD)):
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        await create(
            connection,
            SchemaSite(recipient_delimiter="+", login_realm="lxtreme.nl", login_addresses=True),
            lambda _: None,
        )
        await insert(connection)
    finally:
        await connection.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def everything(mail_postgres: EmbeddedPostgres, outside: LmtpSink) -> AsyncIterator[Everything]:
    await make_database(mail_postgres)
    async with AsyncExitStack() as stack:
        postfix = PrivatePostfix.from_example("lmtp", settings={"default_transport": outside.nexthop})
        logins = LoginSite(
            mail_postgres.dsn("postgres", "mailreader", READER_PASSWORD),
            mail_postgres.dsn("postgres", "mailauth", AUTH_PASSWORD),
            {
                "login": {"group": "dovecot"},
                "dovecot_auth": {"group": "postfix"},
                "saslauthd": {"group": "postfix"},
            },
            postfix.folder / "queue",
        )
        stack.callback(logins.close)
        postfix.move(
            {
                f"127.0.0.1:{port}": f"127.0.0.1:{logins.daemon.ports[name]}"
                for name, port in DEFAULT_PORTS.items()
            }
        )
        use_cyrus(postfix)
        postfix.options = postfix.options | by_virtual(logins)
        for person in ACCOUNTS:
            logins.make_maildir(person.mailbox, person.uid)
        await stack.enter_async_context(postfix)
        link_mux(postfix)
        await asyncio.to_thread(logins.daemon.start)
        door = "checkpassword" if installed_version().startswith("2.3") else "lua"
        dovecot = PrivateDovecot(logins.daemon.config, door, queue=postfix.folder / "queue")
        stack.enter_context(dovecot)
        yield Everything(Mail(postfix, logins, outside), dovecot, mail_postgres)


async def send(everything: Everything, recipient: str, body: str = "hello") -> str:
    """A message from outside by port 25; "250", or the code and text of the refusal."""

    def talk() -> str:
        with smtplib.SMTP("127.0.0.1", everything.mail.postfix.port, "client.test", timeout=60) as client:
            try:
                client.sendmail(SENDER, [recipient], f"Subject: test\n\n{body}\n")
            except smtplib.SMTPRecipientsRefused as error:
                code, text = error.recipients[recipient]
                return f"{code} {text.decode()}"
            return "250"

    return await asyncio.to_thread(talk)


async def imap(everything: Everything, user: str, password: str = SECRET) -> str:
    return await asyncio.to_thread(everything.dovecot.imap_login, user, password)


async def smtp(everything: Everything, user: str, password: str = SECRET, door: str = "dovecot") -> int:
    def talk() -> int:
        with everything.mail.session(door) as client:
            return auth(client, user, password)

    return await asyncio.to_thread(talk)


async def test_a_message_the_whole_way(everything: Everything) -> None:
    def submit() -> None:
        with everything.mail.submission() as client:
            assert auth(client, ANNA.email, SECRET) == 235
            client.sendmail(ANNA.email, ["J.W.Janssen+Lists@lxtreme.nl"], "Subject: to jan\n\nhello\n")

    await asyncio.to_thread(submit)
    await everything.mail.postfix.drained()
    [message] = (everything.logins.base / JAN.mailbox / "new").iterdir()
    assert (message.stat().st_uid, message.stat().st_gid) == (JAN.uid, 5001)
    lines = await asyncio.to_thread(everything.dovecot.imap, JAN.email, SECRET, "STATUS INBOX (MESSAGES)")
    assert any("MESSAGES 1" in line for line in lines), lines


async def test_virtual_and_lmtp_fill_one_mailbox(everything: Everything) -> None:
    """One message by each, both seen by one login; virtual:NEXTHOP is virtual(8) whatever `delivery` says."""

    async def route(transport: str) -> None:
        connection = await asyncpg.connect(everything.postgres.dsn())
        await connection.execute("UPDATE domains SET transport = $1", transport)
        await connection.close()
        table, key = "transport_maps", "lxtreme.nl"
        expected = transport if transport != "virtual:" else "lmtp:unix:private/dovecot-lmtp"
        ask = everything.logins.daemon.ask
        assert await eventually_async(lambda: ask(table, key) == f"200 {expected}", 60), ask(table, key)

    def folder() -> set[str]:
        return {path.read_text().partition("by way of ")[2].strip() for path in new.iterdir()}

    new = everything.logins.base / JAN.mailbox / "new"
    try:
        await route("virtual:lxtreme.nl")
        assert await send(everything, JAN.email, "by way of virtual") == "250"
        await everything.mail.postfix.drained()
    finally:
        await route("virtual:")
    assert await send(everything, JAN.email, "by way of lmtp") == "250"
    await everything.mail.postfix.drained()
    assert re.search(r"relay=virtual, .* status=sent", everything.mail.postfix.log())
    assert {"virtual", "lmtp"} <= folder()
    lines = await asyncio.to_thread(
        everything.dovecot.imap, JAN.email, SECRET, "SELECT INBOX", 'SEARCH BODY "by way of"'
    )
    assert any(re.fullmatch(r"\* SEARCH \d+ \d+", line) for line in lines), lines


async def test_over_quota_is_a_bounce_that_says_so(everything: Everything) -> None:
    body = ("x" * 70 + "\n") * 14_000
    before = len(everything.mail.outside.deliveries)
    for _ in range(GRACE + 2):
        assert await send(everything, BERT.email, body) == "250"
        await everything.mail.postfix.drained()
    assert "552 5.2.2" in everything.mail.postfix.log()
    assert len(everything.mail.outside.deliveries) > before  # the bounce, to the sender


def logins_away(everything: Everything) -> bool:
    """Whether the daemon knows."""
    return everything.logins.daemon.status()["databases"]["database.auth_dsn"]["away"] is not None


async def test_postgresql_stopped_and_back(everything: Everything) -> None:
    queued = "queued before, delivered after"
    assert (await send(everything, "nobody@lxtreme.nl")).startswith("550 5.1.1")
    everything.postgres.stop()
    try:
        assert await eventually_async(lambda: logins_away(everything), 60)
        for user, password in ((JAN.username, SECRET), (JAN.username, "wrong"), ("nobody", SECRET)):
            assert (await imap(everything, user, password)).startswith("NO [UNAVAILABLE]"), user
            assert await smtp(everything, user, password) == 454
            assert await smtp(everything, user, password, "cyrus") == 454
        for recipient in (JAN.email, "nobody@lxtreme.nl", GONE.email):
            assert everything.dovecot.lmtp(recipient)[0].startswith("451 4.3.0")
            assert everything.dovecot.doveadm("user", recipient).returncode == 75
        # Known addresses are answered from the mirrors: the mail is taken, and waits for Dovecot.
        assert await send(everything, ANNA.email, queued) == "250"
        await asyncio.sleep(1)
        assert not everything.mail.postfix.queue_is_empty()
    finally:
        everything.postgres.start()

    async def logs_in() -> bool:
        return (await imap(everything, JAN.username)).startswith("OK")

    for _ in range(60):
        if await logs_in():
            break
        await asyncio.sleep(0.5)
    assert await logs_in()
    assert await smtp(everything, JAN.username) == 235
    assert (await imap(everything, JAN.username, "wrong")).startswith("NO [AUTHENTICATIONFAILED]")
    everything.mail.postfix.flush()
    await everything.mail.postfix.drained()
    files = [path.read_text() for path in (everything.logins.base / ANNA.mailbox / "new").iterdir()]
    assert len([text for text in files if queued in text]) == 1


async def test_no_secret_is_in_any_log(everything: Everything) -> None:
    for text in (
        everything.mail.postfix.log(),
        everything.dovecot.log(),
        everything.logins.daemon.log(),
    ):
        assert SECRET not in text
        assert AUTH_PASSWORD not in text
