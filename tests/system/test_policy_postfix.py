"""Who may send as whom, by the real Postfix: once by the map, once by the policy service, both alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.conftest import Database, new_database
from tests.system.login_site import ANNA, BERT, GONE, JAN, LoginSite
from tests.system.processes import eventually_async
from tests.system.sender_spellings import Spellings
from tests.system.sending_site import Sender, SendingPostfix, Typed, all_verdicts, insert

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

MAP = "reject_sender_login_mismatch"
NOW = {"smtpd_delay_reject": "no"}
BY_MAP, BY_CHECK = ("map", "map-now"), ("policy", "policy-now", "policy-unix")

Sections = Mapping[str, Mapping[str, str | bool | int | float | list[str]]]


@dataclass(frozen=True)
class Site:
    """A Postfix and the daemon that it asks."""

    database: Database
    logins: LoginSite
    postfix: SendingPostfix

    def deferred(self) -> int:
        """How often the policy service could not say."""
        answers: dict[str, int] = self.logins.daemon.status()["sending"]["answers"]
        return sum(answers.get(word, 0) for word in ("DEFER_IF_PERMIT", "451"))


@asynccontextmanager
async def running(
    postgres: EmbeddedPostgres,
    template: str,
    settings: Mapping[str, str] | None = None,
    sections: Sections | None = None,
) -> AsyncIterator[Site]:
    """A site; `settings` are lines of main.cf, `sections` of mailmaps.toml."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(new_database(postgres, f"TEMPLATE {template}"))
        await insert(database.connection)
        postfix = SendingPostfix({name: {} for name in (*BY_MAP, *BY_CHECK)}, settings or {})
        usual: dict[str, dict[str, str | bool | int | float | list[str]]] = {
            "database": {"write_dsn": database.write_dsn},
            "dovecot_auth": {"group": "postfix"},
            "policy": {"unix": str(postfix.folder / "queue" / "mailmaps" / "policy"), "group": "postfix"},
            "senders": {"unauthenticated": "refuse"},
            "postfix": {"myhostname": "mx.postfix.test", "myorigin": "mx.postfix.test"},
        }
        for name, values in (sections or {}).items():
            usual[name] = usual.get(name, {}) | dict(values)
        site = LoginSite(database.reader_dsn, database.auth_dsn, usual, postfix.folder / "queue")
        stack.callback(site.close)
        ask = f"check_policy_service inet:127.0.0.1:{site.daemon.ports['policy']}"
        postfix.settings["smtpd_sender_login_maps"] = site.daemon.map("tcp", "smtpd_sender_login_maps")
        for name, restriction, more in (
            ("map", MAP, {}),
            ("map-now", MAP, NOW),
            ("policy", ask, {}),
            ("policy-now", ask, NOW),
            ("policy-unix", "check_policy_service unix:mailmaps/policy", {}),
        ):
            postfix.doors[name] |= {"smtpd_sender_restrictions": restriction, **more}
        await stack.enter_async_context(postfix)
        await asyncio.to_thread(site.daemon.start)
        yield Site(database, site, postfix)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Site]:
    exceptions = {
        "unauthenticated_networks": ["127.0.0.9/32"],
        "unauthenticated_senders": ["info@lxtreme.nl", "@alias.test"],
    }
    async with running(postgres, template, sections={"senders": exceptions}) as site:
        await site.database.connection.execute(
            "INSERT INTO mailpolicy.sender_grants (login, address, networks) VALUES"
            " ('bert@lxtreme.nl', 'shop@elsewhere.test', NULL), ('bert@lxtreme.nl', '@wide.test', NULL),"
            " ('anna', 'robot@lxtreme.nl', '{127.0.0.0/8}'), ('anna', 'far@lxtreme.nl', '{192.0.2.0/24}'),"
            " ('gone', '*', '{127.0.0.0/8}')"
        )
        async with asyncio.timeout(60):
            while site.logins.daemon.status()["sending"].get("grants") != 5:
                await asyncio.sleep(0.1)
        yield site


MAY = {
    JAN.username: [
        JAN.email,
        JAN.email.upper(),
        "postmaster@lxtreme.nl",
        "j.w.janssen+news@lxtreme.nl",
        "jürgen@lxtreme.nl",
        "JÜRGEN@lxtreme.nl",
        "postmaster@alias.test",
        "",
    ],
    ANNA.username: [
        ANNA.email,
        '"anna x"@lxtreme.nl',
        '"anna"@lxtreme.nl',
        "info@lxtreme.nl",
        "first+x@lxtreme.nl",
        "anna@catch.test",
        "",
    ],
    BERT.username: [BERT.email, "anything@catch.test", "any.thing+x@catch.test", "", "shop@elsewhere.test"],
}
"""Own address, alias, plus address, UTF-8, domain alias, null sender; quoted, forward, chain of forwards;
catch-all, grant."""

MAY_NOT = {
    JAN.username: [
        ANNA.email,
        GONE.email,
        "left@lxtreme.nl",
        "info@lxtreme.nl",
        "x@elsewhere.test",
        "nobody",
    ],
    ANNA.username: [JAN.email, "anna x@alias.test", "away@lxtreme.nl", "other@catch.test", "@lxtreme.nl"],
    BERT.username: ["anna@catch.test", "nobody@lxtreme.nl", "shop+x@other.test", "bert@lxtreme.nl.test"],
}


@pytest.mark.parametrize("door", [*BY_MAP, *BY_CHECK])
async def test_who_is_logged_in_sends_as_himself_and_nobody_else(site: Site, door: str) -> None:
    for login, senders in MAY.items():
        async with Sender(site.postfix.ports[door], login, smtputf8=True) as session:
            for sender in senders:
                assert (await session.verdict(sender)).code == 250, (login, sender)
    for login, senders in MAY_NOT.items():
        async with Sender(site.postfix.ports[door], login, smtputf8=True) as session:
            for sender in senders:
                reply = await session.verdict(sender)
                assert reply.code == 553 if " " not in sender else reply.code in (501, 553, 555), (
                    login,
                    reply,
                )


@pytest.mark.parametrize("door", BY_CHECK)
async def test_the_user_reads_who_he_is_and_what_he_may_not(site: Site, door: str) -> None:
    async with Sender(site.postfix.ports[door], "Postmaster@lxtreme.nl") as session:
        reply = await session.verdict("Info@lxtreme.nl")
    text = "Sender address rejected: You are logged in as jawi_lx, which may not send as Info@lxtreme.nl."
    assert reply == (553, f"5.7.1 <Info@lxtreme.nl>: {text}")


@pytest.mark.parametrize("door", BY_CHECK)
async def test_grants_hold_from_their_networks_and_the_map_knows_those_without(site: Site, door: str) -> None:
    async with Sender(site.postfix.ports[door], ANNA.username) as session:
        assert (await session.verdict("robot@lxtreme.nl")).code == 250
        assert (await session.verdict("far@lxtreme.nl")).code == 553
    async with Sender(site.postfix.ports["map"], ANNA.username) as session:
        assert (await session.verdict("robot@lxtreme.nl")).code == 553
    for name in (door, "map"):
        async with Sender(site.postfix.ports[name], BERT.username) as session:
            assert (await session.verdict("Who@wide.test")).code == 250
            assert (await session.verdict("who@not.wide.test")).code == 553


@pytest.mark.parametrize("door", [*BY_MAP, *BY_CHECK])
async def test_who_is_not_logged_in_does_not_send_as_us(site: Site, door: str) -> None:
    async with Sender(site.postfix.ports[door]) as session:
        for sender in (JAN.email, "jürgen@lxtreme.nl", GONE.email, "x@catch.test", "postmaster+x@lxtreme.nl"):
            reply = await session.verdict(sender)
            assert reply.code == 553, (sender, reply)
        for sender in ("", "nobody@lxtreme.nl", "somebody@elsewhere.test"):
            assert (await session.verdict(sender)).code == 250, sender


@pytest.mark.parametrize("door", BY_CHECK)
async def test_a_list_and_a_network_are_excepted(site: Site, door: str) -> None:
    async with Sender(site.postfix.ports[door]) as session:
        reply = await session.verdict(ANNA.email)
        assert reply.text.endswith("anna@lxtreme.nl is an address of ours: log in to send as it.")
        for sender in ("info@lxtreme.nl", "Info+bounce@lxtreme.nl", "anna@alias.test"):
            assert (await session.verdict(sender)).code == 250, sender
    async with Sender(site.postfix.ports[door], client="127.0.0.9") as session:
        assert (await session.verdict(ANNA.email)).code == 250


def _noted(site: Site, sender: str) -> list[str]:
    """The lines about a sender that was refused."""
    return [line for line in site.logins.daemon.log().splitlines() if f"sender={sender} " in line]


async def test_every_recipient_hears_the_same_and_it_is_noted_once(site: Site) -> None:
    async with Sender(site.postfix.ports["policy"], JAN.username) as session:
        for sender in ("anna+once@lxtreme.nl", "anna+then@lxtreme.nl"):
            await session.say("RSET")
            await session.mail(sender)
            codes = {(await session.say(f"RCPT TO:<{number}@outside.test>")).code for number in range(5)}
    assert codes == {553}
    assert await eventually_async(lambda: len(_noted(site, "anna+then@lxtreme.nl")) == 1, 30)
    assert len(_noted(site, "anna+once@lxtreme.nl")) == 1


PAIRS = 500
"""For each login and each variant; two doors are asked for each."""

ADDRESSES = [
    JAN.email,
    ANNA.email,
    BERT.email,
    GONE.email,
    "postmaster@lxtreme.nl",
    "jürgen@lxtreme.nl",
    "info@lxtreme.nl",
    "away@lxtreme.nl",
    "any@catch.test",
    "anna@alias.test",
    "anna x@lxtreme.nl",
    "nobody@elsewhere.test",
    "anna@mx.postfix.test",
]

HERE = {"mydestination": "mx.postfix.test, localhost"}

VARIANTS: dict[str, dict[str, str]] = {
    "usual": HERE,
    "partial": HERE | {"append_dot_mydomain": "yes", "mydomain": "nl"},
    "hackless": HERE
    | {
        "resolve_dequoted_address": "no",
        "swap_bangpath": "no",
        "allow_percent_hack": "no",
        "append_at_myorigin": "no",
    },
    "local": {"mydestination": "lxtreme.nl, mx.postfix.test, localhost", "myorigin": "lxtreme.nl"},
    "nothing local": {},
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_map_and_check_say_the_same(postgres: EmbeddedPostgres, template: str, variant: str) -> None:
    settings = VARIANTS[variant]
    words = {"yes": True, "no": False}
    ours: dict[str, str | bool | int | float | list[str]] = {
        "mydomain": "postfix.test",
        "inet_interfaces": ["127.0.0.1"],
        **{name: words.get(value, value) for name, value in settings.items()},
    }
    if "mydestination" in settings:
        ours["mydestination"] = settings["mydestination"].split(", ")
    spellings = Spellings(11, ["lxtreme.nl", "alias.test", "catch.test", "mx.postfix.test", "localhost"])
    coin = random.Random(12)
    logins = ("", JAN.username, ANNA.username, BERT.username)
    mails = {
        login: [Typed(spellings.typed(ADDRESSES), coin.random() < 0.5) for _ in range(PAIRS)]
        for login in logins
    }
    refused = {"smtpd_relay_restrictions": "reject"}
    async with running(postgres, template, settings, {"postfix": ours}) as site:
        ports = await _restarted(site, refused)
        by_map, by_check = await all_verdicts(ports, logins, mails)
        deferred = site.deferred()
    different = {
        (login, mail): (one, other)
        for login in logins
        for mail, one, other in zip(mails[login], by_map[login], by_check[login], strict=True)
        if one.code != other.code
    }
    assert different == {}
    assert deferred == 0  # which the refusal of the recipient hides
    codes = [reply.code for replies in by_map.values() for reply in replies]
    assert codes.count(553) > PAIRS / 2
    assert codes.count(554) > PAIRS / 2


async def _restarted(site: Site, options: Mapping[str, str]) -> list[int]:
    """Give the doors of map and check these options; where they are."""
    for name in ("map", "policy"):
        site.postfix.doors[name] |= options
    site.postfix.configure({})
    await asyncio.to_thread(site.postfix.restart)
    return [site.postfix.ports["map"], site.postfix.ports["policy"]]
