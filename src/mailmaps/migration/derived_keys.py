"""`mailmaps compare --all`: the keys that can be learnt from the database itself.

These are the values of the columns that the queries compare with the key, each address also with an
extension, and for each domain postmaster, a name that nobody has, and a few of the names that others have
there (alias domains know no addresses of their own). What a query compares in another way is not learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailmaps.config.settings import Database
from mailmaps.database import key_columns
from mailmaps.database.key_columns import KeysUnknown
from mailmaps.maps.pgsql_cf import CfTable
from mailmaps.migration.keys import Keys, with_extension

NAMES_A_DOMAIN = 20
NOBODY = ("postmaster", "mailmaps-nobody")


async def derive(
    tables: Iterable[CfTable], database: Database, delimiters: str, limit: int
) -> tuple[Keys, list[str]]:
    """The keys, and a line for each file that taught nothing."""
    learnt: dict[str, dict[str, None]] = {"s": {}, "u": {}, "d": {}}
    notes: list[str] = []
    for table in tables:
        try:
            found: Mapping[str, list[str]] = await key_columns.values(table, database, limit)
        except KeysUnknown as error:
            notes.append(f"{table.name}: {error}")
            continue
        if not found:
            notes.append(f"{table.name}: the query compares no column with the key as it is")
        for code, values in found.items():
            learnt[code].update(dict.fromkeys(values))
    return _keys(learnt, delimiters), notes


def _keys(learnt: Mapping[str, Mapping[str, None]], delimiters: str) -> Keys:
    keys = Keys()
    whole = [key for key in learnt["s"] if "@" in key and not key.startswith("@")]
    bare = [key for key in learnt["s"] if "@" not in key]
    catch_alls = [key[1:] for key in learnt["s"] if key.startswith("@")]
    domains = dict.fromkeys([*learnt["d"], *(key for key in bare if "." in key), *catch_alls])
    names = [*learnt["u"], *(address.rpartition("@")[0] for address in whole)]
    names = list(dict.fromkeys([*NOBODY, *names]))[: NAMES_A_DOMAIN + len(NOBODY)]
    made = [f"{name}@{domain}" for domain in domains for name in names]
    for key in [*whole, *made, *with_extension([*whole, *made], delimiters), *bare, *domains]:
        keys.add(key)
    return keys
