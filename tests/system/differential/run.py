"""All sites under all settings: makes the databases, shares the addresses out, adds up what was seen."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from tests.system.differential import addresses
from tests.system.differential.addresses import STRANGER, EightBit
from tests.system.differential.comparison import Answer, Comparison, Difference
from tests.system.differential.instances import SINKS, Bench, Instances, mail_version, speaks_utf8
from tests.system.differential.settings import Settings
from tests.system.differential.sink import Sinks
from tests.system.differential.transaction import Batch
from tests.system.sasl_stub import SaslStub
from tests.system.sites import Site, howto, iredmail, ours, population, postfixadmin

from mailmaps.demo.postgres import EmbeddedPostgres

SITES = (howto.SITE, postfixadmin.SITE, iredmail.SITE, ours.SITE)

BATCH = 40
"""Recipients of one message. Below lmtp_destination_recipient_limit (50), so that a message is one delivery
a sink; with more, a doubt costs more."""

ROUND = 2000
"""Addresses after which all mail must have arrived."""

SENDER_SHARE = 5
"""One sender is tried for so many recipients."""

SITE_SENDERS = 0.25
"""The part of the messages that the site's own people send."""

EXPLAINED = 10
"""Differences of one choice of settings for which mailmaps is asked why."""


@dataclass
class Tally:
    """What was seen."""

    recipients: int = 0
    senders: int = 0
    """Of these it is only counted that they were tried."""
    found: int = 0
    unknown: int = 0
    deferred: int = 0
    delivered: int = 0
    eight_bit: int = 0
    """Delivered, and not ASCII."""
    seconds: float = 0.0
    """Spent sending and waiting, without the starting of servers."""
    differences: list[str] = field(default_factory=list)

    def merge(self, other: Tally) -> None:
        """Add what was seen elsewhere."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def add(self, answers: Sequence[Answer]) -> None:
        """Count what the master said."""
        self.recipients += len(answers)
        for address, outcome in answers:
            codes = outcome.rcpt[:1] + outcome.data[:1]
            self.deferred += "4" in codes
            self.unknown += "5" in codes
            self.found += "4" not in codes and "5" not in codes
            self.delivered += bool(outcome.delivered)
            self.eight_bit += bool(outcome.delivered) and not address.isascii()


@dataclass(frozen=True)
class Proof:
    """A bench with a database for each site: `prove` compares on one of them."""

    bench: Bench
    dsns: dict[str, str]

    async def prove(
        self,
        site: Site,
        settings: Settings,
        count: int,
        seed: int,
        *,
        tell: Callable[[int], None] = lambda _: None,
        daemon_settings: Settings | None = None,
    ) -> Tally:
        """Compare `count` recipients and some senders; `tell` hears how many more are done.

        With `daemon_settings` mailmaps is told other settings than Postfix has: they will differ.
        """
        rng = random.Random(f"{seed} {site.name} {settings}")
        tally = Tally()
        async with Instances(self.bench, site, self.dsns[site.name], settings, daemon_settings) as instances:
            job = _Job(instances, self.bench, rng, tally)
            start = time.monotonic()
            await job.prove_recipients(count, tell)
            await job.prove_senders(count // SENDER_SHARE)
            tally.seconds = time.monotonic() - start
        return tally


class _Job:
    """The work on one set of instances."""

    def __init__(self, instances: Instances, bench: Bench, rng: random.Random, tally: Tally) -> None:
        self._instances = instances
        self._rng = rng
        self._tally = tally
        self._comparison = Comparison(instances, bench.sinks, f"{instances.site.name}-{time.monotonic_ns()}")
        utf8 = speaks_utf8(bench.mail_version)
        self._known = population.population(utf8).keys + tuple(instances.site.known)
        # A byte that is no UTF-8 is an SQL error to a Postfix that speaks it, which blocks A for 60 s.
        raw = not instances.settings.smtputf8_enable and not utf8
        self._eight_bit = EightBit.RAW if raw else EightBit.UTF8

    async def prove_recipients(self, count: int, tell: Callable[[int], None]) -> None:
        site, settings = self._instances.site, self._instances.settings
        asked = addresses.recipients(self._rng, self._known, self._eight_bit, count)
        for first in range(0, len(asked), ROUND):
            part = asked[first : first + ROUND]
            answers, differences = await self._comparison.compare(
                list(_batches(self._rng, site, settings, part))
            )
            self._tally.add(answers)
            self._note(differences)
            tell(len(part))

    async def prove_senders(self, count: int) -> None:
        """Each sender is tried by one login or by none."""
        asked = addresses.senders(self._rng, self._known, self._eight_bit, count)
        logins = ["", *sorted({login for login, _ in self._instances.site.senders})]
        mine = defaultdict(list)
        for sender in asked:
            mine[self._rng.choice(logins)].append(sender)
        for login, senders in mine.items():
            recipient = f"ann@{population.MAIN}"
            answers, differences = await self._comparison.compare_senders(login, senders, recipient)
            self._tally.senders += len(answers)
            self._note(differences)

    def _note(self, differences: Sequence[Difference]) -> None:
        told = self._tally.differences
        for difference in differences:
            why = "(not asked why)"
            if len(told) < EXPLAINED:
                why = f"{self._instances.explain(difference.subject)}\n{self._instances.complaints()}"
            told.append(f"{self._instances.site.name}, {self._instances.settings}\n{difference}\n{why}\n")


def _batches(rng: random.Random, site: Site, settings: Settings, asked: Sequence[str]) -> Iterator[Batch]:
    """Addresses that may go together go together; those that are not ASCII among themselves, half of them
    announced as SMTPUTF8. Each of the site's own people writes to somebody here and to somebody elsewhere."""
    alone = [address for address in asked if _goes_alone(site, address)]
    together = [address for address in asked if not _goes_alone(site, address)]
    plain = [address for address in together if address.isascii()]
    rest = [address for address in together if not address.isascii()]
    parts: list[tuple[str, ...]] = [(address,) for address in alone]
    parts += [tuple(group[i : i + BATCH]) for group in (plain, rest) for i in range(0, len(group), BATCH)]
    people = [(login, sender) for login, sender in site.senders if _may_send(login, sender, settings)]
    for login, sender in people:
        yield Batch(0, login, sender, (f"ann@{population.MAIN}", f"someone@{population.ELSEWHERE}"))
    for number, part in enumerate(parts):
        own = people and rng.random() < SITE_SENDERS
        login, sender = rng.choice(people) if own else ("", STRANGER if number % 8 else "")
        announced = settings.smtputf8_enable and not "".join(part).isascii() and rng.random() < 0.5
        yield Batch(0, login, sender, part, announced)


def _may_send(login: str, sender: str, settings: Settings) -> bool:
    """Whether a login owns a sender; a message refused for its sender says nothing about its recipients."""
    extension = sender.lower().rpartition("@")[0].removeprefix(login.lower().rpartition("@")[0])
    return not extension or extension[0] in settings.recipient_delimiter


def _goes_alone(site: Site, address: str) -> bool:
    return (
        addresses.needs_own_message(address) or population.domain_of(address.lower()) in site.copied_domains
    )


@asynccontextmanager
async def proof(postgres: EmbeddedPostgres, sites: Sequence[Site] = SITES) -> AsyncIterator[Proof]:
    """Sinks, a login service and filled databases."""
    version = mail_version()
    async with Sinks(SINKS) as sinks, SaslStub() as sasl:
        people = population.population(speaks_utf8(version))
        for site in sites:
            await _fill(postgres, site, people, sinks.ports)
        yield Proof(Bench(sinks, sasl, version), {site.name: postgres.dsn(site.name) for site in sites})


async def _fill(
    postgres: EmbeddedPostgres, site: Site, people: population.Population, ports: dict[str, int]
) -> None:
    server = await asyncpg.connect(postgres.dsn())
    try:
        await server.execute(f"DROP DATABASE IF EXISTS {site.name} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {site.name}")
    finally:
        await server.close()
    connection = await asyncpg.connect(postgres.dsn(site.name))
    try:
        await site.fill(connection, people, ports)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def default_report() -> Path:
    """Where differences are written when nobody says where."""
    return Path(tempfile.gettempdir()) / "mailmaps-differential.txt"
