"""All tables of one reading of the settings, with the connections behind them.

Contract: made whole or not at all (`SettingsError` names every file and line); `start` connects, `prepare`
tries every query, `close` ends everything. A reload makes another set and puts it in this one's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from mailmaps import cf_files
from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.batch import AT_ONCE
from mailmaps.database.cf_source import CfDatabase, CfSource
from mailmaps.database.connect import connect
from mailmaps.database.pool import Pool
from mailmaps.database.views import ViewSource
from mailmaps.logins import Logins
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.cache import Cache
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.lookup import Located, Table, Times
from mailmaps.maps.mirrored import Limits, MirroredSource
from mailmaps.maps.pgsql_cf import Place
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import Source, view_of
from mailmaps.maps.tables import KINDS, TableKind
from mailmaps.mirrors.keeper import Mirrors
from mailmaps.mirrors.use import Use
from mailmaps.policy.sender_table import SenderTable
from mailmaps.sending import SENDERS, Sending

# What the how-to's domains.transport calls our own delivery; transport(5) takes either spelling.
DELIVERY_OF_OURS = ("virtual:", "virtual")

# Keys that nobody has, one for each kind of table: RFC 2606 reserves .invalid.
PROBES = (b"mailmaps-check@mailmaps-check.invalid", b"mailmaps-check.invalid")


class TableSet:
    """The tables by name, and their databases: the settings' own and those of the `.cf` files."""

    def __init__(
        self,
        settings: Settings,
        mirrors: Mirrors | None = None,
        logins: Logins | None = None,
        sending: Sending | None = None,
        counts: Mapping[str, LookupCounts] | None = None,
    ) -> None:
        """`mirrors` are those of the set before, shared if they are of the same database; its `counts` go on.

        `logins` and `sending` (made anew without one) are of the same settings; they start and end with the
        set.
        Raises `SettingsError` when a `.cf` file cannot be used.
        """
        self.settings = self._settings = settings
        self.logins = logins
        self.sending = Sending(settings, rules(settings)) if sending is None else sending
        self._pool = Pool(
            lambda: connect(settings.database, for_lookups=True),
            settings.database.connections,
        )
        self._uses_pool = False
        self._cf_databases: dict[Place, CfDatabase] = {}
        self._cf_sources: dict[str, CfSource] = {}
        self._read_cf_files()
        self.mirrors = mirrors if mirrors is not None and mirrors.fits(settings) else Mirrors(settings)
        self._mirrored = Use(self.mirrors)
        if not settings.database.listen_dsn:  # it is the same server
            self._mirrored.when_away(self._pool.suspect)
        self._counts = {} if counts is None else counts
        self.tables = {name: self._table(name) for name in settings.tables}
        self.sending.use(self.tables)

    async def start(self, patience: float | None = None) -> list[str]:
        """Connect, plan every query and read what the resolver asks; returns what could not be done, and why.

        The set can be used all the same: what fails is tried again, by itself and for ever. A database that
        does not even refuse is waited for no longer than `patience` seconds, if the disk has what matters.
        """
        if self.logins is not None:
            self.logins.start()
        self.sending.start()
        pools = [database.pool for database in self._cf_databases.values()]
        pools += [self._pool] if self._uses_pool else []
        for pool in pools:
            pool.start()
        self._mirrored.start(self._settings.cache.refresh)
        attempts = [pool.tried() for pool in pools]
        mirrored = asyncio.ensure_future(self._mirrored.tried())
        logins = asyncio.ensure_future(self._logins_tried())
        sending = asyncio.ensure_future(self.sending.tried())
        try:
            async with asyncio.timeout(patience if self._mirrored.can_wait else None):
                await asyncio.gather(*attempts, mirrored, logins, sending)
        except TimeoutError:
            return ["the database does not answer; the tables are answered from disk"]
        problems = await asyncio.gather(*(self._problem(source) for source in self._cf_sources.values()))
        if self._uses_pool and self._pool.away:
            problems.append(f"database.dsn: {self._pool.away}")
        return [
            problem
            for problem in problems + mirrored.result() + logins.result() + sending.result()
            if problem
        ]

    async def _logins_tried(self) -> list[str]:
        return [] if self.logins is None else await self.logins.tried()

    async def unready(self) -> list[str]:
        """Why a lookup or a login would be told to try later now; empty when none would be."""
        keys = [(table, key) for table in self.tables.values() for key in PROBES]
        located = await asyncio.gather(*(_located(table, key) for table, key in keys))
        found = {
            f"{table.name}: {one.why}": None
            for (table, _), one in zip(keys, located, strict=True)
            if one.row is None
        }
        if self.logins is not None and self.logins.away:
            found[f"logins: {self.logins.away}"] = None
        return list(found)

    def lapse(self) -> None:
        """Trust what is held no more where its last proof is too old."""
        self.mirrors.lapse()

    async def idle(self) -> None:
        """Wait until no lookup and no login is under way."""
        for table in self.tables.values():
            await table.idle()
        if self.logins is not None:
            await self.logins.idle()
        await self.sending.idle()

    async def close(self) -> None:
        """End every connection."""
        if self.logins is not None:
            await self.logins.close()
        await self.sending.close()
        await self._mirrored.leave()
        await self._pool.close()
        await asyncio.gather(*(database.close() for database in self._cf_databases.values()))

    @property
    def away(self) -> dict[str, str | None]:
        """Each database by the setting that names it, and why it cannot be reached, while that is so."""
        found = {"database.dsn": self._pool.away} if self._uses_pool else {}
        found |= {name: database.pool.away for name, database in self._named()}
        found |= {} if self.logins is None else {self.logins.dsn: self.logins.away}
        return found | {"database.write_dsn": self.sending.away}

    @property
    def state(self) -> dict[str, Any]:
        """For `mailmaps status` and the metrics (`mailmaps.metrics.families`)."""
        found: dict[str, Any] = {
            "files": list(self._cf_sources),
            "tables": {name: _state(table) for name, table in self.tables.items()},
            "databases": self._databases(),
            "sending": self.sending.state,
            **self.mirrors.state,
        }
        if self.logins is not None:
            found["logins"] = self.logins.state
            found["changes"] = {**found["changes"], "logins": self.logins.changes}
        return found

    def _named(self) -> Iterator[tuple[str, CfDatabase]]:
        """The databases of `.cf` files by names of their own: two may differ in the user alone."""
        seen: set[str] = set()
        for database in self._cf_databases.values():
            name = database.name if database.name not in seen else f"{database.name} ({len(seen) + 1})"
            seen.add(name)
            yield name, database

    def _databases(self) -> dict[str, object]:
        """The connections, by the setting that names the database; those of `.cf` files by their names."""
        found: dict[str, object] = {"database.dsn": self._pool.state} if self._uses_pool else {}
        found |= {name: database.pool.state for name, database in self._named()}
        if self.logins is not None:  # a pool of its own, also where there is no auth_dsn
            found["database.auth_dsn"] = self.logins.pool
        if (pool := self.sending.pool) is not None:
            found["database.write_dsn"] = pool
        return found

    async def _problem(self, source: CfSource) -> str:
        try:
            async with asyncio.timeout(self._settings.database.lookup_deadline):
                await source.prepare()
        except CannotSay as error:
            text = str(error)
            return text if text.startswith(source.table.name) else f"{source.table.name}: {text}"
        except TimeoutError:
            return f"{source.table.name}: the query cannot be planned within lookup_deadline"
        return ""

    def _read_cf_files(self) -> None:
        problems: list[str] = []
        names = cf_files.sources(self._settings)
        for name in names:
            try:
                table = cf_files.read(name, self._settings.postfix, names)
            except CfError as error:
                problems += error.problems
                continue
            if table.place not in self._cf_databases:
                self._cf_databases[table.place] = CfDatabase(table.place, self._settings.database)
            at_once = max(1, self._settings.database.connections - 1)
            self._cf_sources[name] = CfSource(name, table, self._cf_databases[table.place], at_once=at_once)
        if problems:
            raise SettingsError(problems)

    def _table(self, name: str) -> Table:
        cache, settings = self._settings.cache, self._settings.tables[name]
        kind = KINDS[settings.parameter]
        sources = [self._source(kind, name, source) for source in settings.sources]
        search_rules = rules(self._settings)
        memory = Cache(
            ttl=cache.ttl,
            negative_ttl=cache.negative_ttl,
            size=cache.size,
            negative_size=cache.negative_size,
        )
        times = Times(
            deadline=self._settings.database.lookup_deadline,
            volatile_ttl=cache.volatile_ttl,
            max_stale=self._limits(kind).max_stale,
        )
        counts = self._counts.get(name)
        if kind.name == SENDERS:
            owners = self.sending.ownership
            table: Table = SenderTable(name, kind, sources, search_rules, memory, times, owners, counts)
        else:
            table = Table(name, kind, sources, search_rules, memory, times, counts)
        for source in sources:
            if isinstance(source, MirroredSource):
                self._mirrored.tell(source.rows, table.forget)
        for relation in dict.fromkeys(settings.depends_on):
            self._mirrored.depend(relation, table.forget)
        return table

    @property
    def counts(self) -> dict[str, LookupCounts]:
        """How the lookups went so far."""
        return {name: table.counts for name, table in self.tables.items()}

    def _limits(self, kind: TableKind) -> Limits:
        cache = self._settings.cache
        if not kind.grants:
            return Limits(cache.max_stale, cache.max_stale_not_found)
        return Limits(
            min(cache.max_stale, cache.max_stale_senders),
            min(cache.max_stale_not_found, cache.max_stale_senders),
        )

    def _source(self, kind: TableKind, table: str, name: str) -> Source:
        if cf_files.is_cf(name):
            return self._cf_sources[name]
        self._uses_pool = True
        builtin = name == "builtin"
        replace = {}
        if builtin and table == "transport_maps" and self._settings.delivery != "virtual":
            replace = dict.fromkeys(DELIVERY_OF_OURS, self._settings.delivery)
        database = self._settings.database
        view = view_of(table, name)
        source = ViewSource(
            self._pool,
            view,
            name=name,
            bare_keys=not builtin,
            replace=replace,
            at_once=1 if kind.held else max(1, min(AT_ONCE, database.connections - 1)),
            deadline=database.lookup_deadline,
        )
        if not self._settings.mirror.enabled:
            return source
        return MirroredSource(
            source,
            self._mirrored.mirror(view, replace, eager=kind.held),
            self._limits(kind),
            at_once=kind.held,
            away=lambda: self._pool.is_away,
        )


def _state(table: Table) -> dict[str, object]:
    views = [source.rows.view for source in table.sources if isinstance(source, MirroredSource)]
    return {**table.counts.state, "views": views}


async def _located(table: Table, key: bytes) -> Located:
    """Asked as Postfix asks, but not counted as a lookup of his."""
    located = table.begin_row(key)
    return await located if isinstance(located, asyncio.Future) else located


def rules(settings: Settings) -> Rules:
    """The search rules that the settings' [postfix] section stands for."""
    postfix = settings.postfix
    return Rules(
        recipient_delimiter=postfix.recipient_delimiter,
        owner_request_special=postfix.owner_request_special,
        double_bounce_sender=postfix.double_bounce_sender,
        propagate_unmatched_extensions=frozenset(postfix.propagate_unmatched_extensions),
        myorigin=postfix.myorigin,
        mydestination=frozenset(name.casefold() for name in postfix.mydestination),
        parent_domain_matches_subdomains=frozenset(postfix.parent_domain_matches_subdomains),
        smtputf8_enable=postfix.smtputf8_enable,
        myhostname=postfix.myhostname,
        mydomain=postfix.mydomain,
        append_at_myorigin=postfix.append_at_myorigin,
        append_dot_mydomain=postfix.append_dot_mydomain,
        swap_bangpath=postfix.swap_bangpath,
        allow_percent_hack=postfix.allow_percent_hack,
        resolve_dequoted_address=postfix.resolve_dequoted_address,
        local_addresses=frozenset(
            literal
            for address in postfix.inet_interfaces + postfix.proxy_interfaces
            for literal in (f"[{address}]", f"[ipv6:{address}]")
        ),
    )
