"""`mailmaps report` on the log of a real Postfix, with traffic of which every mail is known.

What was sent is counted by the replies that clients got and by what the sink took, never from the log; only
the tries of deferred mail, which come with time, are counted there by a word.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import SMTP
from io import BytesIO
from pathlib import Path
from time import time
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from tests.system.lmtp_sink import LmtpSink
from tests.system.login_site import ANNA, BERT, GONE, JAN, LoginSite
from tests.system.processes import eventually_async
from tests.system.sending_site import Sender, SendingPostfix, mailmaps, own_database
from tests.system.smtp import Dialog

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

LIMIT = 5
"""Recipients an hour of everybody."""

BOUNCES, WAITS = "bounces@outside.test", "waits@outside.test"


@dataclass
class Sent:
    """What clients were told, counted as it was said."""

    accepted: int = 0
    recipients: int = 0
    refused: int = 0
    over_limit: int = 0
    senders_refused: int = 0
    failed_logins: int = 0


@dataclass
class Site:
    """A Postfix whose mail is known; `figures` are the report's."""

    postfix: SendingPostfix
    logins: LoginSite
    sink: LmtpSink
    memory: Path
    sent: Sent = field(default_factory=Sent)

    async def report(self, *words: str) -> str:
        """On the log as it is now: deferred mail is tried again meanwhile."""
        snapshot = self.memory / "mail.log"
        await asyncio.to_thread(snapshot.write_text, self.postfix.log())
        log = ["--log", str(snapshot), "--since", "24h", "--memory", str(self.memory)]
        return await asyncio.to_thread(mailmaps, self.logins.daemon, "report", *log, *words)

    async def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.report("--json", "--top", "1000"))
        return found

    def table(self, found: dict[str, Any], title: str, column: str) -> dict[str, str]:
        """The first number of each row of a table, by its text."""
        [section] = [one for one in found["sections"] if one["title"] == title]
        [table] = [one for one in section["tables"] if one["columns"][-1] == column]
        return {row[-1]: row[0] for row in table["rows"]}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(
    mail_postgres: EmbeddedPostgres, sink: LmtpSink, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        reader, auth, writer = await own_database(mail_postgres)
        postfix = SendingPostfix(
            {"a": {}},
            {"relay_domains": "outside.test mx.postfix.test", "relay_transport": sink.nexthop},
        )
        logins = LoginSite(
            reader,
            auth,
            {
                "limits": {"login_recipients_hour": LIMIT},
                "database": {"write_dsn": writer},
                "dovecot_auth": {"group": "postfix"},
                "notices": {"smtp": f"127.0.0.1:{postfix.port}", "sender": "mailmaps@outside.test"},
            },
            postfix.folder / "queue",
        )
        stack.callback(logins.close)
        ask = f"check_policy_service inet:127.0.0.1:{logins.daemon.ports['policy']}"
        postfix.doors["a"] |= {"smtpd_sender_restrictions": ask, "smtpd_data_restrictions": ask}
        await stack.enter_async_context(postfix)
        await asyncio.to_thread(logins.daemon.start)
        sink.answers = {BOUNCES: "550 5.1.1 <bounces> unknown", WAITS: "451 4.2.0 <waits> is full"}
        here = Site(postfix, logins, sink, tmp_path_factory.mktemp("memory"))
        await traffic(here)
        yield here


async def traffic(site: Site) -> None:
    """Everything that the report is about, once or more."""
    port, sent = site.postfix.ports["a"], site.sent
    async with Sender(port, ANNA.username) as anna:
        for recipients in (["one@outside.test", "two@outside.test"], [BOUNCES, "three@outside.test", WAITS]):
            replies = await anna.send(ANNA.email, recipients)
            assert replies[-1].code == 250
            sent.accepted, sent.recipients = sent.accepted + 1, sent.recipients + len(recipients)
        for _ in range(2):  # her limit is reached
            assert [reply.code for reply in await anna.send(ANNA.email, ["four@outside.test"])] == [250, 450]
            sent.over_limit, sent.refused = sent.over_limit + 1, sent.refused + 1
    async with Sender(port, BERT.username) as bert:
        for _ in range(3):
            assert (await bert.verdict(JAN.email)).code == 553
            sent.senders_refused, sent.refused = sent.senders_refused + 1, sent.refused + 1
        assert (await bert.send(BERT.email, ['"a> b, status=sent"@outside.test']))[-1].code == 250
        sent.accepted, sent.recipients = sent.accepted + 1, sent.recipients + 1
    async with Dialog(site.postfix.port) as stranger:
        for number in range(4):
            assert (await stranger.rcpt(f"n{number}@elsewhere.test")).code == 554
            sent.refused += 1
    async with Dialog(port) as guesser:
        for name in ("jawi_lx", "jawi_lx", "root"):
            wrong = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
            assert (await guesser.say(f"AUTH PLAIN {wrong}")).code == 535
            sent.failed_logins += 1
    delivered = sent.recipients - 2
    await site.sink.until(lambda: len(site.sink.deliveries) == delivered, 60)
    log = site.postfix.log
    assert await eventually_async(lambda: "status=bounced" in log() and "status=deferred" in log(), 60)
    # the bounce, to anna, by discard(8)
    assert await eventually_async(lambda: "relay=none" in log() and log().count(": removed") == 3, 60), log()


async def test_every_count_is_what_was_sent(site: Site) -> None:
    found = await site.json()
    tries = (site.memory / "mail.log").read_text().count("status=deferred")
    figures, sent = found["figures"], site.sent
    expected = {
        "received": sent.accepted + 1,  # and the bounce
        "received_own": 1,
        "delivered": len(site.sink.deliveries) + 1,
        "bounced": 1,
        "deferred": 1,
        "deferred_tries": tries,
        "refused": sent.refused,
        "over_limit": sent.over_limit,
        "senders_refused": sent.senders_refused,
        "failed_logins": sent.failed_logins,
        "in_queue": 1,
        "panics": 0,
        "fatals": 0,
        "errors": 0,
        "held": 0,
        "passed_on": 0,
    }
    assert {name: figures[name] for name in expected} == expected
    for name in ("received", "delivered", "bounced", "refused"):
        assert sum(slot[name] for slot in found["slots"]) == expected[name], name
    assert sum(slot["deferred"] for slot in found["slots"]) == tries


async def test_problems_are_named(site: Site) -> None:
    found = await site.json()
    assert site.table(found, "Senders over their limit", "login or domain, limit") == {
        f"{ANNA.username}: {LIMIT} recipients an hour": "2"
    }
    assert site.table(found, "Senders that were not theirs", "login and sender") == {
        f"{BERT.username} as {JAN.email}": "3"
    }
    # mailmaps does not tell Postfix the name that was typed: it may be a password.
    assert site.table(found, "Logins that failed", "user") == {"(no name)": "3"}
    assert site.table(found, "Logins that failed", "client") == {"127.0.0.1": "3"}
    assert site.table(found, "Refused by SMTP", "stage, reply") == {
        "RCPT: 554 5.7.1 <...>: Relay access denied": "4",
        "RCPT: 553 may not send as that sender": "3",
        "DATA: 450 over a sending limit": "2",
    }
    [bounced] = site.table(found, "Bounced", "reason")
    assert "550 5.1.1 <...> unknown" in bounced
    [deferred] = site.table(found, "Deferred", "reason")
    assert "451 4.2.0 <...> is full" in deferred
    assert site.table(found, "Deferred", "domain") == {"outside.test": "1"}
    assert site.table(found, "Busiest users", "sent by the login") == {ANNA.username: "2", BERT.username: "1"}
    received = site.table(found, "Busiest users", "received by")
    assert received == dict.fromkeys(
        ["one@outside.test", "two@outside.test", "three@outside.test", '"a> b, status=sent"@outside.test'],
        "1",
    )


async def test_dormant_accounts_are_those_who_did_not_log_in(site: Site) -> None:
    now = time()
    memory = f"mailmaps-logins 1 {now - 200 * 86400:.0f} {now:.0f} 1\n"
    (site.memory / "logins").write_text(f'{memory}"{JAN.username}"\t{int(now // 86400) - 100}\n')
    found = await site.json()
    [section] = [one for one in found["sections"] if one["title"] == "Dormant accounts"]
    accounts = {row[1]: row[0] for table in section["tables"] for row in table["rows"]}
    assert not accounts.keys() & {ANNA.username, BERT.username}, "they sent mail today"
    assert accounts.keys() >= {JAN.username, "nomail"}
    assert accounts["nomail"] == "never seen"
    assert accounts[JAN.username] != "never seen"
    assert GONE.username not in accounts, "it is not active: nobody can log in"


async def test_the_mail_arrives_with_text_html_and_a_picture(site: Site) -> None:
    before = len(site.sink.deliveries)
    assert (await site.report("--mail-to", "postmaster")).startswith("taken: 2.0.0 Ok: queued as ")
    await site.sink.until(lambda: len(site.sink.deliveries) > before, 60)
    delivery = site.sink.deliveries[-1]
    assert delivery.sender == ""
    assert delivery.recipient == "postmaster@mx.postfix.test"
    assert max(map(len, delivery.body.split(b"\r\n"))) < 1000
    assert len(delivery.body) < 60_000
    message = message_from_bytes(delivery.body, policy=SMTP)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"]
    assert message["Message-ID"]
    assert message["Subject"].startswith("Mail report of ")
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]
    text, html, png = (part for part in message.walk() if not part.is_multipart())
    assert "may not send as that sender" in text.get_content()
    assert f'src="cid:{png["Content-ID"].strip("<>")}"' in html.get_content()
    assert "http" not in html.get_content()
    with Image.open(BytesIO(png.get_content())) as image:
        assert image.format == "PNG"


async def test_a_mail_that_is_not_taken_is_printed(site: Site) -> None:
    log = ["--log", str(site.postfix.log_file), "--memory", str(site.memory)]
    config = site.logins.folder / "nobody.toml"
    text = site.logins.daemon.config.read_text().replace(f"127.0.0.1:{site.postfix.port}", "127.0.0.1:1")
    await asyncio.to_thread(config.write_text, text)
    config.chmod(0o600)
    words = ["report", "--config", str(config), *log, "--mail-to", "postmaster"]
    done = await asyncio.to_thread(run, words)
    assert done[0] == 75
    assert "Logins that failed" in done[1]
    assert "not taken now: 127.0.0.1:1" in done[2]


def run(words: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mailmaps", *words], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr
