"""The daemon's own lookups inside `mailmaps check`, and where mail for an address goes by them.

The same tables, searches and sources as the daemon has, without mirrors and without memory of before: what is
in the database now counts. A mail is followed as Postfix does it: virtual_alias_maps again and again
(cleanup_map1n.c:114-180), then the class of the domain (resolve.c:489-558), then virtual_mailbox_maps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from mailmaps import cf_files
from mailmaps.database.batch import AT_ONCE
from mailmaps.database.cf_source import CfDatabase, CfSource
from mailmaps.database.connect import connect
from mailmaps.database.pool import Pool
from mailmaps.database.views import ViewSource
from mailmaps.maps.address import fold, quote
from mailmaps.maps.address_list import addresses
from mailmaps.maps.answer import Answer, Found, NotFound
from mailmaps.maps.cache import Cache
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.lookup import Table, Times
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import Source, plain_view_of
from mailmaps.maps.tables import KINDS

if TYPE_CHECKING:
    from mailmaps.config import Settings
    from mailmaps.maps.pgsql_cf import Place

# Seconds. A check is no client that hangs up.
DEADLINE = 30.0

# Seconds for which an answer of the check's own is remembered: domains are asked about by the thousand.
REMEMBERED = 60.0

# Addresses that one mail may become before this gives up; Postfix: virtual_alias_expansion_limit = 1000.
MOST_STEPS = 1000

ASKED = (
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
    "relay_recipient_maps",
)


class CannotTell(Exception):
    """A table cannot say now; the text says which and why."""


class End(Enum):
    """What becomes of a mail for an address; of several targets the best."""

    BOX = "a mailbox, or an address elsewhere"
    NOBODY = "nobody"
    CIRCLE = "a circle of aliases"


@dataclass(frozen=True, slots=True)
class Way:
    """Where mail goes, and by what: the last address of the chain that decided it."""

    end: End
    last: str


class Lookups:
    """The tables of the settings by parameter, those of them that there are."""

    def __init__(self, tables: dict[str, Table], rules: Rules) -> None:
        self._tables = tables
        self._rules = rules

    def has(self, parameter: str) -> bool:
        """Whether the settings have such a table."""
        return parameter in self._tables

    async def found(self, parameter: str, key: str) -> str | None:
        """The value, or None. Raises `CannotTell`."""
        table = self._tables.get(parameter)
        if table is None:
            return None
        answer: Answer = await table.answer(key.encode(errors="surrogateescape"))
        if isinstance(answer, Found):
            return answer.value
        if isinstance(answer, NotFound):
            return None
        raise CannotTell(f"{table.name}: {answer.reason}")

    async def way(self, address: str) -> Way:
        """Where mail for an address (external form) goes. Raises `CannotTell`."""
        waiting, seen, expanded = [address], {fold(address)}, set[str]()
        last, circle = address, False
        while waiting and len(seen) < MOST_STEPS:
            last = waiting.pop()
            value = await self.found("virtual_alias_maps", last)
            targets = [quote(one) for one in addresses(value)] if value else [last]
            folded = {fold(one) for one in targets}
            if fold(last) in folded:
                if await self._arrives(last):
                    return Way(End.BOX, last)
                folded.discard(fold(last))
            expanded.add(fold(last))
            circle = circle or not folded.isdisjoint(expanded)
            waiting += [one for one in targets if fold(one) not in seen]
            seen |= folded
        return Way(End.CIRCLE if circle or waiting else End.NOBODY, last)

    async def _arrives(self, address: str) -> bool:
        domain = address.rpartition("@")[2]
        if "@" not in address or self._rules.resolves_here(domain):
            return True  # this machine's own users: not ours to know
        if await self.found("virtual_mailbox_domains", domain) is not None:
            return await self.found("virtual_mailbox_maps", address) is not None
        return await self.found("virtual_alias_domains", domain) is None


@asynccontextmanager
async def lookups(settings: Settings, rules: Rules) -> AsyncIterator[Lookups]:
    """The tables, connected; a source that cannot be used is left out, others name it."""
    async with AsyncExitStack() as stack:
        pool = Pool(partial(connect, settings.database, for_lookups=True), settings.database.connections)
        stack.push_async_callback(pool.close)
        databases: dict[Place, CfDatabase] = {}
        if any(
            one.sources != [s for s in one.sources if cf_files.is_cf(s)] for one in settings.tables.values()
        ):
            pool.start()
        tables: dict[str, Table] = {}
        for name, table in settings.tables.items():
            if table.parameter not in ASKED or table.parameter in tables:
                continue
            sources = [
                source
                for one in table.sources
                if (source := _source(settings, name, one, pool, databases)) is not None
            ]
            tables[table.parameter] = Table(
                name, KINDS[table.parameter], sources, rules, _cache(), Times(DEADLINE, REMEMBERED, 0.0)
            )
        for database in databases.values():
            database.start()
            stack.push_async_callback(database.close)
        yield Lookups(tables, rules)
        await asyncio.gather(*(table.idle() for table in tables.values()))


def _cache() -> Cache:
    return Cache(ttl=REMEMBERED, negative_ttl=REMEMBERED, size=100_000, negative_size=100_000)


def _source(
    settings: Settings, table: str, name: str, pool: Pool, databases: dict[Place, CfDatabase]
) -> Source | None:
    if cf_files.is_cf(name):
        try:
            read = cf_files.read(name, settings.postfix)
        except CfError:
            return None
        database = databases.setdefault(read.place, CfDatabase(read.place, settings.database))
        return CfSource(name, read, database, at_once=settings.database.connections)
    return ViewSource(
        pool,
        plain_view_of(table, name),
        name=name,
        bare_keys=name != "builtin",
        replace={},
        at_once=AT_ONCE,
        deadline=DEADLINE,
    )
