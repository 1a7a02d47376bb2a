"""Rows of all views as of one moment: whole, onto the disk, or those of some keys.

One transaction, REPEATABLE READ: a mailbox and its uid are of the same state of the database, whatever is
written meanwhile. A million mailboxes do not fit into anybody's memory four times over, so a whole reading
goes into an LMDB file of its own that nobody else sees.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from mailmaps.database.listing import read_rows
from mailmaps.database.views import fetch_rows
from mailmaps.filemaps.targets import ALIASES, FileTable
from mailmaps.maps.address import is_well_formed
from mailmaps.maps.row_bytes import LONGEST_KEY, Rows, pack, unpack
from mailmaps.mirrors.environment import DiskTrouble
from mailmaps.mirrors.following import KEYS_AT_ONCE

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Bytes of address space for a whole reading: nothing is taken of it before it is used.
_ROOM = 1 << 40

# Seconds for reading some keys of a view, and for other small statements.
KEYS_LIMIT = 30.0


class Staged:
    """All rows of all tables, by table and key, packed as `mailmaps.maps.row_bytes`. Made by `staged`."""

    def __init__(self, env: lmdb.Environment, names: Sequence[str]) -> None:
        self._env = env
        self._tables = {name: env.open_db(name.encode()) for name in names}
        self.too_long: list[tuple[str, bytes]] = []
        """Tables and keys that no file can hold."""

    def put(self, name: str, rows: Rows, *, union: bool, is_first: bool) -> None:
        """Take rows of one source; a later one adds keys, or, with `union`, values. Raises `DiskTrouble`."""
        try:
            with self._env.begin(write=True, db=self._tables[name]) as transaction:
                if self._are_new(rows, union=union, is_first=is_first):
                    with transaction.cursor() as cursor:
                        cursor.putmulti(rows, overwrite=False)
                    return
                for key, packed in rows:
                    if not 0 < len(key) <= LONGEST_KEY:
                        self.too_long.append((name, key))
                    elif is_first or not union:
                        transaction.put(key, packed, overwrite=False)
                    else:
                        transaction.put(key, _united(transaction.get(key), packed))
        except lmdb.Error as error:
            raise DiskTrouble(str(error)) from error

    @staticmethod
    def _are_new(rows: Rows, *, union: bool, is_first: bool) -> bool:
        """Whether all these can be put as they are, if they are not there."""
        can_be_held = all(0 < length <= LONGEST_KEY for length in set(map(len, rows.all_keys)))
        return can_be_held and (is_first or not union)

    def rows(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys, ascending, and packed values of a table."""
        with self._env.begin(db=self._tables[name]) as transaction, transaction.cursor() as cursor:
            yield from cursor

    @contextmanager
    def reader(self, name: str) -> Iterator[lmdb.Transaction[bytes]]:
        """For `get` of many keys of a table."""
        with self._env.begin(db=self._tables[name]) as transaction:
            yield transaction


@contextmanager
def staged(folder: Path, names: Sequence[str]) -> Iterator[Staged]:
    """An empty `Staged` on the disk of `folder`, gone at the end. Raises OSError, `DiskTrouble`."""
    with tempfile.TemporaryDirectory(prefix=".reading-", dir=folder) as place:
        try:
            env = lmdb.Environment(
                f"{place}/rows",
                _ROOM,
                subdir=False,
                lock=False,
                sync=False,
                metasync=False,
                max_dbs=len(names),
            )
        except lmdb.Error as error:
            raise DiskTrouble(str(error)) from error
        try:
            yield Staged(env, names)
        finally:
            env.close()


def remove_left_over(folder: Path) -> None:
    """Remove what readings have left that were killed; nobody else may be reading."""
    for path in folder.glob(".reading-*"):
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """Everything that is read inside is of one moment. Raises what asyncpg does, and TimeoutError.

    After anything was raised the connection is of no use any more.
    """
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    async with asyncio.timeout(KEYS_LIMIT):
        await transaction.start()
    yield
    async with asyncio.timeout(KEYS_LIMIT):
        await transaction.commit()


async def read_all(connection: Connection, tables: Sequence[FileTable], into: Staged) -> None:
    """All rows of these tables. Raises as `read_rows`, and `DiskTrouble`."""
    async with snapshot(connection):
        for table in tables:
            for number, view in enumerate(table.views):
                take = partial(into.put, table.name, union=table.kind.union, is_first=number == 0)
                await read_rows(connection, view, table.replace, take)


@dataclass(frozen=True, slots=True)
class ClosedRows:
    """The rows of some keys, by table; keys that a table does not have are missing there."""

    keys: set[str]
    found: dict[str, dict[str, tuple[str, ...]]]


async def read_closed(
    connection: Connection,
    tables: Sequence[FileTable],
    notified: Mapping[str, Collection[str]],
    leads_to: Callable[[str, str], Iterable[str]],
    most: int,
) -> ClosedRows | None:
    """The rows that may have changed with keys that were notified, by group, and of what they lead to.

    `leads_to` gives the keys that Postfix asks next for a key of virtual_alias_maps and one of its values.
    None: those would be more than `most`. Inside `snapshot`. Raises what asyncpg does, and TimeoutError.
    """
    asked: set[str] = set()
    for group, keys in notified.items():
        dependents = await _depending(connection, group, sorted(keys))
        if dependents is None:
            return None
        asked |= {*keys, *dependents}
    tables = [table for table in tables if table.group in notified]
    rows = ClosedRows(set(), {table.name: {} for table in tables})
    while asked:
        rows.keys.update(asked)
        if len(rows.keys) > most:
            return None
        for table in tables:
            rows.found[table.name].update(await _read_keys(connection, table, sorted(asked)))
        aliases = rows.found.get(ALIASES, {})
        led = (one for key in asked for value in aliases.get(key, ()) for one in leads_to(key, value))
        asked = {key for key in led if key and is_well_formed(key)} - rows.keys
    return rows


async def _depending(connection: Connection, group: str, keys: Sequence[str]) -> set[str] | None:
    """Who notified may not have seen what other transactions did at the same time
    (`mailmaps.mirrors.following`)."""
    found: set[str] = set()
    for first in range(0, len(keys), KEYS_AT_ONCE):
        async with asyncio.timeout(KEYS_LIMIT):
            some = await connection.fetchval(
                "SELECT mailmaps.depending_keys($1, $2)", group, keys[first : first + KEYS_AT_ONCE]
            )
        if some is None:
            return None
        found.update(some)
    return found


async def _read_keys(
    connection: Connection, table: FileTable, keys: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    rows: dict[str, tuple[str, ...]] = {}
    for view in table.views:
        async with asyncio.timeout(KEYS_LIMIT):
            found = await fetch_rows(connection, view, keys, table.replace)
        for key, values in found.items():
            if key not in rows:
                rows[key] = values
            elif table.kind.union:
                rows[key] = tuple(dict.fromkeys(rows[key] + values))
    return rows


def _united(held: bytes | None, added: bytes) -> bytes:
    if held is None:
        return added
    return pack(tuple(dict.fromkeys(unpack(held) + unpack(added))))
