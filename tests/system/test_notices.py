"""Notices through a real Postfix: they arrive with a null return path, and nothing ever comes back for them.

Our domain goes to one LMTP sink, everything else (a bounce, say) to the other; virtual(8) shows Return-Path:,
as a mailbox has it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

import pytest
from tests.system.lmtp_sink import LmtpSink
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async

from mailmaps.config.policy import Notices
from mailmaps.notices.mailer import Mailer
from mailmaps.notices.notice import limit_reached

pytestmark = pytest.mark.postfix

HOST = "mx.postfix.test"
POSTMASTER, USER = "postmaster@ours.test", "jan@ours.test"
NOTICE = limit_reached("login", "jan", 500, "recipients", "an hour", "defer", USER)


@dataclass(frozen=True)
class Site:
    """A Postfix, and where its mail ends."""

    postfix: PrivatePostfix
    ours: LmtpSink
    elsewhere: LmtpSink

    def settings(self, to: str = POSTMASTER) -> Notices:
        return Notices(to=to, smtp=f"127.0.0.1:{self.postfix.port}", sender="mailmaps@ours.test")

    @asynccontextmanager
    async def mailer(self, to: str = POSTMASTER) -> AsyncIterator[Mailer]:
        mailer = Mailer(self.settings(to), HOST)
        mailer.start()
        try:
            yield mailer
        finally:
            await mailer.close()


@asynccontextmanager
async def site(**settings: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(LmtpSink())
        elsewhere = await stack.enter_async_context(LmtpSink())
        main_cf = {
            "myhostname": HOST,
            "virtual_mailbox_domains": "ours.test",
            "virtual_mailbox_maps": "inline:{postmaster@ours.test=postmaster/ jan@ours.test=jan/}",
            "virtual_transport": ours.nexthop,
            "default_transport": elsewhere.nexthop,
            "relayhost": "",
            **settings,
        }
        postfix = await stack.enter_async_context(PrivatePostfix(main_cf))
        yield Site(postfix, ours, elsewhere)


async def taken(mailer: Mailer, sent: int, dropped: int = 0) -> None:
    expected = {"waiting": 0, "sent": sent, "dropped": dropped}
    assert await eventually_async(lambda: expected.items() <= mailer.state.items(), 60), mailer.state


async def test_a_notice_arrives() -> None:
    async with site() as here:
        async with here.mailer() as mailer:
            mailer.send(NOTICE)
            await taken(mailer, sent=2)
        await here.postfix.drained()
        assert here.postfix.complaints() == []
        by_recipient = {delivery.recipient: delivery for delivery in here.ours.deliveries}
        assert by_recipient.keys() == {POSTMASTER, USER}
        assert {delivery.sender for delivery in here.ours.deliveries} == {""}
        assert here.elsewhere.deliveries == []
        message = message_from_bytes(by_recipient[POSTMASTER].body, policy=SMTP)
        assert message["Auto-Submitted"] == "auto-generated"
        assert (message["From"], message["To"]) == ("mailmaps@ours.test", POSTMASTER)
        assert "mailmaps limits release jan" in by_recipient[POSTMASTER].body.decode()
        assert "mailmaps limits" not in by_recipient[USER].body.decode()
        assert f"Received: from {HOST} (" in by_recipient[POSTMASTER].body.decode()


async def test_the_mailbox_has_a_null_return_path() -> None:
    """virtual(8) writes the envelope sender into the message."""
    owner = pwd.getpwnam("nobody")
    async with site(
        virtual_transport="virtual",
        virtual_uid_maps=f"static:{owner.pw_uid}",
        virtual_gid_maps=f"static:{owner.pw_gid}",
        virtual_minimum_uid="1",
        virtual_mailbox_base="/",
    ) as here:
        base = here.postfix.folder / "mail"
        await asyncio.to_thread(_folder, base, owner.pw_uid)
        here.postfix.configure({"virtual_mailbox_base": str(base)})
        await asyncio.to_thread(here.postfix.reload)
        async with here.mailer() as mailer:
            mailer.send(NOTICE)
            await taken(mailer, sent=2)
        await here.postfix.drained()
        for box in ("postmaster", "jan"):
            [mail] = (base / box / "new").iterdir()
            assert "\nReturn-Path: <>\n" in f"\n{mail.read_text()}"


def _folder(path: Path, owner: int) -> None:
    path.mkdir()
    os.chown(path, owner, -1)


async def test_an_unknown_recipient_is_lost_and_makes_no_bounce() -> None:
    """smtpd(8) refuses it: the log says so, and that is all."""
    async with site() as here:
        async with here.mailer(to="nobody@ours.test") as mailer:
            mailer.send(NOTICE)
            await taken(mailer, sent=1, dropped=1)
            assert [delivery.recipient for delivery in here.ours.deliveries] in ([], [USER])
        await here.postfix.drained()
        assert "550 5.1.1 <nobody@ours.test>: Recipient address rejected" in here.postfix.log()
        await _only_the_notices(here, {USER})


async def test_a_notice_that_bounces_later_is_answered_to_nobody() -> None:
    """Postfix took it, and where it goes on to it is refused: with any other sender this is a bounce."""
    async with site() as here:
        here.ours.answers[POSTMASTER] = "550 5.2.2 mailbox full"
        async with here.mailer() as mailer:
            mailer.send(NOTICE)
            await taken(mailer, sent=2)
        await here.postfix.drained()
        assert "mailbox full" in here.postfix.log()
        await _only_the_notices(here, {USER})


async def _only_the_notices(here: Site, recipients: set[str]) -> None:
    assert {delivery.recipient for delivery in here.ours.deliveries} == recipients
    assert here.elsewhere.deliveries == []
    assert "sender non-delivery notification" not in here.postfix.log()


async def test_a_postfix_that_refuses_for_now_gets_it_later() -> None:
    async with site(smtpd_recipient_restrictions="defer") as here:
        times: list[float] = []

        async def pause(seconds: float) -> None:
            times.append(seconds)
            if len(times) == 1:
                here.postfix.configure({"smtpd_recipient_restrictions": "reject_unauth_destination"})
                # Not reload: an smtpd that is about to end may still answer by the old settings.
                await asyncio.to_thread(here.postfix.restart)
                now[0] += seconds
            else:
                await asyncio.Event().wait()

        now = [0.0]
        mailer = Mailer(here.settings(), HOST, lambda: now[0], pause)
        mailer.start()
        mailer.send(limit_reached("domain", "ours.test", 5, "messages", "a day", "defer"))
        await taken(mailer, sent=1)
        await mailer.close()
        await here.postfix.drained()
        assert times == [10]
        assert [delivery.recipient for delivery in here.ours.deliveries] == [POSTMASTER]
