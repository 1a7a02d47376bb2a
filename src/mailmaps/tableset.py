"""All tables of one reading of the settings, with the connections behind them.

Contract: made whole or not at all (`SettingsError` names every file and line); `start` connects, `prepare`
tries every query, `close` ends everything. A reload makes another set and puts it in this one's place.
"""

from __future__ import annotations

import asyncio
import logging

from mailmaps import cf_files
from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.cf_source import CfDatabase, CfSource
from mailmaps.database.connect import connect
from mailmaps.database.pool import Pool
from mailmaps.database.views import ViewSource
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.cache import Cache
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.held import HeldSource
from mailmaps.maps.lookup import Table
from mailmaps.maps.pgsql_cf import Place
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import Source, view_of
from mailmaps.maps.tables import KINDS, TableKind

log = logging.getLogger(__name__)

# What the how-to's domains.transport calls our own delivery; transport(5) takes either spelling.
DELIVERY_OF_OURS = ("virtual:", "virtual")

# The held tables are read as often as the settings say, but never so often that reading them takes more
# than one part in this of the time: with very many domains a change is seen later instead.
READING_SHARE = 50


class TableSet:
    """The tables by name, and their databases: the settings' own and those of the `.cf` files."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` when a `.cf` file cannot be used."""
        self.settings = self._settings = settings
        self._pool = Pool(
            lambda: connect(settings.database, for_lookups=True),
            settings.database.connections,
        )
        self._uses_pool = False
        self._cf_databases: dict[Place, CfDatabase] = {}
        self._cf_sources: dict[str, CfSource] = {}
        self._held: list[tuple[HeldSource, Table]] = []
        self._unread: set[str] = set()  # held tables whose last reading failed
        self._refresher: asyncio.Task[None] | None = None
        self._read_cf_files()
        self.tables = {name: self._table(name) for name in settings.tables}

    async def start(self) -> list[str]:
        """Connect, plan every query and read the held tables; returns what could not be done, and why.

        The set can be used all the same: what fails is tried again, by itself and for ever.
        """
        pools = [database.pool for database in self._cf_databases.values()]
        pools += [self._pool] if self._uses_pool else []
        for pool in pools:
            pool.start()
        await asyncio.gather(*(pool.tried() for pool in pools))
        problems = [await self._problem(source) for source in self._cf_sources.values()]
        if self._uses_pool and self._pool.away:
            problems.append(f"database.dsn: {self._pool.away}")
        await self._refresh_held()
        problems += [f"table={name}: cannot be read whole" for name in sorted(self._unread)]
        self._refresher = asyncio.ensure_future(self._keep_refreshing())
        return [problem for problem in problems if problem]

    async def idle(self) -> None:
        """Wait until no lookup is under way."""
        for table in self.tables.values():
            await table.idle()

    async def close(self) -> None:
        """End every connection."""
        if self._refresher is not None:
            self._refresher.cancel()
        await self._pool.close()
        await asyncio.gather(*(database.close() for database in self._cf_databases.values()))

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`: the pools by what they lead to, and the `.cf` files that were read."""
        found: dict[str, object] = {"files": list(self._cf_sources)}
        found |= {"database": self._pool.state} if self._uses_pool else {}
        for number, database in enumerate(self._cf_databases.values(), start=1):
            found[f"database {number}: {database.name}"] = database.pool.state
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
            self._cf_sources[name] = CfSource(name, table, self._cf_databases[table.place])
        if problems:
            raise SettingsError(problems)

    def _table(self, name: str) -> Table:
        cache, database = self._settings.cache, self._settings.database
        kind = KINDS[self._settings.tables[name].parameter]
        sources = [self._source(kind, name, source) for source in self._settings.tables[name].sources]
        table = Table(
            name,
            kind,
            sources,
            rules(self._settings),
            Cache(
                ttl=cache.ttl,
                negative_ttl=cache.negative_ttl,
                size=cache.size,
                negative_size=cache.negative_size,
            ),
            deadline=database.lookup_deadline,
            at_once=max(1, database.connections - 1),
            volatile_ttl=cache.volatile_ttl,
        )
        self._held += [(source, table) for source in sources if isinstance(source, HeldSource)]
        return table

    def _source(self, kind: TableKind, table: str, name: str) -> Source:
        if cf_files.is_cf(name):
            return self._cf_sources[name]
        self._uses_pool = True
        builtin = name == "builtin"
        replace = {}
        if builtin and table == "transport_maps" and self._settings.delivery != "virtual":
            replace = dict.fromkeys(DELIVERY_OF_OURS, self._settings.delivery)
        view = view_of(table, name)
        source = ViewSource(self._pool, view, name=name, bare_keys=not builtin, replace=replace)
        if not kind.held:
            return source
        return HeldSource(
            source,
            source.list_rows,
            away=lambda: self._pool.is_away,
            deadline=self._settings.database.lookup_deadline,
            max_stale=self._settings.cache.max_stale,
            max_stale_not_found=self._settings.cache.max_stale_not_found,
        )

    async def _keep_refreshing(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await asyncio.sleep(max(self._settings.cache.refresh, READING_SHARE * took))
            began = loop.time()
            try:
                await self._refresh_held()
            except Exception:  # the held tables must be refreshed for as long as we live
                log.exception("refreshing the held tables failed in a way we do not know")
            took = loop.time() - began

    async def _refresh_held(self) -> None:
        """Read the held tables anew; a failure is logged, once, and the old rows stay."""
        for source, table in self._held:
            try:
                async with asyncio.timeout(self._settings.database.lookup_deadline):
                    if await source.refresh():
                        table.forget()
            except (CannotSay, TimeoutError) as error:
                self._note_unread(table.name, str(error) or "it takes longer than lookup_deadline")
            else:
                self._note_unread(table.name, "")

    def _note_unread(self, name: str, why: str) -> None:
        if why and name not in self._unread:
            self._unread.add(name)
            log.error("table=%s: cannot be read whole: %s", name, why)
        elif not why and name in self._unread:
            self._unread.discard(name)
            log.warning("table=%s: has been read whole again", name)


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
        local_addresses=frozenset(
            literal
            for address in postfix.inet_interfaces + postfix.proxy_interfaces
            for literal in (f"[{address}]", f"[ipv6:{address}]")
        ),
    )
