"""One run: everything started, troubled until all mail has been sent, drained, judged and taken away.

Contract: `chaos(...)` gives the tally and what was wrong. The troubles come in random order, each kind before
any comes again, with quiet in between now and then; messages and probes begin all the while, at random.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.chaos import people, trouble
from tests.system.chaos.senders import Senders
from tests.system.chaos.tally import Tally
from tests.system.chaos.trouble import LASTS, Field, Trouble
from tests.system.daemon import Daemon
from tests.system.lmtp_sink import LmtpSink
from tests.system.outages.server import Server
from tests.system.postfix import PrivatePostfix

from mailmaps.database.migrations import Site, create

SLOWEST = 2.0
"""Messages a second, and as many probes; more where there are so many that it would take too long."""

LONGEST = 160.0
"""Seconds of trouble in all, not counting how long it takes to bring it about."""

QUIET_SHARE = 0.15
"""How often it is quiet before the next trouble."""

END_LIMIT = 300.0
"""Seconds for the last message to be taken, and as many for the queue to be empty, when all is well again."""

MOVED_SHARE = 0.15
"""How much of it is to those who have just come, or gone."""

AFTERWARDS = "afterwards"

PASSWORD = "the reader of the chaos"

TABLES = (
    "virtual_mailbox_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "transport_maps",
    "smtpd_sender_login_maps",
    "relay_domains",
)


@dataclass(frozen=True)
class Plan:
    """What is asked for; `by` is tcp or socketmap."""

    messages: int
    unknown: int
    seed: int
    by: str = "tcp"

    @property
    def rate(self) -> float:
        """Messages, and probes, a second."""
        return max(SLOWEST, max(self.messages, self.unknown) / LONGEST)

    def troubles(self, rng: random.Random) -> Iterator[Trouble]:
        """Each kind before any comes again, for ever."""
        kinds = [kind for kind in LASTS if kind is not trouble.quiet]
        while True:
            for kind in rng.sample(kinds, len(kinds)):
                if rng.random() < QUIET_SHARE:
                    yield trouble.quiet
                yield kind


@dataclass(frozen=True)
class Outcome:
    """What came of it; `wrong` empty: nothing that must not be."""

    tally: Tally
    wrong: list[str]
    log: str
    """What the daemon said."""


async def chaos(plan: Plan, tell: Callable[[str, int], None] = lambda _, __: None) -> Outcome:
    """Run it; `tell` hears which trouble begins, and how many messages it has."""
    rng = random.Random(plan.seed)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="mailmaps-chaos-", dir="/tmp"))
        server = await stack.enter_async_context(Server(Path(folder)))
        dsn = await _fill(server)
        sink = await stack.enter_async_context(LmtpSink())
        daemon = stack.enter_context(_daemon(dsn, sink))
        postfix = await stack.enter_async_context(PrivatePostfix(_main_cf(daemon, sink, plan.by)))
        run = _Run(plan, Field(server, daemon, rng), postfix, rng)
        await run.all(tell)
        await postfix.drained(END_LIMIT)
        wrong = run.tally.wrong(sink.deliveries, plan.messages)
        return Outcome(run.tally, wrong, daemon.log())


class _Run:
    """The sending."""

    def __init__(self, plan: Plan, field: Field, postfix: PrivatePostfix, rng: random.Random) -> None:
        self.tally = Tally()
        self._plan = plan
        self._field = field
        self._rng = rng
        self._trouble = ""
        self._senders = Senders(postfix.port, self.tally, lambda: self._trouble, rng)
        self._movers = people.Movers(field.server.postgres.dsn("mail"), field.daemon)
        self._sent = 0
        self._probed = 0

    async def all(self, tell: Callable[[str, int], None]) -> None:
        """Until everything is decided. Raises `TimeoutError` when that does not come about."""
        moving = asyncio.ensure_future(self._movers.run())
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as mail:
                for kind in self._plan.troubles(self._rng):
                    await self._one(kind, mail, tell)
                    if self._sent == self._plan.messages and self._probed == self._plan.unknown:
                        break
                self._begin(AFTERWARDS)
                limit.reschedule(asyncio.get_running_loop().time() + END_LIMIT)
        finally:
            moving.cancel()
            with suppress(asyncio.CancelledError):
                await moving

    async def _one(self, kind: Trouble, mail: asyncio.TaskGroup, tell: Callable[[str, int], None]) -> None:
        begun = time.monotonic()
        self._begin(trouble.name(kind))
        tell(self._trouble, self._hand_out(mail, LASTS[kind]))
        async with kind(self._field):
            await asyncio.sleep(LASTS[kind])
        self.tally.seconds[trouble.name(kind)] += time.monotonic() - begun

    def _begin(self, name: str) -> None:
        self._trouble = name
        self.tally.seconds.setdefault(name, 0.0)

    def _hand_out(self, mail: asyncio.TaskGroup, lasts: float) -> int:
        """Begin a share of all that is to be sent, spread over the time; how many messages."""
        before = self._sent
        for _ in range(ceil(self._plan.rate * lasts)):
            if self._sent < self._plan.messages:
                mail.create_task(self._message(self._sent, self._rng.uniform(0.0, lasts)))
                self._sent += 1
            if self._probed < self._plan.unknown:
                mail.create_task(self._probe(self._rng.uniform(0.0, lasts)))
                self._probed += 1
        return self._sent - before

    async def _message(self, number: int, after: float) -> None:
        await asyncio.sleep(after)
        movers = self._movers.arrived[-people.LATEST :]
        known = movers if movers and self._rng.random() < MOVED_SHARE else people.KNOWN
        await self._senders.message(number, self._rng.choice(known))

    async def _probe(self, after: float) -> None:
        await asyncio.sleep(after)
        left = self._movers.left[-people.LATEST :]
        is_one = bool(left) and self._rng.random() < MOVED_SHARE
        await self._senders.probe(self._rng.choice(left) if is_one else people.unknown(self._rng))


async def _fill(server: Server) -> str:
    """Make the database; the DSN to ask it with."""
    await server.execute(f"CREATE ROLE mailreader LOGIN PASSWORD '{PASSWORD}'")
    await server.execute("CREATE DATABASE mail")
    async with server.connect(server.postgres.dsn("mail")) as connection:
        await create(connection, Site(honour_active=True, recipient_delimiter="+"), lambda _: None)
        await connection.execute(people.SETUP)
        await connection.execute("ANALYZE")
        await connection.execute("CHECKPOINT")  # what is not on disk may go with a kill -9
    return server.postgres.dsn("mail", "mailreader", PASSWORD)


def _daemon(dsn: str, sink: LmtpSink) -> Daemon:
    return Daemon(
        {
            "delivery": sink.nexthop,
            "database": {"dsn": dsn, "honour_active": True, "lookup_deadline": 2.0, "connect_timeout": 2.0},
            "postfix": {"recipient_delimiter": "+", "myorigin": "mx.postfix.test"},
        }
    )


def _main_cf(daemon: Daemon, sink: LmtpSink, by: str) -> dict[str, str]:
    return {
        **{table: daemon.map(by, table) for table in TABLES},
        "virtual_alias_domains": "",
        "virtual_transport": sink.nexthop,
        "default_transport": sink.nexthop,
        "recipient_delimiter": "+",
        "smtpd_sender_restrictions": "reject_sender_login_mismatch",
        # A bounce would be delivered like any mail, to its sender at sender.test; nobody is told besides.
        "notify_classes": "",
    }
