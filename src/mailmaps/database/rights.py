"""What a role of the daemon may do beyond what it must: `mailmaps check` names it.

A lookup's connection answers strangers all day; whoever comes to own it should be able to read addresses, and
no more. Every role may read the catalogs, so that nothing is tried.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.database.connect import reason
from mailmaps.findings import Finding, Level

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Tables that are named; the rest is counted.
SHOWN = 3

_ROLE = """SELECT rolsuper AS super, quote_ident(rolname) AS name
   FROM pg_catalog.pg_roles WHERE rolname = current_user"""

# Tables, and views that hand writing on.
_WRITABLE = """SELECT format('%I.%I', n.nspname, c.relname)
   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname <> ALL ($1::text[])
     AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     AND has_schema_privilege(n.oid, 'USAGE')
     AND (has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE')
          OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE'))
   ORDER BY 1"""

# Whoever may use one of these, and temporary tables, can have anything done as its owner
# (schema/grants.sql).
_BORROWED = """SELECT count(*)
   FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname IN ('mailmaps', 'mailpolicy') AND p.prosecdef
     AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
     AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')"""


async def excess_findings(
    connection: Connection, setting: str, *, needs: Collection[str] = ()
) -> list[Finding]:
    """What the role of this connection could change outside of the schemas that it `needs`."""
    try:
        role = await connection.fetchrow(_ROLE)
        if role is None:
            return []
        if role["super"]:
            text = f"the role {role['name']} is a superuser"
            remedy = "let the daemon ask as mailreader, mailauth and mailwriter (docs/schema.md, Roles)"
            return [Finding(Level.WARNING, setting, text, remedy)]
        tables = [row[0] for row in await connection.fetch(_WRITABLE, list(needs))]
        if borrowed := await connection.fetchval(_BORROWED):
            text = f"the role {role['name']} may use {borrowed} functions of triggers that run as their owner"
            return [Finding(Level.ERROR, setting, text, "mailmaps schema upgrade takes that away")]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.WARNING, setting, f"its rights cannot be read: {reason(error)}")]
    if not tables:
        return []
    more = f" and {len(tables) - SHOWN} more" if len(tables) > SHOWN else ""
    text = f"the role {role['name']} can write to {', '.join(tables[:SHOWN])}{more}"
    remedy = f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join(tables)} FROM {role['name']}, PUBLIC"
    return [Finding(Level.WARNING, setting, text, remedy)]
