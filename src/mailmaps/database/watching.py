"""Tells whether every change of a view's rows is notified, and by which tables.

Each table under a view needs statement triggers of ours: those that `mailmaps schema upgrade` puts on our own
tables, or those of `mailmaps schema watch`. Cheap enough for a daemon to ask every few seconds, as any role.

What cannot be seen there: row security that differs from reader to reader, and what a function reads. A
function in SQL or PL/pgSQL that is not IMMUTABLE is therefore a problem in a site's view; ours call only
functions that read the tables under them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailmaps.database.catalogs import read_under
from mailmaps.maps.sources import view_of
from mailmaps.maps.tables import DEFAULT_TABLES

if TYPE_CHECKING:
    import asyncpg

    from mailmaps.database.connect import Connection

# Bits of pg_trigger.tgtype (catalog/pg_trigger.h): INSERT, DELETE, UPDATE, TRUNCATE.
EVERY_CHANGE = 4 | 8 | 16 | 32
# The site's own tables get these by `mailmaps schema watch`, ours by `mailmaps schema upgrade`.
WATCH, UPGRADE = "mailmaps schema watch", "mailmaps schema upgrade"
UNSTEADY = "its rows change without anybody changing a table"

# pg_class.relkind of what holds rows, and of what can have triggers of ours.
_BASES = ("r", "p", "f")
TABLES = ("r", "p")

_BUILTIN = frozenset(view_of(table, "builtin") for table in DEFAULT_TABLES) | {
    f"mailmaps.{table}" for table in DEFAULT_TABLES
}


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of the changes of one view or table.

    `relations`: the base tables under it as notifications name them, "schema.table". `problem`: empty when
    every change of its rows is notified, else one line that says why not. `fingerprint` is another one
    whenever its definition, its tables or their triggers are others.
    """

    relations: frozenset[str]
    problem: str
    fingerprint: str


async def read_watches(connection: Connection, views: Sequence[str]) -> dict[str, Watch]:
    """What is known of each view ("schema.name"). Raises asyncpg's errors."""
    return await _read(connection, views, "there is no such view")


async def read_relations(connection: Connection, names: Sequence[str]) -> dict[str, Watch]:
    """The same for "table" (looked up along the search_path) or "schema.table"; keyed as given."""
    return await _read(connection, names, "there is no such table")


async def _read(connection: Connection, names: Sequence[str], missing: str) -> dict[str, Watch]:
    found = await read_under(connection, names)
    return {name: _watch(name, found[name], missing) for name in names}


def _watch(name: str, rows: list[asyncpg.Record], missing: str) -> Watch:
    if rows[0]["kind"] is None:
        return Watch(frozenset(), missing, "")
    tables = [row for row in rows if row["kind"] in _BASES]
    prints = "\n".join(row["print"] for row in rows)
    return Watch(
        frozenset(row["name"] for row in tables),
        next(filter(None, (reading_problem(row) for row in rows)), "")
        or _trigger_problem(tables, builtin=name in _BUILTIN),
        hashlib.sha256(prints.encode()).hexdigest(),
    )


def reading_problem(row: asyncpg.Record) -> str:
    """Why changes of a relation of `read_under` are not notified, whatever triggers it has."""
    name, kind = row["name"], row["kind"]
    if row["system"] or row["catalog"]:
        return f"{row['catalog'] or name} is the system's own, and its changes are not notified"
    if kind == "m":
        return f"{name} is a materialized view, and REFRESH is not notified"
    if kind == "f":
        return f"{name} is a foreign table, and its changes elsewhere are not notified"
    if kind == "S":
        return f"{name} is a sequence, and its changes are not notified"
    if row["subscribed"]:
        return f"{name} is filled by logical replication, which fires no statement triggers"
    if row["unsteady"]:
        return f"{UNSTEADY} (it has the time or a sample in it)"
    if row["unsteady_call"]:
        return f"{UNSTEADY} (it calls {row['unsteady_call']})"
    if row["unseen_call"]:
        return f"it calls {row['unseen_call']}, which is not IMMUTABLE: what that reads cannot be seen"
    return ""


def _trigger_problem(tables: Iterable[asyncpg.Record], *, builtin: bool) -> str:
    missing: list[str] = []
    disabled: list[str] = []
    for row in tables:
        enabled = row["with_keys" if builtin else "enabled"]
        if enabled & EVERY_CHANGE == EVERY_CHANGE:
            continue
        whole = row["installed"] & EVERY_CHANGE == EVERY_CHANGE
        (disabled if whole and not builtin else missing).append(row["name"])
    remedy = UPGRADE if builtin else WATCH
    if missing:
        return f"{', '.join(missing)}: not all changes are notified; run `{remedy}`"
    if disabled:
        return f"{', '.join(disabled)}: triggers of ours are not enabled always; run `{remedy}`"
    return ""
