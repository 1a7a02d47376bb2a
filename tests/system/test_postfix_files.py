"""The complete configurations of postfix/, as they are copied: virtual(8) from files, and LMTP to Dovecot.

The files are made here by hand, as `mailmaps filemaps` makes them: one for each table, a second one of two
tables in which what was removed stays for a while, and an empty value for "cannot say".
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import ssl
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib
import pytest
import pytest_asyncio
from tests.system.daemon import Daemon
from tests.system.lmtp_sink import LmtpSink
from tests.system.mail_data import load
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.sasl_stub import SaslStub
from tests.system.smtp import PROBE, SENDER, Dialog, Refused, send

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.mirrors.environment import open_environment

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

FILES = "/var/lib/mailmaps-filemaps"
BASE = "/var/local/mail"
"""What the example names; the test has its own."""

INFO, JAN = "info@lxtreme.nl", "janwillem.janssen@lxtreme.nl"
TROUBLE = "trouble@lxtreme.nl"

TABLES: Mapping[str, Mapping[str, str]] = {
    "virtual_mailbox_domains": {"lxtreme.nl": "virtual:"},
    "transport_maps": {"lxtreme.nl": "virtual:"},
    "virtual_alias_maps": {INFO: INFO, JAN: JAN, "postmaster@lxtreme.nl": JAN},
    "virtual_mailbox_maps": {INFO: "lxtreme.nl/info/", JAN: "lxtreme.nl/janwillem.janssen/", TROUBLE: ""},
    "virtual_uid_maps": {INFO: "5002", JAN: "5001", TROUBLE: ""},
    "virtual_gid_maps": {INFO: "5001", JAN: "5001", TROUBLE: ""},
    "smtpd_sender_login_maps": {INFO: "info_lx", JAN: "jawi_lx"},
}

QUEUED = ("virtual_mailbox_maps", "virtual_alias_maps")


def write_file(directory: Path, table: str, rows: Mapping[str, str]) -> None:
    """Let `rows` be all that a table's file has; whoever reads it sees all of them at once."""
    path = directory / f"{table}.lmdb"
    environment = open_environment(path, 1 << 24, is_new=not path.exists())
    try:
        with path.open("rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # as Postfix's own writers do; it reads under a shared one
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(txn=transaction), delete=False)
                for key, value in rows.items():
                    transaction.put(key.encode(), value.encode())
    finally:
        environment.close()
    path.chmod(0o644)


@dataclass
class Site:
    """A Postfix from the example, with files, mailboxes, and a sink for everybody else."""

    postfix: PrivatePostfix
    directory: Path
    mail: Path
    outside: LmtpSink

    def set(self, table: str, rows: Mapping[str, str]) -> None:
        write_file(self.directory, table, rows)

    def found(self, probe: str) -> list[Path]:
        """The files that hold a message, below the mailboxes."""
        return [
            path
            for path in self.mail.rglob("*")
            if path.is_file() and f"{PROBE}: {probe}\n" in path.read_text(errors="replace")
        ]

    async def deliver(self, probe: str, recipient: str) -> Path:
        """Send a message; the one file it is in."""
        reply = await send(self.postfix.port, probe, recipient)
        await self.postfix.removed(reply.queue_id)
        [path] = self.found(probe)
        return path

    async def code(self, recipient: str) -> int:
        async with Dialog(self.postfix.port) as dialog:
            return (await dialog.rcpt(recipient)).code

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Meanwhile mail for mailboxes waits in the queue; then it goes."""
        self.postfix.configure({"defer_transports": "virtual"})
        self.postfix.reload()
        try:
            yield
        finally:
            self.postfix.configure({"defer_transports": ""})
            self.postfix.reload()
            self.postfix.flush()

    def bounced(self) -> int:
        return sum(1 for delivery in self.outside.deliveries if not delivery.sender)

    async def one_more_bounce(self, than: int) -> None:
        came = await eventually_async(lambda: self.bounced() == than + 1, 30.0)
        assert came, f"{than} bounces before, {self.bounced()} now\n{self.postfix.log()[-6000:]}"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Files in `files`, and `mail` with the how-to's owners and modes: a mailbox is made by its owner."""
    folder = Path(tempfile.mkdtemp(prefix="mailmaps-example-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        for name in ("files", "mail", "mail/lxtreme.nl"):
            (folder / name).mkdir()
        (folder / "mail/lxtreme.nl").chmod(0o770)
        os.chown(folder / "mail/lxtreme.nl", pwd.getpwnam("postfix").pw_uid, 5001)
        for table, rows in TABLES.items():
            write_file(folder / "files", table, rows)
        for table in QUEUED:
            write_file(folder / "files", f"{table}.queued", TABLES[table])
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(folder: Path, outside: LmtpSink) -> AsyncIterator[Site]:
    directory, mail = folder / "files", folder / "mail"
    async with AsyncExitStack() as stack:
        sasl = await stack.enter_async_context(SaslStub())
        moved = {FILES: str(directory), BASE: str(mail), "mailmaps/auth": sasl.settings["smtpd_sasl_path"]}
        settings = {"default_transport": outside.nexthop}
        postfix = PrivatePostfix.from_example("virtual", moved, settings)
        # As its comment says for those without the policy service.
        postfix.options = {
            "submission/inet/smtpd_sender_restrictions": "reject_sender_login_mismatch",
            "submission/inet/smtpd_data_restrictions": "reject_unauth_pipelining",
        }
        yield Site(await stack.enter_async_context(postfix), directory, mail, outside)


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test may change any file."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        for table, rows in TABLES.items():
            site.set(table, rows)
        for table in QUEUED:
            site.set(f"{table}.queued", TABLES[table])


@pytest.mark.parametrize(
    ("recipient", "mailbox", "uid"),
    [
        (INFO, "info", 5002),
        ("INFO+News@LXTREME.NL", "info", 5002),
        ("postmaster@lxtreme.nl", "janwillem.janssen", 5001),
    ],
)
async def test_delivered_as_the_owner_and_for_nobody_else(
    site: Site, recipient: str, mailbox: str, uid: int
) -> None:
    path = await site.deliver(f"to {recipient}", recipient)
    maildir = site.mail / "lxtreme.nl" / mailbox
    assert path.parent == maildir / "new"
    assert _owner(path) == (uid, 5001, 0o600)
    assert [_owner(folder) for folder in (maildir, maildir / "new", maildir / "cur", maildir / "tmp")] == [
        (uid, 5001, 0o700)
    ] * 4


@pytest.mark.parametrize(
    ("recipient", "code"),
    [("nobody@lxtreme.nl", 550), ("x@elsewhere.test", 554), (TROUBLE, 451), (INFO, 250)],
)
async def test_at_rcpt(site: Site, recipient: str, code: int) -> None:
    assert await site.code(recipient) == code


@pytest.mark.parametrize("sender", [SENDER, INFO, "", "root@mx.example.com"])
async def test_no_open_relay(site: Site, sender: str) -> None:
    async with Dialog(site.postfix.port) as dialog:
        for recipient in (
            "x@elsewhere.test",
            "x%elsewhere.test@lxtreme.nl",
            '"x@elsewhere.test"@[127.0.0.1]',
        ):
            reply = await dialog.rcpt(recipient, sender)
            assert reply.code in (550, 554), reply


async def test_vrfy_tells_nothing(site: Site) -> None:
    async with Dialog(site.postfix.port) as dialog:
        assert (await dialog.say(f"VRFY {INFO}")).code == 502


@pytest.mark.parametrize(
    ("login", "sender", "code"),
    [
        ("info_lx", INFO, 250),
        ("info_lx", JAN, 553),
        ("info_lx", SENDER, 553),
        ("", INFO, 553),
        ("", SENDER, 554),
    ],
)
async def test_submission(site: Site, login: str, sender: str, code: int) -> None:
    """Who logged in sends anywhere, as himself. Without TLS nobody gets so far."""
    probe = f"submission {login} {sender}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = aiosmtplib.SMTP(
        hostname="127.0.0.1", port=site.postfix.submission_port, start_tls=False, timeout=30
    )
    async with client:
        with pytest.raises(aiosmtplib.SMTPException):
            await client.mail(sender)
        await client.starttls(tls_context=context)
        if login:
            await client.ehlo()
            await client.auth_plain(login, "x")
        said = 250
        try:
            await client.sendmail(sender, ["x@elsewhere.test"], f"{PROBE}: {probe}\n\nhello\n")
        except aiosmtplib.SMTPRecipientsRefused as error:
            said = error.recipients[0].code
        except aiosmtplib.SMTPResponseException as error:
            said = error.code
    assert said == code
    if code == 250:
        await site.outside.until(lambda: site.outside.recipients(PROBE, probe) == ["x@elsewhere.test"])


async def test_queued_mail_for_a_removed_mailbox_is_delivered(site: Site) -> None:
    bounced = site.bounced()
    with site.held_back():
        reply = await send(site.postfix.port, "removed", INFO)
        site.set("virtual_mailbox_maps", _without(TABLES["virtual_mailbox_maps"], INFO))
        site.set("virtual_alias_maps", _without(TABLES["virtual_alias_maps"], INFO))
        assert await site.code(INFO) == 550, "and nothing new is accepted, at once"
    await site.postfix.removed(reply.queue_id)
    assert len(site.found("removed")) == 1
    assert site.bounced() == bounced


async def test_without_the_queued_file_it_would_bounce(site: Site) -> None:
    """So the test before this one shows something, and this is what a site without `-o` gets."""
    bounced = site.bounced()
    with site.held_back():
        reply = await send(site.postfix.port, "removed everywhere", INFO)
        for table in ("virtual_mailbox_maps", "virtual_mailbox_maps.queued"):
            site.set(table, _without(TABLES["virtual_mailbox_maps"], INFO))
    await site.postfix.removed(reply.queue_id)
    assert site.found("removed everywhere") == []
    await site.one_more_bounce(bounced)


async def test_cleanup_reads_the_queued_aliases(site: Site) -> None:
    """What smtpd(8) takes from one file is rewritten by the other, which may know more."""
    rows = _without(TABLES["virtual_alias_maps"], "postmaster@lxtreme.nl")
    site.set("virtual_alias_maps.queued", {**rows, "postmaster@lxtreme.nl": INFO})
    path = await site.deliver("alias", "postmaster@lxtreme.nl")
    assert path.parent.parent.name == "info", "the plain file says janwillem.janssen"
    site.set("virtual_alias_maps", rows)
    assert await site.code("postmaster@lxtreme.nl") == 550


async def test_an_empty_value_makes_mail_wait(site: Site) -> None:
    """One that can be accepted and not be delivered: nothing bounces, and when it is mended the mail goes."""
    bounced = site.bounced()
    site.set("virtual_mailbox_maps.queued", {**TABLES["virtual_mailbox_maps"], INFO: ""})
    reply = await send(site.postfix.port, "empty", INFO)
    assert await eventually_async(lambda: _deferred(site, reply.queue_id, "4.3.5"), 20.0)
    site.set("virtual_mailbox_maps.queued", TABLES["virtual_mailbox_maps"])
    site.set("virtual_uid_maps", {**TABLES["virtual_uid_maps"], INFO: ""})
    seen = len(site.postfix.log())
    site.postfix.flush()
    assert await eventually_async(lambda: _deferred(site, reply.queue_id, "4.3.5", seen), 20.0)
    site.set("virtual_uid_maps", TABLES["virtual_uid_maps"])
    site.postfix.flush()
    await site.postfix.removed(reply.queue_id)
    assert len(site.found("empty")) == 1
    assert site.bounced() == bounced


async def test_a_chroot_needs_no_files_in_it(site: Site) -> None:
    """Debian's smtpd(8) and cleanup(8) see the queue folder alone; their tables were opened before."""
    await site.deliver("in a chroot", INFO)
    roots, queue = site.postfix.roots(), site.postfix.folder / "queue"
    assert [roots[name] for name in ("smtpd", "cleanup", "trivial-rewrite")] == [{str(queue)}] * 3
    assert roots["virtual"] == {"/"}
    assert not any(name.endswith(".lmdb") for _, _, names in os.walk(queue) for name in names)


async def test_nothing_complained(site: Site) -> None:
    """Last of this site: but for the empty values, of which the log names each."""
    expected = re.compile(
        r"virtual_\w+ lookup of \S+ returns an empty string result|should return NO RESULT in case of NOT"
        r"|virtual\[\d+\]: warning: (table virtual_\w+: lookup|recipient) \S+@lxtreme.nl"
    )
    assert [line for line in site.postfix.complaints() if not expected.search(line)] == []


@pytest.mark.postgres
async def test_the_lmtp_example_delivers_what_the_daemon_knows(
    mail_postgres: EmbeddedPostgres, sink: LmtpSink, outside: LmtpSink
) -> None:
    dsn = await load(mail_postgres)
    settings: dict[str, str | dict[str, str | bool]] = {
        "delivery": sink.nexthop,
        "database": {"dsn": dsn, "honour_active": True},
        "postfix": {"recipient_delimiter": "+", "myorigin": "mx.example.com"},
    }
    with Daemon(settings) as daemon:
        ports = {
            "tcp:127.0.0.1:17011": daemon.map("tcp", "transport_maps"),
            "tcp:127.0.0.1:17012": daemon.map("tcp", "virtual_mailbox_domains"),
            "tcp:127.0.0.1:17013": daemon.map("tcp", "virtual_alias_maps"),
            "tcp:127.0.0.1:17014": daemon.map("tcp", "virtual_mailbox_maps"),
            "tcp:127.0.0.1:17017": daemon.map("tcp", "smtpd_sender_login_maps"),
            "inet:127.0.0.1:17018": f"inet:127.0.0.1:{daemon.ports['policy']}",
            "lmtp:unix:private/dovecot-lmtp": sink.nexthop,
        }
        example = PrivatePostfix.from_example("lmtp", ports, {"default_transport": outside.nexthop})
        async with example as postfix:
            for address, got in {
                "postmaster+x@lxtreme.nl": "janwillem.janssen+x@lxtreme.nl",
                "info@alias.test": INFO,
                "whoever@catch.test": "keeper@catch.test",
            }.items():
                reply = await send(postfix.port, f"lmtp {address}", address)
                await postfix.removed(reply.queue_id)
                assert sink.recipients(PROBE, f"lmtp {address}") == [got]
            for address, code in {"nobody@lxtreme.nl": 550, "x@elsewhere.test": 554}.items():
                with pytest.raises(Refused) as refused:
                    await send(postfix.port, "refused", address)
                assert refused.value.reply.code == code
            assert postfix.complaints() == []


def _deferred(site: Site, queue_id: str, status: str, seen: int = 0) -> bool:
    line = re.compile(rf"{queue_id}: .*dsn={re.escape(status)}, status=deferred")
    return line.search(site.postfix.log(), seen) is not None


def _without(rows: Mapping[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in rows.items() if name != key}


def _owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
