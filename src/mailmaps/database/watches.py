"""Puts triggers on a site's own tables, so that their changes are notified: `mailmaps schema watch`.

The tables are those under the settings' own views and those that `depends_on` names. Nothing else of our
schema is needed, nor made, in the database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.database.catalogs import read_under
from mailmaps.database.connect import reason
from mailmaps.database.preflight import SchemaError
from mailmaps.database.sql_files import watch as watch_sql
from mailmaps.database.watching import TABLES, reading_problem
from mailmaps.maps.sources import view_of

if TYPE_CHECKING:
    from mailmaps.config.settings import Settings
    from mailmaps.database.connect import Connection

# What a trigger on each event has to say of its rows. The names sort after those of schema/0006.
_REFERENCING = {
    "INSERT": "REFERENCING NEW TABLE AS new_rows",
    "UPDATE": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "DELETE": "REFERENCING OLD TABLE AS old_rows",
    "TRUNCATE": "",
}

_TRIGGERS = """
SELECT t.tgname AS name, t.tgenabled = 'A' AS always
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = $1::text::regclass AND n.nspname IN ('mailmaps', 'mailmaps_changes')
"""

# The function is there and another role's, who has to renew it.
_ANOTHERS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = 'mailmaps_changes' AND p.proname = 'relation_changed'
                 AND NOT pg_has_role(p.proowner, 'USAGE'))
"""


def sources_to_watch(settings: Settings) -> dict[str, str]:
    """The site's own views, and the tables of depends_on, each with the path of the setting it is in."""
    found: dict[str, str] = {}
    for table, values in settings.tables.items():
        for source in values.sources:
            if source.startswith("view:"):
                found.setdefault(view_of(table, source), f"tables.{table}.sources")
        for name in values.depends_on:
            found.setdefault(name, f"tables.{table}.depends_on")
    return found


async def watch(
    connection: Connection, settings: Settings, report: Callable[[str], None], *, dry_run: bool = False
) -> list[str]:
    """Put the triggers on, as the owner of the tables; returns a line for each thing that cannot be watched.

    `report` hears of each table. What is there already is left as it is. Raises `SchemaError`: the
    connection failed.
    """
    asked = sources_to_watch(settings)
    if not asked:
        report("nothing to watch: no table of the settings has a view of yours or names depends_on")
        return []
    try:
        under = await read_under(connection, list(asked))
        problems, tables = _sort_out(asked, under)
        for table in tables:
            problems += await _watch_one(connection, table, report, dry_run=dry_run)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise SchemaError([reason(error)]) from error
    return problems


def _sort_out(
    asked: dict[str, str], under: dict[str, list[asyncpg.Record]]
) -> tuple[list[str], list[asyncpg.Record]]:
    """What cannot be watched, and the tables that can."""
    problems: dict[str, None] = {}
    tables: dict[str, asyncpg.Record] = {}
    for given, setting in asked.items():
        for row in under[given]:
            if row["kind"] is None:
                problems[f"{setting}: there is no {given}"] = None
            elif problem := reading_problem(row):
                problems[f"{setting} {given}: {problem}"] = None
            elif row["kind"] in TABLES:
                tables[row["quoted"]] = row
    return list(problems), list(tables.values())


async def _watch_one(
    connection: Connection, table: asyncpg.Record, report: Callable[[str], None], *, dry_run: bool
) -> list[str]:
    """One table; what PostgreSQL refuses is a problem of this table alone."""
    there = {row["name"]: row["always"] for row in await connection.fetch(_TRIGGERS, table["quoted"])}
    missing = [event for event in _REFERENCING if not there.get(_trigger(event))]
    if not missing:
        report(f"{table['name']} is watched already")
    elif dry_run:
        report(f"would watch {table['name']}")
    else:
        try:
            async with connection.transaction():
                if not await connection.fetchval(_ANOTHERS):
                    await connection.execute(watch_sql())
                for event in missing:
                    if _trigger(event) not in there:
                        await connection.execute(_create(event, table["quoted"]))
                    await connection.execute(_enable(event, table["quoted"]))
        except asyncpg.PostgresError as error:
            return [f"{table['name']}: {reason(error)}"]
        report(f"watching {table['name']}")
    return []


def _trigger(event: str) -> str:
    return f"mailmaps_watch_{event.lower()}"


def _create(event: str, table: str) -> str:
    return (
        f"CREATE TRIGGER {_trigger(event)} AFTER {event} ON {table} {_REFERENCING[event]} "
        "FOR EACH STATEMENT EXECUTE FUNCTION mailmaps_changes.relation_changed()"
    )


def _enable(event: str, table: str) -> str:
    """Whatever role a session writes in (session_replication_role)."""
    return f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {_trigger(event)}"
