"""Mail through a real Postfix with every table on mailmaps: what is delivered, refused and deferred.

Run once with tcp: and once with socketmap: tables. Mail for our mailboxes ends by LMTP in `sink`, as it would
in Dovecot, mail for all others in `outside`. During an outage the one thing that must not happen is 550.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.system.daemon import Daemon
from tests.system.lmtp_sink import LmtpSink
from tests.system.mail_data import load
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.sasl_stub import SaslStub, plain
from tests.system.smtp import PROBE, SENDER, Dialog, Refused, Reply, send

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

TABLES = (
    "virtual_mailbox_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "transport_maps",
    "smtpd_sender_login_maps",
    "relay_domains",
)

HANG_LIMIT = 1.5
"""lookup_deadline of the daemon, in seconds: the default of 5 s would only take longer to wait for."""

JAN = "janwillem.janssen@lxtreme.nl"

NEW_KEYS = (f"try{number}@lxtreme.nl" for number in itertools.count())

DELIVERED: dict[str, tuple[str, list[str]]] = {
    "mailbox": (JAN, [JAN]),
    "alias": ("postmaster@lxtreme.nl", [JAN]),
    "two targets": ("both@lxtreme.nl", ["info@lxtreme.nl", JAN]),
    "outside": ("away@lxtreme.nl", ["-> jan@elsewhere.test"]),
    "inside and outside": ("copy@lxtreme.nl", ["info@lxtreme.nl", "-> jan@elsewhere.test"]),
    "extension": ("info+News@lxtreme.nl", ["info+News@lxtreme.nl"]),
    "extension through the alias": ("postmaster+FooBar@lxtreme.nl", ["janwillem.janssen+FooBar@lxtreme.nl"]),
    "extension to the outside": ("away+Foo@lxtreme.nl", ["-> jan+Foo@elsewhere.test"]),
    "catch-all": ("whoever@catch.test", ["keeper@catch.test"]),
    "catch-all with extension": ("whoever+x@catch.test", ["keeper@catch.test"]),
    "mailbox beside a catch-all": ("real@catch.test", ["real@catch.test"]),
    "extension beside a catch-all": ("real+x@catch.test", ["real+x@catch.test"]),
    "second domain": ("eve@second.test", ["eve@second.test"]),
    "domain alias": ("info@alias.test", ["info@lxtreme.nl"]),
    "alias through the domain alias": ("postmaster+x@alias.test", ["janwillem.janssen+x@lxtreme.nl"]),
    "upper case": ("POSTMASTER@LXTREME.NL", [JAN]),
    "quoted local part": ('"jan willem"@lxtreme.nl', [JAN]),
    "quoted without need": ('"postmaster"@lxtreme.nl', [JAN]),
    "SMTPUTF8": ("jörg@lxtreme.nl", ["jörg@lxtreme.nl"]),
    "SMTPUTF8 in upper case": ("JÖRG@lxtreme.nl", ["jörg@lxtreme.nl"]),
    "alias of an alias": ("chain@lxtreme.nl", [JAN]),
    "one of two targets inactive": ("half@lxtreme.nl", ["info@lxtreme.nl"]),
}
"""What is sent to whom, and who gets it; outsiders are marked `->`."""

REFUSED: dict[str, tuple[str, str]] = {
    "unknown user": ("nobody@lxtreme.nl", "User unknown in virtual mailbox table"),
    "unknown user with extension": ("nobody+x@lxtreme.nl", "User unknown in virtual mailbox table"),
    "unknown user of a domain alias": ("nobody@alias.test", "User unknown in virtual mailbox table"),
    "inactive account": ("sleeper@second.test", "User unknown in virtual mailbox table"),
    "inactive account beside a catch-all": ("gone@catch.test", "User unknown in virtual mailbox table"),
    "its other address": ("gone.too@catch.test", "User unknown in virtual mailbox table"),
    "its extension": ("gone+x@catch.test", "User unknown in virtual mailbox table"),
    "dead alias": ("dead@lxtreme.nl", "User unknown in virtual mailbox table"),
    "unknown domain": ("jan@elsewhere.test", "Relay access denied"),
    "subdomain": ("info@sub.lxtreme.nl", "Relay access denied"),
}


@dataclass
class Site:
    """PostgreSQL, mailmaps, Postfix and the sinks, all running."""

    postgres: EmbeddedPostgres
    daemon: Daemon
    postfix: PrivatePostfix
    sink: LmtpSink
    outside: LmtpSink

    async def deliver(self, probe: str, *recipients: str) -> list[str]:
        """Send one message and wait for its end: who got it."""
        reply = await send(self.postfix.port, probe, *recipients)
        await self.postfix.removed(reply.queue_id)
        return self.holders(probe)

    def holders(self, probe: str) -> list[str]:
        """Who got the messages of this probe, an entry for each delivery."""
        outsiders = [f"-> {recipient}" for recipient in self.outside.recipients(PROBE, probe)]
        return self.sink.recipients(PROBE, probe) + outsiders

    def bounces(self) -> list[str]:
        """Who was told that mail cannot be delivered."""
        return [d.recipient for sink in (self.sink, self.outside) for d in sink.deliveries if not d.sender]

    async def answering(self) -> None:
        """Wait until the daemon has its database back: it answers a key that nobody asked before."""
        back = await eventually_async(
            lambda: self.daemon.ask("virtual_uid_maps", next(NEW_KEYS)).startswith("500"), 30.0, every=0.1
        )
        assert back, self.daemon.log()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["tcp", "socketmap"])
async def site(
    request: pytest.FixtureRequest, mail_postgres: EmbeddedPostgres, sink: LmtpSink, outside: LmtpSink
) -> AsyncIterator[Site]:
    dsn = await load(mail_postgres)
    async with AsyncExitStack() as stack:
        sasl = await stack.enter_async_context(SaslStub())
        daemon = stack.enter_context(_daemon(dsn, sink))
        settings = {
            **{table: daemon.map(request.param, table) for table in TABLES},
            **sasl.settings,
            "virtual_alias_domains": "",
            "virtual_transport": sink.nexthop,
            "default_transport": outside.nexthop,
            "recipient_delimiter": "+",
            "smtputf8_enable": "yes",
            "smtpd_sender_restrictions": "reject_sender_login_mismatch",
        }
        postfix = await stack.enter_async_context(PrivatePostfix(settings))
        yield Site(mail_postgres, daemon, postfix, sink, outside)


def _daemon(dsn: str, sink: LmtpSink) -> Daemon:
    return Daemon(
        {
            "delivery": sink.nexthop,
            "database": {"dsn": dsn, "honour_active": True, "lookup_deadline": HANG_LIMIT},
            "postfix": {"recipient_delimiter": "+", "myorigin": "mx.postfix.test"},
        }
    )


@pytest.mark.parametrize("case", DELIVERED)
async def test_delivered(site: Site, case: str) -> None:
    address, expected = DELIVERED[case]
    assert await site.deliver(f"{site.postfix.port} {case}", address) == expected


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_at_rcpt(site: Site, case: str) -> None:
    address, reason = REFUSED[case]
    async with Dialog(site.postfix.port) as dialog:
        reply = await dialog.rcpt(address)
    assert reply.code in (550, 554)
    assert reply.text.endswith(reason)


async def test_many_recipients_of_one_message(site: Site) -> None:
    probe = f"{site.postfix.port} many"
    addresses = ("both@lxtreme.nl", "eve@second.test", "away@lxtreme.nl")
    expected = ["eve@second.test", "info@lxtreme.nl", JAN, "-> jan@elsewhere.test"]
    assert await site.deliver(probe, *addresses) == expected


@pytest.mark.parametrize(
    ("login", "sender", "verdict"),
    [
        ("jawi_lx", "postmaster@lxtreme.nl", "Ok"),
        ("jawi_lx", "Postmaster+x@lxtreme.nl", "Ok"),
        ("jawi_lx", "info@lxtreme.nl", "not owned by user jawi_lx"),
        ("jawi_lx", "gone@catch.test", "not owned by user jawi_lx"),
        ("gone", "gone@catch.test", "not owned by user gone"),
        ("", "info@lxtreme.nl", "not logged in"),
        ("", "gone@catch.test", "not logged in"),
        ("", SENDER, "Ok"),
    ],
)
async def test_who_may_send_as_whom(site: Site, login: str, sender: str, verdict: str) -> None:
    async with Dialog(site.postfix.port) as dialog:
        if login:
            await dialog.say(plain(login))
        await dialog.mail(sender)
        reply = await dialog.say("RCPT TO:<info@lxtreme.nl>")
    assert reply.text.endswith(verdict)
    assert reply.code == (250 if verdict == "Ok" else 553)


async def test_nothing_complained(site: Site) -> None:
    """Last of the quiet tests: Postfix logged no warning about any table."""
    assert [line for line in site.postfix.complaints() if "map" in line] == []
    assert site.bounces() == []


@pytest.mark.parametrize("how", ["gone", "hanging"])
async def test_mail_flows_through_a_database_outage(site: Site, how: str) -> None:
    """Nobody of these was asked before; all of it is held. Nobody who exists is refused.

    A server that is gone is known to be: all answers are those of before. One that hangs looks for some
    seconds like one that is slow, and then "not held" is "later": for an unknown recipient, and for a sender
    whose owner is asked for.
    """
    port = site.postfix.port
    known = f"sales+{how}@lxtreme.nl"
    expected = {
        known: 250,
        f"nobody-{how}@lxtreme.nl": 550,
        f"who-{how}@catch.test": 250,
        f"gone+{how}@catch.test": 550,
        f"info+{how}@alias.test": 250,
    }
    # A new sender comes first, in the moment in which the outage is not noticed yet. For him smtpd asks
    # smtpd_sender_login_maps before all else; for the null sender it does not, and comes to the recipient.
    asked = [(sender, address) for sender in (f"a@{how}.test", "") for address in expected]
    async with Dialog(port) as old:
        await old.rcpt("info@lxtreme.nl")
        with _outage(site.postgres, how):
            during = [await old.rcpt(address, sender) for sender, address in asked]
            async with Dialog(port) as new:
                during += [await new.rcpt(address, sender) for sender, address in asked]
                stranger = await new.rcpt("stranger@elsewhere.test", "")
        await site.answering()
        if how == "hanging":
            asked = [(sender and f"b@{how}.test", address) for sender, address in asked]
        after = [await old.rcpt(address, sender) for sender, address in asked]
    for (sender, address), reply in zip(asked * 2, during, strict=True):
        assert reply.code == expected[address] or (how == "hanging" and reply.code == 451), (sender, reply)
    assert {reply.code for reply in during} >= {250}
    assert stranger.code in (451, 554)
    assert [reply.code for reply in after] == [*expected.values()] * 2, after
    assert await site.deliver(f"{port} after {how}", known) == [f"info+{how}@lxtreme.nl"]


async def test_daemon_started_while_the_database_is_away(site: Site) -> None:
    """It answers from disk: all that it was proven to know when it stopped."""
    assert site.daemon.stop() == 0
    site.postgres.stop()
    site.daemon.start()
    asked = ("info@lxtreme.nl", "nobody3@lxtreme.nl", "info@alias.test", "jan@elsewhere.test")
    async with Dialog(site.postfix.port) as dialog:
        during = [(await dialog.rcpt(address)).code for address in asked]
    assert during == [250, 550, 250, 554]
    site.postgres.start()
    await site.answering()
    assert await site.deliver(f"{site.postfix.port} again", "info@lxtreme.nl") == ["info@lxtreme.nl"]
    async with Dialog(site.postfix.port) as dialog:
        assert (await dialog.rcpt("nobody3@lxtreme.nl")).code == 550


async def test_daemon_restarted_under_load_loses_and_bounces_nothing(site: Site) -> None:
    load = _Load(site, messages=150, clients=4)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        for reached, leave in ((50, site.daemon.stop), (100, site.daemon.kill)):
            await load.reached(reached)
            # In a thread: the senders and the sinks live on this loop and must go on meanwhile.
            await asyncio.to_thread(leave)
            await asyncio.to_thread(site.daemon.start)
    await site.postfix.drained()
    assert load.refused == []
    expected = {probe: [f"info+{number}@lxtreme.nl"] for number, probe in enumerate(load.probes)}
    assert {probe: site.holders(probe) for probe in load.probes} == expected
    assert site.bounces() == []


@contextmanager
def _outage(postgres: EmbeddedPostgres, how: str) -> Iterator[None]:
    """PostgreSQL killed, or stopped in the middle with all its connections open."""
    leave, come_back = {
        "gone": (postgres.kill, postgres.start),
        "hanging": (postgres.pause, postgres.resume),
    }[how]
    leave()
    try:
        yield
    finally:
        come_back()


class _Load:
    """Many messages, each sent again until it is taken, as any mail server would."""

    def __init__(self, site: Site, messages: int, clients: int) -> None:
        self.probes = [f"{site.postfix.port} load {number}" for number in range(messages)]
        self.refused: list[Reply] = []
        self._site = site
        self._todo = iter(enumerate(self.probes))
        self._clients = clients
        self._taken = 0
        self._progress = asyncio.Condition()
        self._until = time.monotonic() + 120.0  # aiosmtplib may swallow a cancellation

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def reached(self, count: int) -> None:
        async with self._progress, asyncio.timeout(60):
            await self._progress.wait_for(lambda: self._taken >= count)

    async def _client(self) -> None:
        for number, probe in self._todo:
            while not await self._sent(probe, number):
                assert time.monotonic() < self._until, "mail is not taken any more"
                await asyncio.sleep(0.02)
            async with self._progress:
                self._taken += 1
                self._progress.notify_all()

    async def _sent(self, probe: str, number: int) -> bool:
        """True when Postfix has taken the message, or refused it for good, which is recorded."""
        try:
            await send(self._site.postfix.port, probe, f"info+{number}@alias.test")
        except Refused as refused:
            if refused.reply.code < 500:
                return False
            self.refused.append(refused.reply)
        return True
