"""One transaction of a command that runs a mail domain, and its way back.

* Commands queue up: each holds an advisory lock until its transaction ends, so that two that choose a number
or
  a mailbox cannot choose the same. (Programs with SQL of their own are kept apart by the tables'
  constraints.)
* Rows are written by `insert`, `delete` and `update` alone, which note how to take them back. That is for
what
  can only be done once other connections see the rows, and may fail: the files that Postfix reads.
* A COMMIT whose answer is lost is asked for, by its number (`pg_xact_status`, PostgreSQL 13), before anything
  is said about it. `CommitUnknown` where nobody can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.connect import (
    BREAKS,
    ConnectError,
    Refused,
    admin_database,
    connect_to_administer,
    is_going,
    reason,
)

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

Record: TypeAlias = "asyncpg.Record"

# "mailadmi" as a 64-bit number.
LOCK = int.from_bytes(b"mailadmi", "big")

# The file schema/0013_administration.sql.
NEEDED_VERSION = 13

# Seconds for COMMIT: the disk, and synchronous standbys. Then it is asked for on another connection...
COMMIT_LIMIT = 60.0
# ...until this long after.
ASKING_LIMIT = 20.0


class CannotWrite(Exception):
    """Nothing was written; the text says why and holds no password. `temporary`: try again later."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


class CommitUnknown(Exception):
    """Whether it was written nobody can say now; the text has the number of the transaction."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table before or after a change; its columns are those that can be written."""

    table: str
    values: Mapping[str, Any]


class Work:
    """A connection, a transaction at a time. All of it raises `CannotWrite`: nothing was written."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self.connection = connection
        self._back: list[tuple[Row | None, Row | None]] = []  # before, after; None: there was no such row
        self._transaction: asyncpg.transaction.Transaction | None = None
        self._columns: dict[str, list[str]] = {}

    async def begin(self) -> None:
        """Start the transaction once no other command is in one."""
        self._back = []
        self._transaction = self.connection.transaction()
        await self._named(self._transaction.start())
        await self._named(self.connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK))

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask."""
        found: list[asyncpg.Record] = await self._named(self.connection.fetch(query, *arguments))
        return found

    async def value(self, query: str, *arguments: object) -> Any:
        """Ask for one value, None if there is no row."""
        return await self._named(self.connection.fetchval(query, *arguments))

    async def insert(self, table: str, **values: object) -> None:
        """Write a row."""
        names = ", ".join(values)
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        query = f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING {await self._all(table)}"  # noqa: S608
        for record in await self.fetch(query, *values.values()):
            self._back.append((None, Row(table, dict(record))))

    async def delete(self, table: str, where: str, *arguments: object) -> int:
        """Delete rows; how many that were."""
        query = f"DELETE FROM {table} WHERE {where} RETURNING {await self._all(table)}"  # noqa: S608
        records = await self.fetch(query, *arguments)
        self._back += [(Row(table, dict(record)), None) for record in records]
        return len(records)

    async def update(self, table: str, values: Mapping[str, object], where: str, *arguments: object) -> int:
        """Set columns of rows; how many that were. The columns of `where` must not be among them."""
        columns = await self._all(table)
        before = await self.fetch(f"SELECT {columns} FROM {table} WHERE {where} FOR UPDATE", *arguments)  # noqa: S608
        first = len(arguments) + 1
        places = ", ".join(f"{name} = ${first + number}" for number, name in enumerate(values))
        query = f"UPDATE {table} SET {places} WHERE {where}"  # noqa: S608  # names are ours
        await self.fetch(query, *arguments, *values.values())
        for record in before:
            row = dict(record)
            self._back.append((Row(table, row), Row(table, row | dict(values))))
        return len(before)

    async def commit(self) -> None:
        """Make it last. Raises `CannotWrite` (it is not written) and `CommitUnknown`."""
        number = await self.value("SELECT pg_current_xact_id_if_assigned()::text")
        if self._transaction is None:
            raise RuntimeError("no transaction was begun")
        try:
            async with asyncio.timeout(COMMIT_LIMIT):
                await self._transaction.commit()
        except Refused as error:
            if not is_going(self.connection, error):
                raise CannotWrite(f"database: {reason(error)}") from error
            await self._ask_for(number)
        except (TimeoutError, *BREAKS):
            await self._ask_for(number)
        self._transaction = None

    async def rollback(self) -> None:
        """Take back what was not committed. Never raises: the end of the connection does it as well."""
        transaction, self._transaction = self._transaction, None
        if transaction is None or self.connection.is_closed():
            return
        try:
            async with asyncio.timeout(self._settings.database.connect_timeout):
                await transaction.rollback()
        except (Refused, TimeoutError, *BREAKS):
            self.connection.terminate()

    async def take_back(self) -> None:
        """Undo the transaction that was committed last, in one of its own.

        Raises `CannotWrite`: it stands as it is; `CommitUnknown`.
        """
        back = self._back
        if self.connection.is_closed():
            self.connection = await _connect(self._settings)
        await self.begin()
        try:
            await self.fetch("SELECT set_config('mailmaps.taking_back', 'on', true)")
            for before, after in reversed(back):
                await self._restore(before, after)
        except CannotWrite:
            await self.rollback()
            raise
        await self.commit()

    async def _restore(self, before: Row | None, after: Row | None) -> None:
        if after is not None:
            columns = list(after.values)
            same = " AND ".join(f"{name} IS NOT DISTINCT FROM ${n}" for n, name in enumerate(columns, 1))
            query = f"DELETE FROM {after.table} WHERE {same} RETURNING 1"  # noqa: S608
            if before is not None:
                places = ", ".join(f"{name} = ${len(columns) + n}" for n, name in enumerate(before.values, 1))
                query = f"UPDATE {after.table} SET {places} WHERE {same} RETURNING 1"  # noqa: S608
            values = [*after.values.values(), *([] if before is None else before.values.values())]
            if not await self.fetch(query, *values):
                raise CannotWrite(f"a row of {after.table} has been changed by somebody else meanwhile")
        elif before is not None:
            await self.insert(before.table, **before.values)

    async def _all(self, table: str) -> str:
        """The columns of a table that can be written."""
        if table not in self._columns:
            records = await self.fetch(
                """SELECT attname::text AS name FROM pg_attribute
                   WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
                     AND attgenerated = '' ORDER BY attnum""",
                table,
            )
            self._columns[table] = [record["name"] for record in records]
        return ", ".join(self._columns[table])

    async def _ask_for(self, number: str | None) -> None:
        """Find out how the transaction ended on another connection; return if it was committed."""
        self.connection.terminate()
        trouble = f"the connection was lost at COMMIT, of transaction {number}"
        if number is None:
            raise CannotWrite("the connection was lost; nothing was to be written", temporary=True)
        deadline = asyncio.get_running_loop().time() + ASKING_LIMIT
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await _connect(self._settings)
                    status = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", number)
            except (CannotWrite, Refused, TimeoutError, *BREAKS):
                await asyncio.sleep(0.5)
                continue
            self.connection = connection
            if status == "committed":
                return
            if status == "aborted":
                raise CannotWrite(f"{trouble}, which was not committed", temporary=True)
            connection.terminate()
            await asyncio.sleep(0.5)
        raise CommitUnknown(
            f"{trouble}. Whether it was written cannot be said now; when the database is there again, look: "
            f"SELECT pg_xact_status('{number}')"
        )

    async def _named(self, asked: Any) -> Any:
        """Await it, with trouble named."""
        try:
            return await asked
        except asyncpg.LockNotAvailableError:
            raise CannotWrite("database: somebody else is writing there for long", temporary=True) from None
        except asyncpg.UniqueViolationError as error:
            raise CannotWrite(f"it is there already: {reason(error)}") from error
        except Refused as error:
            raise CannotWrite(
                f"database: {reason(error)}", temporary=is_going(self.connection, error)
            ) from error
        except (asyncpg.DataError, OverflowError, ValueError) as error:
            raise CannotWrite("database: a value that no column takes") from error
        except (TimeoutError, *BREAKS) as error:
            raise CannotWrite(f"database: {reason(error)}", temporary=True) from error


async def open_work(settings: Settings) -> Work:
    """Connect as `database.admin_dsn` says, and see that the tables are ours. Raises `CannotWrite`."""
    if trouble := not_ours(settings):
        raise CannotWrite(trouble)
    if not settings.database.admin_dsn:
        raise CannotWrite(
            "database.admin_dsn is not set: it names the role that writes (mailadmin; docs/administration.md)"
        )
    work = Work(settings, await _connect(settings))
    try:
        version = await work.value(
            "SELECT CASE WHEN to_regclass('mailmaps.schema_version') IS NOT NULL THEN 1 END"
        ) and await work.value("SELECT max(version) FROM mailmaps.schema_version")
        if version is None or version < NEEDED_VERSION:
            has = "has no tables of ours" if version is None else f"has version {version} of our tables"
            raise CannotWrite(
                f"the database of database.admin_dsn {has}, version {NEEDED_VERSION} is needed: run "
                f"`mailmaps schema {'create' if version is None else 'upgrade'}`"
            )
    except CannotWrite:
        work.connection.terminate()
        raise
    return work


# The tables that say which domains, addresses and mailboxes there are.
_OURS = ("virtual_mailbox_domains", "virtual_alias_maps", "virtual_mailbox_maps")


def not_ours(settings: Settings) -> str:
    """Why what is written to our tables would be answered to nobody; empty if it would be."""
    for name in _OURS:
        table = settings.tables.get(name)
        sources = table.sources if table is not None else []
        if "builtin" not in sources:
            where = f"from {', '.join(sources)}" if sources else "from no table of this mailmaps"
            return (
                f"tables.{name} answers {where}: these are not our tables, so nothing was done. Use what "
                "writes them (PostfixAdmin, say)"
            )
    return ""


async def _connect(settings: Settings) -> Connection:
    try:
        return await connect_to_administer(admin_database(settings.database))
    except ConnectError as error:
        raise CannotWrite(f"database: {error}", temporary=error.unreachable) from None
    except SettingsError as error:
        raise CannotWrite(str(error)) from None
