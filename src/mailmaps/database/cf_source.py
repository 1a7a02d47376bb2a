"""A pgsql_table(5) file as a source: what Postfix asked with it, asked of the same database.

Contract: a candidate is found, not found or `CannotSay` exactly where Postfix has a value, none, or
DICT_ERR_RETRY (src/global/dict_pgsql.c), with one exception for the better: an SQL error concerns the key
that caused it, while Postfix then refuses every key for `retry_interval`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg

from mailmaps.database import places
from mailmaps.database.connect import CF_SETTINGS, connect_to_first, reason
from mailmaps.database.pool import Pool
from mailmaps.database.statements import Plan, TypeName, UnsafeQuery, plan
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.pgsql_cf import CfTable, ExpansionLimit, Place
from mailmaps.maps.sources import ABSENT, SILENT, Recalled, Rows

if TYPE_CHECKING:
    from mailmaps.config.settings import Database
    from mailmaps.database.connect import Connection

from mailmaps.logs import events

log = events(__name__)

# Seconds between attempts to find out how a query is run: one that PostgreSQL refuses is asked often.
PLAN_PAUSE = 1.0

# Seconds that asyncpg keeps a statement. A column that became citext makes no error, and is seen only when
# the statement is prepared anew.
STATEMENT_LIFETIME = 60

# What PostgreSQL says of a statement prepared before a type or function changed under it.
_STALE = frozenset({"0A000", "22000", "42725", "42804", "42846", "42883", "42P18"})

# Connections for queries that cannot be prepared; few are like that.
LITERAL_CONNECTIONS = 2


class CfDatabase:
    """The connections that all files with an equal `Place` share; `start` before use, `close` at the end."""

    def __init__(self, place: Place, settings: Database) -> None:
        self.place = place
        self._settings = settings
        self.pool = Pool(self._connect, settings.connections, self.name)
        # asyncpg keeps every statement it has run; those that hold their values would push out the others.
        self._literal_pool: Pool | None = None
        self._taught: WeakKeyDictionary[Connection, set[TypeName]] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """Where it is, for people: without what a URI may hold besides."""
        hosts = ", ".join(sorted(host.name for host in places.hosts(self.place)))
        return f"{self.place.dbname} at {hosts}" if self.place.dbname else hosts

    def start(self) -> None:
        self.pool.start()

    async def start_literals(self) -> None:
        """Connect for the statements that hold their values; the first attempt has then been made."""
        await self._literals().tried()

    async def close(self) -> None:
        await self.pool.close()
        if self._literal_pool is not None:
            await self._literal_pool.close()

    async def fetch(self, how: Plan, values: Sequence[str]) -> list[asyncpg.Record]:
        """Run a planned statement. Raises `CannotSay`, `asyncpg.PostgresError`."""

        async def work(connection: Connection) -> list[asyncpg.Record]:
            await self._teach(connection, how.types)
            return await connection.fetch(how.text(values), *(values if how.bound is not None else ()))

        return await (self.pool if how.bound is not None else self._literals()).run(work)

    async def _connect(self) -> Connection:
        return await self._connect_with(max_cached_statement_lifetime=STATEMENT_LIFETIME)

    def _literals(self) -> Pool:
        if self._literal_pool is None:
            connect = partial(self._connect_with, statement_cache_size=0)
            self._literal_pool = Pool(connect, LITERAL_CONNECTIONS, self.name)
            self._literal_pool.start()
        return self._literal_pool

    async def _connect_with(self, **arguments: int) -> Connection:
        if self._settings.pgbouncer:
            arguments = {}
        hosts = [host._replace(arguments=host.arguments | arguments) for host in places.hosts(self.place)]
        return await connect_to_first(hosts, self._settings, CF_SETTINGS)

    async def _teach(self, connection: Connection, types: frozenset[TypeName]) -> None:
        """Have values of these types exchanged as text, as libpq does."""
        known = self._taught.setdefault(connection, set())
        for schema, name in types - known:
            await connection.set_type_codec(name, schema=schema, encoder=str, decoder=str, format="text")
            known.add((schema, name))


class CfSource:
    """One file as a `mailmaps.maps.sources.Source`, asked one candidate at a time."""

    bare_keys = True
    one_by_one = True
    exactly = True
    steady = False
    age = None

    def __init__(self, name: str, table: CfTable, database: CfDatabase, *, at_once: int) -> None:
        """At most `at_once` lookups ask at a time, so that a slow table leaves the others a connection."""
        self.name = name
        self._slots = asyncio.Semaphore(at_once)
        self.table = table
        self._database = database
        self._plan: Plan | None = None
        self._planned_at = self._looked_at = self._renewed_at = -PLAN_PAUSE
        self._refused = ""
        self._logged: set[str] = set()

    @property
    def volatile(self) -> bool:
        """Whether the answers change with time alone; known once the query has been planned."""
        return self._plan is not None and self._plan.volatile

    def known(self, key: str) -> Recalled:
        """What the file's rules say without the database: that a key is not asked for."""
        try:
            return ABSENT if self.table.arguments(key) is None else SILENT
        except UnicodeError:
            return SILENT

    def stale(self, key: str) -> Recalled:
        """The rules do not age."""
        return self.known(key)

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        """Ask for each candidate in turn. Raises `CannotSay`."""
        async with self._slots:
            rows = {key: await self._values(key) for key in candidates}
        return {key: values for key, values in rows.items() if values}

    async def prepare(self) -> None:
        """Find out how the query is run. Raises `CannotSay`; the text names file and line."""
        self._planned_at = monotonic()
        try:
            self._plan = await self._database.pool.run(self._plan_on)
            if self._plan.bound is None:
                await self._database.start_literals()
        except asyncpg.PostgresError as error:
            line = f":{self.table.line}" if self.table.line else ""
            self._refused = f"{self.table.name}{line}: query: {reason(error)}"
            raise CannotSay(self._refused) from error
        except UnsafeQuery as error:
            self._refused = f"{self.table.name}:{self.table.line}: query: {error}"
            raise CannotSay(self._refused) from None

    async def _plan_on(self, connection: Connection) -> Plan:
        if connection.get_settings().server_encoding == "SQL_ASCII":
            self.table = self.table.unconverted or self.table
        return await plan(connection, self.table.query)

    async def _values(self, key: str) -> tuple[str, ...]:
        try:
            if self.table.arguments(key) is None:
                return ()
            await self._planned()  # which may find that the server converts no encoding
            arguments = self.table.arguments(key) or []
            return self.table.values(key, [field for row in await self._rows(arguments) for field in row])
        except UnicodeError as error:
            raise self._no_answer("encoding", f"no such character in {self.table.encoding}") from error
        except ExpansionLimit as error:
            raise self._no_answer("expansion_limit", str(error)) from error

    async def _rows(self, arguments: list[str]) -> Sequence[Any]:
        """The rows, every field as text. A statement that the schema has left behind is planned anew once."""
        why = "the columns' types keep changing"
        for _ in range(2):
            try:
                rows = await self._database.fetch(await self._planned(), arguments)
            except asyncpg.PostgresError as error:
                why = f"{self.table.name}: {reason(error)}"
                # 22000 is asyncpg's own word for a value of a type it has not been told about.
                if error.sqlstate.startswith("22") and error.sqlstate != "22000":
                    if not await self._has_changed():
                        raise self._no_answer(error.sqlstate, f"database: {reason(error)}") from error
                elif error.sqlstate not in _STALE:
                    break
            else:
                if all(field is None or isinstance(field, str) for row in rows for field in row):
                    return rows
            self._plan = None
            if monotonic() - self._renewed_at < PLAN_PAUSE:
                break  # the connections are shared, and replacing them has not helped
            self._renewed_at = monotonic()
            self._database.pool.renew()
        raise CannotSay(why)

    async def _has_changed(self) -> bool:
        """Whether the column that could not take a value has another type by now; looked at now and then."""
        before = self._plan
        if before is None or monotonic() - self._looked_at < PLAN_PAUSE:
            return False
        self._looked_at = monotonic()
        await self.prepare()
        return self._plan != before

    async def _planned(self) -> Plan:
        if self._plan is None:
            if self._refused and monotonic() - self._planned_at < PLAN_PAUSE:
                raise CannotSay(self._refused)
            await self.prepare()
        assert self._plan is not None  # prepare() raises otherwise
        return self._plan

    def _no_answer(self, kind: str, why: str) -> CannotSay:
        """For a key that the query, and so Postfix, has no answer for; each kind is logged once."""
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("cannot say for some keys", source=self.name, reason=why)
        return CannotSay(why, about_key=True)
