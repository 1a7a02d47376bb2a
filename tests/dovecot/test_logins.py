"""Dovecot's programs run by the real Dovecot that is installed here: each door, each answer, each peer.

The configuration is what `mailmaps dovecot-config` prints. The stub answers in the daemon's place: the daemon
itself is asked in tests/system.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from tests.system.dovecot import PrivateDovecot, installed_version
from tests.system.login_stub import LoginStub, accepted, escaped
from tests.system.processes import eventually_async

from mailmaps.dovecot.configuration import DOORS

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

Result = TypeVar("Result")

DIALECT = ".".join(installed_version().split(".")[:2]) or "2.3"
JAN = "jan@example.org"
SECRET = 's3cret-Ünder "{}\\'
UID, GID = 5001, 5002

CONFIG = """
delivery = "lmtp:unix:private/dovecot-lmtp"
[login]
unix = "{folder}/login.sock"
group = "{group}"
[postfix]
recipient_delimiter = "+"
virtual_mailbox_base = "{folder}/mail"
virtual_minimum_uid = 5000
"""


class Site:
    """A Dovecot with the stub it asks, and where its mail is."""

    def __init__(self, folder: Path, door: str, group: str = "dovecot") -> None:
        folder.chmod(0o755)  # Dovecot's users have to pass
        self.folder = folder
        self.door = door
        (folder / "mailmaps.toml").write_text(CONFIG.format(folder=folder, group=group))
        (folder / "mail").mkdir()
        os.chown(folder / "mail", UID, GID)
        self.stub = LoginStub(folder / "login.sock", group)
        self.dovecot = PrivateDovecot(folder / "mailmaps.toml", door)

    def jan(self, mailbox: str = "jan", **more: object) -> bytes:
        """The answer OK for jan, in the dialect asked for."""
        path = self.folder / "mail" / mailbox
        place = {"mail": f"maildir:{path}"}
        if DIALECT != "2.3":
            place = {"mail_driver": "maildir", "mail_path": str(path)}
        return accepted(JAN, uid=UID, gid=GID, home=path / "home", **place, **more)

    async def ask(self, call: Callable[..., Result], *words: str) -> Result:
        """Call one of Dovecot's methods while the stub goes on answering; `asked` begins anew."""
        self.stub.asked.clear()
        return await asyncio.to_thread(call, *words)


async def serve(door: str, group: str = "dovecot") -> AsyncIterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="mailmaps-logins-", dir="/tmp"))
    site = Site(folder, door, group)
    try:
        async with site.stub:
            await asyncio.to_thread(site.dovecot.start)
            yield site
    finally:
        await asyncio.to_thread(site.dovecot.stop)
        shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=DOORS[DIALECT])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async for site in serve(request.param):
        yield site


@pytest.fixture
def site(served: Site) -> Site:
    """The module's Dovecot, and a stub that knows nothing yet."""
    served.stub.answers.clear()
    return served


async def test_a_login(site: Site) -> None:
    site.stub.answers["LOGIN Jan"] = site.jan()
    reply = await site.ask(site.dovecot.imap_login, "Jan", SECRET)
    assert reply.startswith("OK ")
    # One question: the user's data came with the answer (prefetch).
    assert site.stub.asked == [
        {
            "kind": "LOGIN",
            "user": "Jan",
            "password": SECRET,
            "service": "imap",
            "rip": "127.0.0.1",
            "lip": "127.0.0.1",
            "dovecot": DIALECT,
        }
    ]


async def test_a_name_in_any_script(site: Site) -> None:
    site.stub.answers["LOGIN jörg o'brien+x@bücher.example"] = site.jan()
    reply = await site.ask(site.dovecot.imap_login, "jörg o'brien+x@bücher.example", SECRET)
    assert reply.startswith("OK ")


async def test_a_wrong_password(site: Site) -> None:
    site.stub.answers[f"LOGIN {JAN}"] = b"NO\n"
    reply = await site.ask(site.dovecot.imap_login, JAN, SECRET)
    assert reply.startswith("NO [AUTHENTICATIONFAILED] ")
    done = await site.ask(site.dovecot.doveadm, "auth", "test", JAN, SECRET)
    assert done.returncode == 77


TROUBLE = [b"LATER\tno database\n", b"", b"NO", b"OK\tuser=jan", b"UNKNOWN\n", b"\xff\n", b"OK\n"]


@pytest.mark.parametrize("answer", TROUBLE)
async def test_a_login_of_which_nothing_can_be_said(site: Site, answer: bytes) -> None:
    site.stub.answers[f"LOGIN {JAN}"] = answer
    reply = await site.ask(site.dovecot.imap_login, JAN, SECRET)
    assert reply.startswith("NO [UNAVAILABLE] ")
    assert len(site.stub.asked) == 1


async def test_no_daemon(site: Site) -> None:
    """Logins, lookups and deliveries are put off, and go on when the socket is back, Dovecot untouched."""
    site.stub.answers = {f"LOGIN {JAN}": site.jan(), f"LOOKUP {JAN}": site.jan()}
    away = site.stub.path.with_name("away")
    site.stub.path.rename(away)
    try:
        reply = await site.ask(site.dovecot.imap_login, JAN, SECRET)
        lookup = await site.ask(site.dovecot.doveadm, "user", JAN)
        [delivery] = await site.ask(site.dovecot.lmtp, JAN)
    finally:
        away.rename(site.stub.path)
    assert reply.startswith("NO [UNAVAILABLE] ")
    assert lookup.returncode == 75
    assert delivery.startswith("451 4.3.0 ")
    assert site.stub.asked == []
    assert (await site.ask(site.dovecot.imap_login, JAN, SECRET)).startswith("OK ")


async def test_who_a_user_is(site: Site) -> None:
    site.stub.answers[f"LOOKUP {JAN}"] = site.jan()
    done = await site.ask(site.dovecot.doveadm, "user", JAN)
    assert done.returncode == 0
    fields = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    assert fields["uid"] == str(UID)
    assert fields["gid"] == str(GID)
    path = f"{site.folder}/mail/jan"
    assert fields["home"] == f"{path}/home"
    assert fields["mail" if DIALECT == "2.3" else "mail_path"].removeprefix("maildir:") == path
    assert site.stub.asked == [{"kind": "LOOKUP", "user": JAN, "service": "doveadm", "dovecot": DIALECT}]


async def test_odd_bytes_in_an_answer(site: Site) -> None:
    odd = "j\1t\1\001n"
    site.stub.answers[f"LOOKUP {JAN}"] = accepted(JAN, uid=UID, gid=GID, home=f"/{odd}")
    done = await site.ask(site.dovecot.doveadm, "user", "-f", "home", JAN)
    assert done.stdout == f"/{odd}\n"
    site.stub.answers["LIST"] = b"USER\t" + escaped(odd) + b"\nOK\n"
    if site.door == "lua" and DIALECT == "2.3":  # 2.4.1 itself undoes the escapes of a listed name twice
        assert (await site.ask(site.dovecot.doveadm, "user", "*")).stdout == f"{odd}\n"


@pytest.mark.parametrize(
    ("answer", "code"), [(b"UNKNOWN\n", 67), *((answer, 75) for answer in (*TROUBLE[:4], b"NO\n"))]
)
async def test_who_nobody_is(site: Site, answer: bytes, code: int) -> None:
    site.stub.answers[f"LOOKUP {JAN}"] = answer
    done = await site.ask(site.dovecot.doveadm, "user", JAN)
    assert done.returncode == code


async def test_all_users(site: Site) -> None:
    site.stub.answers["LIST"] = b"USER\tb=c@example.org\nUSER\tjan@example.org\nOK\n"
    done = await site.ask(site.dovecot.doveadm, "user", "*")
    if site.door == "checkpassword":  # which has no such call
        assert done.returncode == 75
        return
    assert done.returncode == 0
    assert done.stdout.split() == ["b=c@example.org", "jan@example.org"]


@pytest.mark.parametrize(
    "answer", [b"LATER\tno database\n", b"USER\tjan\n", b"USER\tjan\nLATER\tgone\n", b"USER\tjan\nNO\n"]
)
async def test_part_of_all_users_is_no_answer(site: Site, answer: bytes) -> None:
    site.stub.answers["LIST"] = answer.removesuffix(b"\n") if answer == b"USER\tjan\n" else answer
    done = await site.ask(site.dovecot.doveadm, "user", "*")
    assert done.returncode == 75
    assert "jan" not in done.stdout


async def test_stored_passwords_stay_where_they_are(site: Site) -> None:
    site.stub.answers[f"LOOKUP {JAN}"] = site.jan()
    done = await site.ask(site.dovecot.doveadm, "auth", "lookup", JAN)
    assert "password" not in done.stdout
    greeting = await asyncio.to_thread(site.dovecot.imap, JAN, SECRET, "CAPABILITY")
    assert not any("CRAM" in line for line in greeting)


@pytest.mark.parametrize(
    ("answer", "code"), [(b"UNKNOWN\n", "550 5.1.1"), *((answer, "451 4.3.0") for answer in TROUBLE[:4])]
)
async def test_mail_for_nobody(site: Site, answer: bytes, code: str) -> None:
    site.stub.answers[f"LOOKUP {JAN}"] = answer
    [reply] = await site.ask(site.dovecot.lmtp, JAN)
    assert reply.startswith(f"{code} ")


async def test_mail_is_delivered_and_read(site: Site) -> None:
    """As the account's uid and gid, into the folder that is virtual(8)'s too.

    mailmaps, not Dovecot, knows what an extension is: it is asked for the whole address.
    """
    whole = "LOOKUP jan+detail@example.org"
    site.stub.answers = {f"LOGIN {JAN}": site.jan("read"), whole: site.jan("read")}
    replies = await site.ask(site.dovecot.lmtp, "jan+detail@example.org", "Subject: one\r\n\r\nOne.\r\n")
    assert [reply[:4] for reply in replies] == ["250 ", "250 "]
    assert {question["service"] for question in site.stub.asked} == {"lmtp"}
    [message] = (site.folder / "mail" / "read" / "new").iterdir()
    assert (message.stat().st_uid, message.stat().st_gid) == (UID, GID)
    lines = await asyncio.to_thread(site.dovecot.imap, JAN, SECRET, "STATUS INBOX (MESSAGES)")
    assert "* STATUS INBOX (MESSAGES 1)" in lines


async def test_who_is_over_quota(site: Site) -> None:
    """552 before the message is sent; and, where it is the message that is too much, after."""
    quota = {"quota_rule": "*:bytes=10000"} if DIALECT == "2.3" else {"quota_storage_size": "10000B"}
    message = "Subject: one\r\n\r\n" + "Twenty bytes a line.\r\n" * 1000
    site.stub.answers[f"LOOKUP {JAN}"] = site.jan("full")
    assert (await site.ask(site.dovecot.lmtp, JAN, message))[-1].startswith("250 2.0.0 ")
    site.stub.answers[f"LOOKUP {JAN}"] = site.jan("full", **quota)
    [reply] = await site.ask(site.dovecot.lmtp, JAN, message)
    assert reply.startswith("552 5.2.2 ")
    site.stub.answers[f"LOOKUP {JAN}"] = site.jan("empty", **quota)
    large = message * (1 if DIALECT == "2.3" else 600)  # 2.4 lets one message pass the limit by 10 MB
    replies = await site.ask(site.dovecot.lmtp, JAN, large)
    assert [reply[:9] for reply in replies] == ["250 2.1.5", "552 5.2.2"]


async def test_a_uid_below_the_lowest_is_refused(site: Site) -> None:
    site.stub.answers[f"LOGIN {JAN}"] = site.jan().replace(b"uid=5001", b"uid=4999")
    lines = await site.ask(site.dovecot.imap, JAN, SECRET, "STATUS INBOX (MESSAGES)")
    assert not any("MESSAGES 0" in line for line in lines)
    assert await eventually_async(lambda: "first_valid_uid" in site.dovecot.log(), 30)


async def test_no_password_is_in_any_log(site: Site) -> None:
    """Last, after all that went right and wrong."""
    site.stub.answers[f"LOGIN {JAN}"] = b"LATER\tno database\n"
    await site.ask(site.dovecot.imap_login, JAN, SECRET)
    assert site.stub.asked[0]["password"] == SECRET
    log = site.dovecot.log()
    assert "no database" in log
    assert SECRET not in log
    assert "s3cret" not in log


@pytest.mark.parametrize("door", DOORS[DIALECT])
async def test_a_group_of_another_name(door: str) -> None:
    async for site in serve(door, "mail"):
        site.stub.answers = {f"LOGIN {JAN}": site.jan(), f"LOOKUP {JAN}": site.jan()}
        assert (await site.ask(site.dovecot.imap_login, JAN, SECRET)).startswith("OK ")
        assert (await site.ask(site.dovecot.doveadm, "user", JAN)).returncode == 0
        assert site.dovecot.complaints() == []
