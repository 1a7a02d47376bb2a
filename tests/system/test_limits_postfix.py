"""Sending limits through the real Postfix: what counts, what is said, and two daemons with one limit.

The doors a and b ask two daemons that share a database; those named after an action ask daemons that count in
memory alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
import pytest_asyncio
from tests.system.daemon import Daemon
from tests.system.login_site import ANNA, BERT, JAN, LoginSite, Person
from tests.system.processes import eventually_async
from tests.system.sending_site import Sender, SendingPostfix, mailmaps, own_database
from tests.system.smtp import Reply

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.asyncio(loop_scope="module")]

LIMIT = 50
"""Recipients an hour of everybody."""

ACTIONS = ("reject", "hold", "observe")
DATA, END = "smtpd_data_restrictions", "smtpd_end_of_data_restrictions"
DOORS = {"a": (DATA,), "b": (DATA,), "end": (END,), "both": (DATA, END)}

WAIT = 60.0
"""Seconds."""

FULL = "has reached its limit of 50 recipients an hour; try again later."


@dataclass(frozen=True)
class Site:
    """`a` and `b` share one limit, `others` have the action that they are named after."""

    postgres: EmbeddedPostgres
    postfix: SendingPostfix
    logins: LoginSite
    a: Daemon
    b: Daemon
    others: Mapping[str, Daemon]

    async def takes_logins(self) -> bool:
        return (await self.logins.by_auth(JAN.username)).startswith("accepted")

    def session(self, door: str, person: Person) -> Sender:
        return Sender(self.postfix.ports[door], person.username)

    async def send(self, door: str, person: Person, recipients: int = 1) -> Reply:
        """The last reply to one mail."""
        async with self.session(door, person) as session:
            return (await session.send(person.email, addresses(recipients)))[-1]

    async def counted(self, person: Person) -> tuple[int, int]:
        """Messages and recipients of the last hour, as the database has them."""
        connection = await asyncpg.connect(self.postgres.dsn("sending"))
        try:
            row = await connection.fetchrow(
                "SELECT coalesce(sum(messages), 0)::int, coalesce(sum(recipients), 0)::int"
                " FROM mailpolicy.sent WHERE scope = 'login' AND name = $1",
                person.username,
            )
        finally:
            await connection.close()
        assert row is not None
        return row[0], row[1]

    async def release(self) -> None:
        """Everybody may send again."""
        for person in (JAN, ANNA, BERT):
            for daemon in (self.a, self.b):
                reply = await asyncio.to_thread(daemon.command, "limits release", name=person.username)
                assert "messages" in reply, reply


def addresses(count: int) -> list[str]:
    return [f"r{number}@outside.test" for number in range(count)]


@asynccontextmanager
async def running(postgres: EmbeddedPostgres) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        reader, auth, writer = await own_database(postgres)
        postfix = SendingPostfix({name: {} for name in (*DOORS, *ACTIONS)}, {})
        limits: dict[str, str | bool | int | float | list[str]] = {"login_recipients_hour": LIMIT}
        database: dict[str, str | bool | int | float | list[str]] = {"dsn": reader, "connect_timeout": 2.0}
        site = LoginSite(
            reader,
            auth,
            {"limits": limits, "database": {"write_dsn": writer}, "dovecot_auth": {"group": "postfix"}},
            postfix.folder / "queue",
        )
        stack.callback(site.close)
        b = Daemon({"limits": limits, "database": database | {"write_dsn": writer}})
        stack.callback(b.close)
        others = {
            action: Daemon({"limits": limits | {"action": action}, "database": database})
            for action in ACTIONS
        }
        for daemon in others.values():
            stack.callback(daemon.close)
        for door, lists in {**DOORS, **dict.fromkeys(ACTIONS, (DATA,))}.items():
            daemon = b if door == "b" else others.get(door, site.daemon)
            ask = f"check_policy_service inet:127.0.0.1:{daemon.ports['policy']}"
            postfix.doors[door] |= dict.fromkeys(lists, ask)
        await stack.enter_async_context(postfix)
        for daemon in (site.daemon, b, *others.values()):
            await asyncio.to_thread(daemon.start)
        yield Site(postgres, postfix, site, site.daemon, b, others)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(mail_postgres: EmbeddedPostgres) -> AsyncIterator[Site]:
    async with running(mail_postgres) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared: Site) -> Site:
    await shared.release()
    return shared


@pytest.mark.parametrize("door", ["a", "end", "both"])
async def test_one_mail_with_fifty_recipients_counts_fifty_and_once(site: Site, door: str) -> None:
    assert (await site.send(door, JAN, LIMIT)).code == 250
    assert await site.counted(JAN) == (1, LIMIT)
    reply = await site.send(door, JAN)
    assert reply.code == 450
    assert reply.text.endswith(f"{JAN.username} {FULL}")
    assert await site.counted(JAN) == (1, LIMIT)
    assert (await site.send(door, ANNA)).code == 250, "the limit is each login's own"


async def test_a_mail_that_does_not_fit_is_not_counted_and_a_smaller_one_passes(site: Site) -> None:
    assert (await site.send("a", JAN, LIMIT - 1)).code == 250
    assert (await site.send("a", JAN, 2)).code == 450
    assert (await site.send("b", JAN, 1)).code == 250
    assert await site.counted(JAN) == (2, LIMIT)


async def test_chunks_count_as_data_does(site: Site) -> None:
    """RFC 3030: BDAT in the place of DATA."""
    codes = []
    async with site.session("a", JAN) as session:
        for recipients in (LIMIT, 1):
            await session.say("RSET")
            await session.mail(JAN.email)
            for address in addresses(recipients):
                assert (await session.say(f"RCPT TO:<{address}>")).code == 250
            text = "Subject: a test\r\n\r\nhello"
            codes.append((await session.say(f"BDAT {len(text) + 2} LAST\r\n{text}")).code)
    assert codes == [250, 450]
    assert await site.counted(JAN) == (1, LIMIT)


async def test_who_is_not_logged_in_is_not_limited(site: Site) -> None:
    async with Sender(site.postfix.ports["a"]) as session:
        for _ in range(2):
            assert (await session.send("x@elsewhere.test", addresses(LIMIT)))[-1].code == 250


async def test_rejected_for_good(site: Site) -> None:
    assert (await site.send("reject", JAN, LIMIT)).code == 250
    reply = await site.send("reject", JAN)
    assert reply.code == 554
    assert reply.text.startswith("5.7.1")
    assert reply.text.endswith(f"{JAN.username} {FULL}")


async def test_held_until_somebody_looks(site: Site) -> None:
    assert (await site.send("hold", JAN, LIMIT)).code == 250
    assert site.postfix.held() == []
    reply = await site.send("hold", JAN)
    assert reply.code == 250
    assert await eventually_async(lambda: site.postfix.held() == [reply.queue_id], WAIT)


async def test_observed_only(site: Site) -> None:
    for _ in range(3):
        assert (await site.send("observe", JAN, LIMIT)).code == 250
    noted = f"limit reached scope=login name={JAN.username} limit={LIMIT} unit=recipients"
    assert await eventually_async(lambda: noted in site.others["observe"].log(), WAIT)


async def test_the_postmaster_lets_somebody_send_again(site: Site) -> None:
    assert (await site.send("a", JAN, LIMIT)).code == 250
    shown = await asyncio.to_thread(mailmaps, site.b, "limits", "show", JAN.username, "--json")
    assert json.loads(shown)["sent"]["recipients_hour"] == LIMIT
    assert (await site.send("b", JAN)).code == 450
    await asyncio.to_thread(mailmaps, site.a, "limits", "release", JAN.username)
    assert (await site.send("b", JAN)).code == 250


async def test_two_daemons_never_let_more_pass_than_one_limit(site: Site) -> None:
    async def send_some(door: str) -> int:
        passed = 0
        async with site.session(door, BERT) as session:
            for _ in range(15):
                passed += (await session.send(BERT.email, addresses(1)))[-1].code == 250
        return passed

    passed = await asyncio.gather(*(send_some(door) for door in ("a", "b") * 4))
    assert sum(passed) == LIMIT
    assert await site.counted(BERT) == (LIMIT, LIMIT)
    assert sum(passed[::2]) > 0
    assert sum(passed[1::2]) > 0


async def test_memory_goes_on_while_postgresql_is_away_and_the_database_counts_it_afterwards(
    site: Site,
) -> None:
    """The last test: the daemons are not as they were."""
    assert (await site.send("a", ANNA, 20)).code == 250
    async with site.session("a", ANNA) as session:
        await asyncio.to_thread(site.postgres.stop)
        try:
            replies = [(await session.send(ANNA.email, addresses(15)))[-1] for _ in range(3)]
            assert [reply.code for reply in replies] == [250, 250, 450], replies
            assert "counted in memory only" in site.a.log()
            assert site.a.status()["sending"]["limits"]["counted in"] == "memory"
        finally:
            await asyncio.to_thread(site.postgres.start)
    assert await eventually_async(lambda: "counted in the database again" in site.a.log(), WAIT), site.a.log()

    async def is_counted() -> bool:
        return await site.counted(ANNA) == (3, LIMIT)

    assert await eventually_async(is_counted, WAIT), await site.counted(ANNA)
    assert await eventually_async(site.takes_logins, WAIT)
    # Until it has connected again it counts in memory too, which knows nothing of what the other let through.
    assert await eventually_async(
        lambda: site.b.status()["databases"]["database.write_dsn"]["away"] is None, WAIT
    )
    assert (await site.send("b", ANNA)).code == 450, "the other daemon knows it too"
