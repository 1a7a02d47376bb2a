"""The sender check when something is away, and the way from observing to enforcing; through the real Postfix.

Nothing in an outage opens a door: what nobody can say is "try later", unless the settings say "observe".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.system.daemon import Daemon, Value
from tests.system.login_site import ANNA, JAN, LoginSite
from tests.system.processes import eventually_async
from tests.system.sending_site import Sender, SendingPostfix, mailmaps, own_database

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

WAIT = 60.0
"""Seconds."""

DOORS = ("mirror", "no-mirror", "no-mirror-now", "observe", "dunno")


@dataclass(frozen=True)
class Site:
    """Doors are named after the daemon they ask; `mirror` checks the passwords of all."""

    postgres: EmbeddedPostgres
    postfix: SendingPostfix
    logins: LoginSite
    daemons: Mapping[str, Daemon]

    async def takes_logins(self) -> bool:
        return (await self.logins.by_auth(JAN.username)).startswith("accepted")

    def session(self, door: str, login: str = JAN.username) -> Sender:
        return Sender(self.postfix.ports[door], login)


@asynccontextmanager
async def running(postgres: EmbeddedPostgres) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        reader, auth, writer = await own_database(postgres)
        postfix = SendingPostfix({name: {} for name in DOORS}, {})
        site = LoginSite(
            reader,
            auth,
            {"database": {"write_dsn": writer}, "dovecot_auth": {"group": "postfix"}},
            postfix.folder / "queue",
        )
        stack.callback(site.close)
        database: dict[str, Value] = {"dsn": reader, "write_dsn": writer}
        database |= {"connect_timeout": 2.0, "lookup_deadline": 2.0}
        unseen: dict[str, dict[str, Value]] = {"mirror": {"enabled": False}, "database": database}
        daemons = {
            "mirror": site.daemon,
            "no-mirror": Daemon(unseen),
            "observe": Daemon({**unseen, "senders": {"mode": "observe", "unauthenticated": "refuse"}}),
            "dunno": Daemon({**unseen, "senders": {"on_failure": "dunno"}}),
        }
        for name, daemon in daemons.items():
            stack.callback(daemon.close)
            ask = f"check_policy_service inet:127.0.0.1:{daemon.ports['policy']}"
            postfix.doors[name] |= {"smtpd_sender_restrictions": ask}
        now = postfix.doors["no-mirror"] | {"smtpd_delay_reject": "no"}
        postfix.doors["no-mirror-now"] = now
        await stack.enter_async_context(postfix)
        for daemon in daemons.values():
            await asyncio.to_thread(daemon.start)
        yield Site(postgres, postfix, site, daemons)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(mail_postgres: EmbeddedPostgres) -> AsyncIterator[Site]:
    async with running(mail_postgres) as site:
        yield site


@asynccontextmanager
async def sessions(site: Site) -> AsyncIterator[dict[str, Sender]]:
    """One at each door: whoever comes later cannot log in while the database is away."""
    async with AsyncExitStack() as stack:
        yield {door: await stack.enter_async_context(site.session(door)) for door in DOORS}


@asynccontextmanager
async def without_postgresql(site: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(site.postgres.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(site.postgres.start)


async def test_without_postgresql_what_is_known_is_decided_and_the_rest_waits(site: Site) -> None:
    async with sessions(site) as doors:
        assert (await doors["mirror"].verdict(JAN.email)).code == 250
        async with without_postgresql(site):
            assert (await doors["mirror"].verdict(JAN.email)).code == 250
            assert (await doors["mirror"].verdict("postmaster@lxtreme.nl")).code == 250, (
                "asked for the first time"
            )
            assert (await doors["mirror"].verdict(ANNA.email)).code == 553
            for sender in (JAN.email, ANNA.email, "nobody@elsewhere.test"):
                for door in ("no-mirror", "no-mirror-now"):
                    reply = await doors[door].verdict(sender)
                    assert reply.code == 450, (door, reply)
                    assert reply.text.startswith("4.3.0")
                assert (await doors["dunno"].verdict(sender)).code == 250
                assert (await doors["observe"].verdict(sender)).code == 250
    assert await eventually_async(lambda: _decides(site.daemons["no-mirror"]), WAIT)
    assert await eventually_async(site.takes_logins, WAIT)
    async with site.session("no-mirror") as session:
        assert (await session.verdict(JAN.email)).code == 250
        assert (await session.verdict(ANNA.email)).code == 553


def _decides(daemon: Daemon) -> bool:
    reply = daemon.command("senders explain", login=JAN.username, address=JAN.email, client="127.0.0.1")
    return reply["allowed"] is True


async def test_without_mailmaps_everybody_waits(site: Site) -> None:
    async with site.session("no-mirror") as session:
        await asyncio.to_thread(site.daemons["no-mirror"].stop)
        try:
            for sender in (JAN.email, ANNA.email):
                assert (await session.verdict(sender)).code == 451
        finally:
            await asyncio.to_thread(site.daemons["no-mirror"].start)
        assert (await session.verdict(JAN.email)).code == 250


async def test_from_observing_to_enforcing(site: Site) -> None:
    """The last test: the daemon does not observe any more."""
    daemon = site.daemons["observe"]
    async with site.session("observe") as session, Sender(site.postfix.ports["observe"]) as stranger:
        for sender in (JAN.email, ANNA.email, ANNA.email, "someone@elsewhere.test"):
            assert (await session.verdict(sender)).code == 250
        assert (await stranger.verdict(ANNA.email)).code == 250
        assert "553" not in daemon.status()["sending"]["answers"]

        told = json.loads(
            await asyncio.to_thread(mailmaps, daemon, "senders", "observed", "--since", "24h", "--json")
        )
        found = {(one["login"], one["sender"], one["verdict"]): one["times"] for one in told["observed"]}
        assert found[JAN.username, ANNA.email, "would be refused"] == 2
        assert found[JAN.username, "someone@elsewhere.test", "would be refused"] == 1
        assert found["", ANNA.email, "would be refused"] == 1
        assert (JAN.username, JAN.email, "would be refused") not in found
        assert any(one["verdict"] == "would be deferred" for one in told["observed"]), "in the outage before"

        text = daemon.config.read_text()
        assert text.count('mode = "observe"') == 1
        daemon.config.write_text(text.replace('mode = "observe"', 'mode = "enforce"'))
        os.kill(daemon.pid, signal.SIGHUP)
        assert await eventually_async(lambda: daemon.status()["sending"]["mode"] == "enforce", WAIT), (
            daemon.log()
        )
        assert (await session.verdict(JAN.email)).code == 250
        reply = await session.verdict(ANNA.email)
        assert reply.code == 553
        assert (await stranger.verdict(ANNA.email)).code == 553
    noted = f"sender refused login={JAN.username} sender={ANNA.email} client=127.0.0.1"
    assert await eventually_async(lambda: noted in daemon.log(), WAIT)
    why = await asyncio.to_thread(mailmaps, daemon, "senders", "explain", JAN.username, ANNA.email, code=1)
    assert f"{JAN.username} may not send as {ANNA.email}: {ANNA.email} is of anna" in why
    assert "needed: " in why
