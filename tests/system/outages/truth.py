"""What the views say: the answers that a daemon on the builtin views must give.

Contract: `answers` is asked of the database, never of code of ours: one row a target, targets joined in order
(`,`), a NULL alone is "not found" (docs/schema.md). `differences` compares every key of every view, and keys
that are in none, with what the daemon answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from tests.system.daemon import TABLES, Daemon
from tests.system.outages.asker import Door
from tests.system.outages.history import Place
from tests.system.outages.server import Connection

from mailmaps.maps.answer import NOT_FOUND, Answer, Found

ONE_OF_ALL = "somebody-whom-nobody-knows"
"""The local part with which a catch-all is asked: no address is `@domain`."""


async def answers(connection: Connection, places: Iterable[Place]) -> dict[Place, Answer]:
    """What is true of these keys, which have no extension, for this connection and now."""
    keys: dict[str, list[str]] = {}
    for place in places:
        keys.setdefault(place.table, []).append(place.key)
    found: dict[Place, Answer] = {}
    for table, asked in keys.items():
        query = f"SELECT key::text, value::text FROM mailmaps.{table} WHERE key = ANY($1::text[])"
        rows = await connection.fetch(query, asked + [_catch_all(key) for key in asked if "@" in key])
        for key in asked:
            candidates = (key, _catch_all(key)) if "@" in key else (key,)
            values = ({value for known, value in rows if known == one} for one in candidates)
            found[Place(table, key)] = _answer(key, next((some for some in values if some), set()))
    return found


def _catch_all(address: str) -> str:
    return "@" + address.rpartition("@")[2]


def _answer(key: str, values: set[str | None]) -> Answer:
    """A target `@domain` keeps the local part of what was asked."""
    local = key.rpartition("@")[0]
    targets = [local + value if value[0] == "@" else value for value in sorted(filter(None, values))]
    return Found(",".join(targets)) if targets else NOT_FOUND


async def whole(connection: Connection, table: str) -> dict[str, Answer]:
    """The answer to every key of a view; for a catch-all, to somebody whom nobody knows there."""
    values: dict[str, set[str | None]] = {}
    for key, value in await connection.fetch(f"SELECT key::text, value::text FROM mailmaps.{table}"):
        values.setdefault(key, set()).add(value)
    keys = {key: f"{ONE_OF_ALL}{key}" if key.startswith("@") else key for key in values}
    return {keys[key]: _answer(keys[key], found) for key, found in values.items()}


async def differences(
    daemon: Daemon, connection: Connection, absent: Iterable[Place] = (), kind: str = "tcp"
) -> list[str]:
    """A line for each key that the daemon answers otherwise than its view.

    `absent` are asked too, whether or not some view has them. Nobody may write meanwhile.
    """
    wanted: dict[Place, Answer] = await answers(connection, absent)
    for table in TABLES:
        for key, answer in (await whole(connection, table)).items():
            wanted[Place(table, key)] = answer
    return [
        f"{place.table} {place.key}: {said}, the view has {wanted[place]}"
        async for place, said in _said(daemon, wanted, kind)
        if said != wanted[place]
    ]


async def _said(daemon: Daemon, places: Iterable[Place], kind: str) -> AsyncIterator[tuple[Place, Answer]]:
    door = Door(daemon, kind)
    try:
        for place in places:
            yield place, await door.ask(place)
    finally:
        door.close()
