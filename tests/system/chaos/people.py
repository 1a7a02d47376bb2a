"""Who gets mail in the chaos, who does not exist, and who comes and goes meanwhile.

Contract: `SETUP` is SQL for a database with our schema; `KNOWN` are recipients of it, each with where mail to
them ends. `unknown` makes addresses that nobody has, in domains of ours. `Movers` make and remove addresses
all the while: one that the daemon has once found counts as known from then on, one that it has once not found
after its removal as unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import asyncpg
from tests.system.daemon import Daemon
from tests.system.outages.asker import ask
from tests.system.outages.history import Place

from mailmaps.maps.answer import NOT_FOUND, Answer, Found

ACCOUNTS = 150

SETUP = f"""
INSERT INTO domains (gid, domain) VALUES (6000, 'one.test'), (6001, 'two.test'), (6002, 'catch.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   SELECT 'p' || n, 6100 + n, 6000, 'p' || n || '@one.test', 'one.test/p' || n, '1'
   FROM generate_series(0, {ACCOUNTS - 1}) n;
INSERT INTO user_addresses (username, alias)
   SELECT 'p' || n, a || n || d
   FROM generate_series(0, {ACCOUNTS - 1}) n, (VALUES ('p', '@one.test'), ('q', '@two.test')) v (a, d);
INSERT INTO mailmaps.forwards (address, target)
   SELECT 'team' || n || '@two.test', 'p' || n + m || '@one.test'
   FROM generate_series(0, 19) n, generate_series(0, 2) m;
INSERT INTO mailmaps.forwards (address, target)
   SELECT 'out' || n || '@two.test', 'o' || n || '@elsewhere.test' FROM generate_series(0, 9) n;
INSERT INTO mailmaps.forwards VALUES ('@catch.test', 'p0@one.test');
INSERT INTO mailmaps.domain_aliases VALUES ('alias.test', 'one.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
   VALUES ('asleep', 7000, 6000, 'asleep@one.test', 'one.test/asleep', '0');
"""

MOVE_EVERY = 0.3
"""Seconds between two changes."""

ASK_EVERY = 0.05

LATEST = 100
"""Movers that are written to: those of the last minute, say."""


class Recipient(NamedTuple):
    """An address, and who gets what is sent there."""

    address: str
    arrives: tuple[str, ...]


def _known() -> Iterator[Recipient]:
    for n in range(ACCOUNTS):
        yield Recipient(f"p{n}@one.test", (f"p{n}@one.test",))
        yield Recipient(f"q{n}+News@two.test", (f"p{n}+News@one.test",))
        yield Recipient(f"P{n}@Alias.Test", (f"p{n}@one.test",))
    for n in range(20):
        yield Recipient(f"team{n}@two.test", tuple(f"p{n + m}@one.test" for m in range(3)))
    for n in range(10):
        yield Recipient(f"out{n}@two.test", (f"o{n}@elsewhere.test",))
        yield Recipient(f"any.body{n}@catch.test", ("p0@one.test",))


KNOWN = tuple(_known())


def unknown(rng: random.Random) -> str:
    """An address that nobody has; of an account that sleeps, now and then."""
    if rng.random() < 0.05:
        return "asleep@one.test"
    local = f"{rng.choice(('nobody', 'p', 'q', 'team'))}x{rng.randrange(1 << 32)}"
    return f"{local}{rng.choice(('', '+x'))}@{rng.choice(('one.test', 'two.test', 'alias.test'))}"


class Movers:
    """`arrived` can be written to, `left` can not any more; both grow while `run` is not cancelled."""

    def __init__(self, dsn: str, daemon: Daemon) -> None:
        self.arrived: list[Recipient] = []
        self.left: list[str] = []
        self._dsn = dsn
        self._daemon = daemon

    async def run(self) -> None:
        """Make one and remove another, again and again; nothing happens while the database is away."""
        for number in count():
            target = f"p{number % ACCOUNTS}@one.test"
            await self._move(f"comes{number}@two.test", f"goes{number}@two.test", target)
            await asyncio.sleep(MOVE_EVERY)

    async def _move(self, comes: str, goes: str, target: str) -> None:
        try:
            await self._write(comes, goes, target)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return  # what became of these two is not known: nobody writes to them
        await self._said(comes, lambda answer: isinstance(answer, Found))
        self.arrived.append(Recipient(comes, (target,)))
        await self._said(goes, lambda answer: answer == NOT_FOUND)
        self.left.append(goes)

    async def _write(self, comes: str, goes: str, target: str) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=2, command_timeout=2)
        try:
            await connection.execute(
                f"INSERT INTO mailmaps.forwards VALUES ('{comes}', '{target}'), ('{goes}', '{target}')"
            )
            await self._said(goes, lambda answer: isinstance(answer, Found))
            await connection.execute(f"DELETE FROM mailmaps.forwards WHERE address = '{goes}'")
        finally:
            connection.terminate()

    async def _said(self, address: str, wanted: Callable[[Answer], bool]) -> None:
        while True:
            try:
                if wanted(await ask(self._daemon, Place("virtual_alias_maps", address))):
                    return
            except (OSError, EOFError):
                pass
            await asyncio.sleep(ASK_EVERY)
