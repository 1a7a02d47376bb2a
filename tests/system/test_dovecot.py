"""The real Dovecot with the real daemon, by every door it has: logins, lookups, delivery, quota, outages.

Run with Dovecot 2.3 (checkpassword and Lua) here and with 2.4 (Lua) by `make test-debian13`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
import pytest_asyncio
from tests.conftest import Database, new_database
from tests.system.dovecot import PrivateDovecot, installed_version
from tests.system.login_site import (
    ACCOUNTS,
    ANNA,
    BERT,
    BROKEN,
    GONE,
    IMAP_ONLY,
    JAN,
    NO_IMAP,
    NO_MAIL,
    SECRET,
    LoginSite,
    Person,
    insert,
    stored,
)

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = pytest.mark.postfix

DOORS = ("checkpassword", "lua") if installed_version().startswith("2.3") else ("lua",)

GRACE = 0 if installed_version().startswith("2.3") else 10
"""MB that a message may be over: a tenth of the quota (quota_grace), or 10 MB (quota_storage_grace)."""

ODD = Person("odd", "odd@lxtreme.nl", 5020)
ODD_MAILBOX = "lxtreme.nl/100%d %{user} a:b ~c"


class Site:
    """The daemon, a Dovecot that asks it by one door, and the database."""

    def __init__(self, database: Database, logins: LoginSite, dovecot: PrivateDovecot) -> None:
        self.database = database
        self.logins = logins
        self.dovecot = dovecot

    def maildir(self, person: Person) -> Path:
        return self.logins.base / person.mailbox


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=DOORS)
async def site(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, template: str
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(new_database(postgres, f"TEMPLATE {template}"))
        await insert(database.connection)
        await database.connection.execute(
            "INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, active)"
            " VALUES ($1, $2, 5001, $3, $4, $5, '1')",
            ODD.username,
            ODD.uid,
            stored(ODD),
            ODD.email,
            ODD_MAILBOX,
        )
        doors = {"login": {"group": "dovecot"}}
        logins = stack.enter_context(LoginSite(database.reader_dsn, database.auth_dsn, doors))
        dovecot = PrivateDovecot(logins.daemon.config, request.param)
        site = Site(database, logins, dovecot)
        for person in (*ACCOUNTS, ODD):
            logins.make_maildir(ODD_MAILBOX if person is ODD else person.mailbox, person.uid)
        stack.enter_context(dovecot)
        yield site


@pytest.fixture(autouse=True)
def _quiet(site: Site) -> Iterator[None]:
    yield
    text = site.dovecot.log() + site.logins.daemon.log()
    assert SECRET not in text
    assert not any(stored(person)[-12:] in text for person in ACCOUNTS if person is not BROKEN)


@pytest.mark.parametrize(
    ("user", "person"),
    [
        (JAN.username, JAN),
        (JAN.email, JAN),
        ("J.W.Janssen@LXtreme.nl", JAN),
        ("jawi_lx@lxtreme.nl", JAN),
        (ANNA.email, ANNA),
        (BERT.username, BERT),
    ],
)
def test_imap_login_by_name_and_by_address(site: Site, user: str, person: Person) -> None:
    assert site.dovecot.imap_login(user, SECRET).startswith("OK")
    assert f"<{person.username}>" in site.dovecot.log()


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (JAN.username, "wrong"),
        ("nobody", SECRET),
        (GONE.username, SECRET),
        (NO_IMAP.username, SECRET),
        (JAN.username + "@other.example", SECRET),
    ],
)
def test_imap_login_rejected(site: Site, user: str, password: str) -> None:
    assert site.dovecot.imap_login(user, password).startswith("NO [AUTHENTICATIONFAILED]")


def test_imap_login_later(site: Site) -> None:
    assert site.dovecot.imap_login(BROKEN.username, SECRET).startswith("NO [UNAVAILABLE]")


def test_each_protocol_asks_for_its_own_right(site: Site) -> None:
    ways = {
        "imap": site.dovecot.imap_login,
        "pop3": site.dovecot.pop3_login,
        "sieve": site.dovecot.sieve_login,
    }
    for service, log_in in ways.items():
        for person in (ANNA, IMAP_ONLY, NO_IMAP):
            reply = log_in(person.email, SECRET)
            assert reply.startswith(("OK", "+OK")) == (service not in person.denied), (service, person, reply)
        assert not log_in(ANNA.email, "wrong").startswith(("OK", "+OK"))
        later = log_in(BROKEN.email, SECRET)
        assert any(word in later for word in ("UNAVAILABLE", "SYS/TEMP", "TRYLATER")), (service, later)


def test_nobody_is_asked_for_a_password_without_tls(site: Site) -> None:
    for password in (SECRET, "wrong"):
        reply = site.dovecot.login_without_tls(ANNA.username, password)
        assert reply.startswith(("a NO [PRIVACYREQUIRED]", "a BAD [PRIVACYREQUIRED]")), reply


def test_no_password_is_in_any_environment_or_command(site: Site) -> None:
    """Looked at while logins run; this process alone may have one."""
    found: list[str] = []
    done = Event()

    def look() -> None:
        while not done.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("environ", "cmdline"):
                    with suppress(OSError):
                        if (
                            process.name != str(os.getpid())
                            and SECRET.encode() in (process / name).read_bytes()
                        ):
                            found.append(f"{name} of {(process / 'comm').read_text()}")

    looking = Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            assert site.dovecot.imap_login(ANNA.username, SECRET).startswith("OK")
    finally:
        done.set()
        looking.join()
    assert found == []


def test_doveadm_auth_test(site: Site) -> None:
    for user, password, code in (
        (JAN.email, SECRET, 0),
        (JAN.email, "wrong", 77),
        (NO_IMAP.username, SECRET, 77),
    ):
        assert site.dovecot.doveadm("auth", "test", "-x", "service=imap", user, password).returncode == code
    assert "code=temp_fail" in site.dovecot.doveadm("auth", "test", BROKEN.username, SECRET).stdout


def test_doveadm_user(site: Site) -> None:
    told = site.dovecot.doveadm("user", JAN.email).stdout
    assert "5001" in told
    assert str(site.maildir(JAN)) in told
    assert site.dovecot.doveadm("user", "nobody@lxtreme.nl").returncode == 67
    assert site.dovecot.doveadm("user", GONE.username).returncode == 0
    if site.dovecot.door == "lua":
        names = site.dovecot.doveadm("user", "*").stdout.split()
        assert names == sorted([*(person.username for person in ACCOUNTS), ODD.username])


def test_lmtp_delivers_as_the_owner_and_imap_sees_it(site: Site) -> None:
    for recipient in (ANNA.email, "Anna+Lists@lxtreme.nl"):
        assert site.dovecot.lmtp(recipient, "Subject: hello\n\nto anna\n")[-1].startswith("250")
    [first, second] = (site.maildir(ANNA) / "new").iterdir()
    for message in (first, second):
        assert (message.stat().st_uid, message.stat().st_gid) == (ANNA.uid, 5001)
    lines = site.dovecot.imap(ANNA.username, SECRET, "STATUS INBOX (MESSAGES)")
    assert any("MESSAGES 2" in line for line in lines), lines


def test_what_virtual_delivered_imap_sees_too(site: Site) -> None:
    """The same Maildir: a message put there as virtual(8) puts it."""
    folder = site.maildir(JAN)
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        os.chown(folder / name, JAN.uid, 5001)
    (folder / "new" / "1700000000.V1I1M1.mx").write_text("Subject: by virtual\n\nhello\n")
    os.chown(folder / "new" / "1700000000.V1I1M1.mx", JAN.uid, 5001)
    assert site.dovecot.lmtp(JAN.email, "Subject: by LMTP\n\nhello\n")[-1].startswith("250")
    lines = site.dovecot.imap(JAN.username, SECRET, "STATUS INBOX (MESSAGES)")
    assert any("MESSAGES 2" in line for line in lines), lines


def test_a_mailbox_of_any_name_is_that_folder_and_no_other(site: Site) -> None:
    assert site.dovecot.lmtp(ODD.email, "Subject: odd\n\nhello\n")[-1].startswith("250")
    folder = site.logins.base / ODD_MAILBOX
    assert len(list((folder / "new").iterdir())) == 1, sorted(site.logins.base.rglob("*"))
    lines = site.dovecot.imap(ODD.username, SECRET, "STATUS INBOX (MESSAGES)")
    assert any("MESSAGES 1" in line for line in lines), lines


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("nobody@lxtreme.nl", "550 5.1.1"),
        (GONE.email, "550 5.1.1"),
        (NO_MAIL.email, "550 5.1.1"),
        (NO_IMAP.email, "250"),
    ],
)
def test_lmtp_recipients(site: Site, recipient: str, reply: str) -> None:
    assert site.dovecot.lmtp(recipient)[0].startswith(reply)


AWKWARD = (
    # username, email, mailbox: each may be taken for another by who cuts or mixes names up
    ("plus", "jan+plus@lxtreme.nl", "lxtreme.nl/plus"),
    ("hyphen", "anna-marie@lxtreme.nl", "lxtreme.nl/hyphen"),
    ("info@lxtreme.nl", "someone@lxtreme.nl", "lxtreme.nl/someone"),
    ("real-info", "info@lxtreme.nl", "lxtreme.nl/info"),
    ("quoted", '"q q"@lxtreme.nl', "lxtreme.nl/quoted"),
    ("umlaut", "jürgen@lxtreme.nl", "lxtreme.nl/jürgen"),
)


@pytest.mark.asyncio(loop_scope="module")
async def test_lmtp_files_mail_where_virtual_mailbox_maps_says(site: Site) -> None:
    """Every address that smtpd takes, into the folder of its value, and no other."""
    for number, (username, email, mailbox) in enumerate(AWKWARD, start=5040):
        await site.database.connection.execute(
            "INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, active)"
            " VALUES ($1, $2, 5001, '', $3, $4, '1')", username, number, email, mailbox,
        )  # fmt: skip
        site.logins.make_maildir(mailbox, number)
    rows = await site.database.connection.fetch(
        "SELECT key, value FROM mailmaps.virtual_mailbox_maps WHERE value IS NOT NULL AND left(key, 1) <> '@'"
    )
    mailboxes = {str(row["key"]): str(row["value"]) for row in rows}
    assert len(mailboxes) > len(AWKWARD)
    extended = {
        key.replace("@", "+ext@"): value for key, value in mailboxes.items() if not set('"+') & set(key)
    }
    for key, value in (mailboxes | extended).items():
        [told] = await site.logins.lines("LOOKUP", {"user": key, "service": "lmtp", "dovecot": "2.4"})
        assert f"\tmail_path={site.logins.base}/{value.rstrip('/')}\t".encode() in told + b"\t", key
        if key.isascii():
            folder = site.logins.base / value / "new"
            before = len(list(folder.iterdir())) if folder.exists() else 0
            assert site.dovecot.lmtp(key, "Subject: whose\n\nhello\n")[-1].startswith("250"), key
            assert len(list(folder.iterdir())) == before + 1, key


@pytest.mark.asyncio(loop_scope="module")
async def test_an_address_that_needs_quotes(site: Site) -> None:
    await site.database.connection.execute(
        "INSERT INTO user_addresses (username, alias) VALUES ('anna', '\"an na\"@lxtreme.nl')"
    )
    for recipient in ('"an na"@lxtreme.nl', '"an na+lists"@lxtreme.nl'):
        assert site.dovecot.lmtp(recipient)[0].startswith("250"), recipient
    assert site.dovecot.lmtp('"nobo dy"@lxtreme.nl')[0].startswith("550 5.1.1")


def test_over_quota_is_552(site: Site) -> None:
    """BERT may have one MB and the grace that Dovecot has for one message; ANNA's 0 is no limit."""
    megabyte = "Subject: large\n\n" + ("x" * 70 + "\n") * 14_000
    replies = [site.dovecot.lmtp(BERT.email, megabyte)[-1] for _ in range(GRACE + 2)]
    assert replies[0].startswith("250")
    assert replies[-1].startswith("552 5.2.2"), replies
    for _ in range(GRACE + 2):
        assert site.dovecot.lmtp(ANNA.email, megabyte)[-1].startswith("250")


def test_a_login_with_any_bytes(site: Site) -> None:
    for password in ("tab\there", "\x01", "line\r\nbreak", "üñí", "x" * 480):
        assert site.dovecot.imap_login(JAN.username, password).startswith("NO [AUTHENTICATIONFAILED]"), (
            password
        )


def test_the_daemon_down_and_back(site: Site) -> None:
    assert site.dovecot.imap_login(ANNA.username, SECRET).startswith("OK")
    site.logins.daemon.stop()
    try:
        for password in (SECRET, "wrong"):
            assert site.dovecot.imap_login(ANNA.username, password).startswith("NO [UNAVAILABLE]")
        assert site.dovecot.lmtp(ANNA.email)[0].startswith("451 4.3.0")
        assert site.dovecot.lmtp("nobody@lxtreme.nl")[0].startswith("451 4.3.0")
        assert site.dovecot.doveadm("user", ANNA.email).returncode == 75
    finally:
        site.logins.daemon.start()
    assert site.dovecot.imap_login(ANNA.username, SECRET).startswith("OK")
