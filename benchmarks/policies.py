"""The policy servers that are measured, running, and what they are asked.

Contract: every account may send as its own address and as its alias, the first `GRANTED` as one address more,
by a grant; all of that is known to the bare server, too. Limits are so high that nobody reaches them. One
mailmaps checks senders and counts in PostgreSQL, as a site has it; another counts in memory.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dataset import MAILWRITER, POLICYD, Dataset
from benchmarks.peers import Mailmaps, bare_policy
from benchmarks.policyd import Unavailable, database, install, policyd
from benchmarks.suite import Suite

SENDERS, BARE = "mailmaps sender check", "bare uvloop policy server"
SHARED, MEMORY = "mailmaps limits", "mailmaps limits in memory"
SQLITE, POSTGRESQL = "policyd-rate-limit, SQLite", "policyd-rate-limit, PostgreSQL"

PROBE = "user0"
"""The login whose mail is counted to see whether it is."""

ALLOWED, REFUSED = "DUNNO", "553"

LIMIT = 1_000_000
"""Recipients an hour."""

GRANTED = 100

ONE_OF = 100
"""In a mix, one question of so many is about a grant, and one is refused."""

GRANTS = """
INSERT INTO mailpolicy.sender_grants (login, address, reason)
SELECT login, address, 'benchmark' FROM unnest($1::text[], $2::text[]) AS made (login, address)
"""

COUNTED = f"SELECT sum(recipient_count) FROM mail_count WHERE id = '{PROBE}'"  # noqa: S608  # the word above

Pair = tuple[str, str]

Counted = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Policies:
    """`ports` by the peer's name; `counted` tells how many recipients of `PROBE` a peer has counted.

    `mailmaps` is the one that checks senders.
    """

    dataset: Dataset
    mailmaps: Mailmaps
    ports: dict[str, int]
    counted: dict[str, Counted]
    left_out: list[str]

    def mix(self, count: int, seed: int) -> list[str]:
        """Questions as lines of policy.c, of so many addresses: nearly all of who has them."""
        asked = [_line(pair, ALLOWED) for pair in self._owned(self.dataset.known(count, seed))]
        chance = random.Random(seed)
        for place in range(0, len(asked) - 1, ONE_OF):
            number = chance.randrange(self.dataset.accounts)
            asked[place] = _line(granted(self.dataset, number % GRANTED), ALLOWED)
            asked[place + 1] = _line(foreign(self.dataset, number), REFUSED)
        return asked

    def share(self, number: int, shares: int) -> list[str]:
        """One of so many parts of all addresses, in random order, all allowed."""
        order = random.Random(0).sample(range(self.dataset.addresses), self.dataset.addresses)
        part = order[number::shares]
        return [_line(pair, ALLOWED) for pair in self._owned([self.dataset.address(one) for one in part])]

    def owned(self, count: int, seed: int) -> list[str]:
        """Questions that are all allowed, whoever is asked."""
        return [_line(pair, ALLOWED) for pair in self._owned(self.dataset.known(count, seed))]

    @property
    def probe(self) -> list[str]:
        """Mail of `PROBE`."""
        return [_line(_own(self.dataset, 0), ALLOWED)]

    def _owned(self, addresses: list[str]) -> Iterator[Pair]:
        return ((self.dataset.owner(address).partition("@")[0], address) for address in addresses)


def granted(dataset: Dataset, number: int) -> Pair:
    """An account and the address that it was granted, its neighbour's."""
    return f"user{number}", dataset.address(2 * (number + 1))


def foreign(dataset: Dataset, number: int) -> Pair:
    """An account and somebody else's address."""
    return f"user{number}", dataset.address(2 * ((number + dataset.accounts // 2) % dataset.accounts))


@contextmanager
def policies(suite: Suite) -> Iterator[Policies]:
    """All of them, running."""
    dataset, cluster = suite.dataset, suite.cluster
    grants = [granted(dataset, number) for number in range(GRANTED)]
    cluster.fetch(GRANTS, *map(list, zip(*grants, strict=True)), database=dataset.database)
    write_dsn = cluster.postgres.dsn(dataset.database, MAILWRITER)
    limits = {"limits": {"login_recipients_hour": LIMIT}}
    with ExitStack() as stack:
        shared = stack.enter_context(
            suite.mailmaps(settings={"database": {"write_dsn": write_dsn}, **limits})
        )
        memory = stack.enter_context(suite.mailmaps(settings=limits))
        pairs = [_own(dataset, number) for number in range(dataset.addresses)] + grants
        ports = {
            SENDERS: shared.port("policy"),
            BARE: stack.enter_context(bare_policy(suite.folder, pairs)),
            SHARED: shared.port("policy"),
            MEMORY: memory.port("policy"),
        }
        counted: dict[str, Counted] = {
            SHARED: lambda: _counted_by(shared),
            MEMORY: lambda: _counted_by(memory),
        }
        left_out = []
        try:
            _add_policyd(suite, stack, ports, counted)
        except Unavailable as error:
            left_out.append(str(error))
        yield Policies(dataset, shared, ports, counted, left_out)


def _add_policyd(suite: Suite, stack: ExitStack, ports: dict[str, int], counted: dict[str, Counted]) -> None:
    program = install(suite.folder)
    folders = {SQLITE: suite.folder / "policyd-sqlite", POSTGRESQL: suite.folder / "policyd-postgresql"}
    suite.cluster.fetch(f"CREATE DATABASE {POLICYD} OWNER {POLICYD}")
    dsn = suite.cluster.postgres.dsn(POLICYD, POLICYD)
    ports[SQLITE] = stack.enter_context(policyd(program, folders[SQLITE], LIMIT))
    ports[POSTGRESQL] = stack.enter_context(policyd(program, folders[POSTGRESQL], LIMIT, dsn))
    counted[SQLITE] = lambda: _counted_in(database(folders[SQLITE]))
    counted[POSTGRESQL] = lambda: suite.cluster.fetch(COUNTED, database=POLICYD)[0][0] or 0


def _counted_by(mailmaps: Mailmaps) -> int:
    shown = mailmaps.daemon.command("limits show", scope="login", name=PROBE)
    return int(shown["sent"]["recipients_hour"])


def _counted_in(file: Path) -> int:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(COUNTED).fetchone()[0] or 0
    finally:
        connection.close()


def _own(dataset: Dataset, number: int) -> Pair:
    address = dataset.address(number)
    return dataset.owner(address).partition("@")[0], address


def _line(pair: Pair, action: str) -> str:
    return "\t".join((*pair, action))
