"""Reads the boxes of all live addresses out of the views, in one statement and so of one moment.

Several addresses of one box are one row already (`GROUP BY`), and rows come in the order of their paths,
which is what `mailmaps.maildirs.sorting` needs. The server does the sorting; here some hundred rows are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mailmaps.config.settings import Database, Settings
from mailmaps.database.connect import BREAKS, ConnectError, Refused, connect, reason
from mailmaps.database.views import quote_name
from mailmaps.maildirs.box import Row
from mailmaps.maps.sources import view_of

TABLES = ("virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps")

BATCH = 500  # rows that are asked for at once

# The role may have limits that are right for lookups; this takes as long as a million folders take.
_SETTINGS = (
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; "
    "SET LOCAL lock_timeout = 3000; SET LOCAL work_mem = '64MB'; SET LOCAL jit = off; "
    "SET LOCAL cursor_tuple_fraction = 1"
)


class CannotList(Exception):
    """A table cannot be listed by these settings; the text says which."""


class CannotRead(Exception):
    """The database did not answer, or refused; the text says why and quotes no row."""


def views_of(settings: Settings) -> list[list[str]]:
    """For each of `TABLES` the views (schema.name) that answer it, in order. Raises `CannotList`."""
    found = []
    for table in TABLES:
        if table not in settings.tables:
            raise CannotList(f"there is no table {table} in the settings")
        sources = settings.tables[table].sources
        for source in sources:
            if source.startswith("pgsql:"):
                raise CannotList(
                    f"tables.{table} answers from {source}, a query that tells one key at a time: its rows "
                    "cannot be listed (name a view as the source, or make the folders yourself)"
                )
        found.append([view_of(table, source) for source in sources])
    return found


async def read(database: Database, views: list[list[str]], take: Callable[[Row], None]) -> None:
    """Hand the rows of every live box to `take`, ascending by the bytes of their normal path.

    `views` are those of `views_of`. One transaction, REPEATABLE READ READ ONLY, as long as `take` takes.
    Raises `CannotRead`, `SettingsError` (no password file), and what `take` raises.
    """
    try:
        connection = await connect(database)
    except ConnectError as error:
        raise CannotRead(str(error)) from None
    try:
        with _named():
            await connection.transaction(isolation="repeatable_read", readonly=True).start()
            await connection.execute(_SETTINGS)
            cursor = await connection.cursor(_statement(views))
        while True:
            with _named():
                batch = await cursor.fetch(BATCH)
            if not batch:
                return
            for row in batch:
                take(Row(*row))
    finally:
        with suppress(*BREAKS, TimeoutError):  # nothing was written: the end of the connection is enough
            await connection.close(timeout=database.connect_timeout)


@contextmanager
def _named() -> Iterator[None]:
    """Only around what the database does: `take` may raise `OSError` for reasons of its own."""
    try:
        yield
    except (Refused, TimeoutError, *BREAKS) as error:
        raise CannotRead(reason(error)) from None


def _statement(views: list[list[str]]) -> str:
    mailbox, uid, gid = map(_table, views)
    # The path is normal here (`mailmaps.maildirs.box.normal`), so that equal ones are one.
    return f"""
    SELECT path, uid, gid, min(key COLLATE "C"), count(*), count(*) OVER ()
    FROM (SELECT ltrim(regexp_replace(mailbox.value, '/+', '/', 'g'), '/') COLLATE "C" AS path,
                 uid.value AS uid, gid.value AS gid, key
          FROM ({mailbox}) AS mailbox
          LEFT JOIN ({uid}) AS uid USING (key)
          LEFT JOIN ({gid}) AS gid USING (key)
          WHERE mailbox.value IS NOT NULL) AS boxes
    GROUP BY path, uid, gid
    ORDER BY path, uid, gid"""  # noqa: S608  # views are quoted


def _table(views: list[str]) -> str:
    """All keys of a table with what a lookup says of each: the first source that knows it.

    Several values are one answer, joined by commas; none (NULL: known, answers nothing) is NULL.
    """
    value = "nullif(value::text, '') COLLATE \"C\""
    parts = [
        f"SELECT \"key\"::text AS key, string_agg(DISTINCT {value}, ',' ORDER BY {value}) AS value, "  # noqa: S608
        f'{place} AS place FROM {quote_name(view)} WHERE "key" IS NOT NULL GROUP BY 1'
        for place, view in enumerate(views)
    ]
    if len(parts) == 1:
        return parts[0]
    every = " UNION ALL ".join(parts)
    return f"SELECT DISTINCT ON (key) key, value FROM ({every}) AS every ORDER BY key, place"  # noqa: S608
