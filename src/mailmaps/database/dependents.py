"""Views that stand on tables about to change: saved, dropped, and made again as they were.

PostgreSQL refuses to alter the type of a column that a view uses. So every view on the tables, and every
view on those, is taken down and put up again inside the caller's transaction, with its owner, grants,
column grants, comments, options and column defaults. What cannot be carried over is named beforehand
(`obstacles`), so that nothing is begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Everything whose query uses one of the tables, directly or through others; `level` orders the making.
_DEPENDENTS = """
WITH RECURSIVE dependent (oid, level) AS (
   SELECT r.ev_class, 1
   FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
   WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
     AND d.refobjid = ANY ($1::text[]::regclass[]) AND r.ev_class <> d.refobjid
   UNION
   SELECT r.ev_class, dependent.level + 1
   FROM dependent
   JOIN pg_depend d ON d.refobjid = dependent.oid
   JOIN pg_rewrite r ON r.oid = d.objid
   WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
     AND r.ev_class <> d.refobjid
), ordered AS (
   SELECT oid, max(level) AS level FROM dependent GROUP BY oid
)
"""

_VIEWS = """
SELECT c.oid::int8 AS oid, format('%I.%I', n.nspname, c.relname) AS name, pg_get_viewdef(c.oid) AS query,
       quote_ident(pg_get_userbyid(c.relowner)) AS owner, c.reloptions AS options,
       c.relacl IS NOT NULL AS has_acl
FROM ordered JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v'
ORDER BY ordered.level, c.oid
"""

# The grants on a view ('') and on its columns, the owner's before those that stand on a grant option.
_GRANTS = """
SELECT acl.privilege_type AS privilege, acl.is_grantable AS grantable, place.column_name,
       CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
       quote_ident(pg_get_userbyid(acl.grantor)) AS grantor, acl.grantor = place.owner AS by_owner
FROM (
   SELECT 0 AS attnum, NULL::text AS column_name, relacl AS acl, relowner AS owner
   FROM pg_class WHERE oid = $1::int8::oid
   UNION ALL
   SELECT attnum, quote_ident(attname), attacl, relowner
   FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE attrelid = $1::int8::oid AND attnum > 0
) AS place, aclexplode(place.acl) AS acl
ORDER BY by_owner DESC, place.attnum
"""

# Statements for what else belongs to a view; %1$s is its name, known to be quoted.
_EXTRAS = """
SELECT format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', $2::text, a.attname,
              pg_get_expr(d.adbin, d.adrelid)) AS statement
FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = $1::int8::oid
UNION ALL
SELECT CASE WHEN c.objsubid = 0 THEN format('COMMENT ON VIEW %s IS %L', $2::text, c.description)
            ELSE format('COMMENT ON COLUMN %s.%I IS %L', $2::text, a.attname, c.description) END
FROM pg_description c
LEFT JOIN pg_attribute a ON a.attrelid = c.objoid AND a.attnum = c.objsubid AND c.objsubid > 0
WHERE c.classoid = 'pg_class'::regclass AND c.objoid = $1::int8::oid
"""

# What stops us, in words: no ordinary view, or something that clings to a view or to a table's columns.
_OBSTACLES = """
, views AS (
   SELECT c.oid, c.reltype FROM ordered JOIN pg_class c USING (oid) WHERE c.relkind = 'v'
), found (classid, objid, objsubid) AS (
   SELECT 'pg_class'::regclass, c.oid, 0
   FROM ordered JOIN pg_class c USING (oid) WHERE c.relkind = 'm'
   UNION ALL
   SELECT 'pg_rewrite'::regclass, r.oid, 0
   FROM ordered JOIN pg_rewrite r ON r.ev_class = ordered.oid
   WHERE r.rulename <> '_RETURN'
   UNION ALL
   SELECT 'pg_trigger'::regclass, t.oid, 0
   FROM views JOIN pg_trigger t ON t.tgrelid = views.oid
   UNION ALL
   SELECT d.classid, d.objid, d.objsubid
   FROM views JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = views.oid
   WHERE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_type'::regclass, 'pg_trigger'::regclass,
                           'pg_attrdef'::regclass)
   UNION ALL
   SELECT d.classid, d.objid, d.objsubid
   FROM views JOIN pg_type t ON t.oid = views.reltype OR t.typelem = views.reltype
   JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = t.oid
   WHERE d.classid <> 'pg_type'::regclass
   UNION ALL
   SELECT l.classoid, l.objoid, 0 FROM views JOIN pg_seclabel l ON l.objoid = views.oid
   UNION ALL
   SELECT 'pg_class'::regclass, views.oid, 0
   FROM views JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = views.oid
   WHERE d.refclassid = 'pg_extension'::regclass
   UNION ALL
   SELECT d.classid, d.objid, d.objsubid
   FROM pg_depend d LEFT JOIN pg_attrdef ad ON d.classid = 'pg_attrdef'::regclass AND ad.oid = d.objid
   WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::text[]::regclass[])
     AND d.refobjsubid > 0
     AND (d.classid IN ('pg_proc'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass,
                        'pg_publication_rel'::regclass)
          OR ad.adnum <> d.refobjsubid)
)
SELECT DISTINCT pg_describe_object(classid, objid, objsubid) AS text FROM found ORDER BY text
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege on a view, or on one of its columns; all names are quoted for SQL."""

    privilege: str
    column_name: str | None
    grantee: str
    grantor: str
    by_owner: bool
    grantable: bool

    def statements(self, view: str) -> list[str]:
        """The GRANT, made by the grantor that it had."""
        column = f" ({self.column_name})" if self.column_name else ""
        option = " WITH GRANT OPTION" if self.grantable and self.grantee != self.grantor else ""
        grant = f"GRANT {self.privilege}{column} ON {view} TO {self.grantee}{option}"
        return [grant] if self.by_owner else [f"SET LOCAL ROLE {self.grantor}", grant, "RESET ROLE"]


@dataclass(frozen=True, slots=True)
class SavedView:
    """A view as it was; `name` is qualified and quoted.

    Without an access list (`has_acl`) the owner has all rights and nobody else any; with one, only
    `grants` tell, for the owner too. Columns have lists of their own.
    """

    name: str
    owner: str
    statements: list[str]
    has_acl: bool
    grants: list[Grant]


async def obstacles(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Describe what keeps these tables (qualified names) from being altered; empty when nothing does."""
    return [row["text"] for row in await connection.fetch(_DEPENDENTS + _OBSTACLES, list(tables))]


async def save(connection: Connection, tables: Sequence[str]) -> list[SavedView]:
    """Return all views on the tables, in the order in which they must be made."""
    return [
        SavedView(
            name=row["name"],
            owner=row["owner"],
            statements=[_create(row["name"], row["query"], row["options"])]
            + [f"ALTER VIEW {row['name']} OWNER TO {row['owner']}"]
            + [extra["statement"] for extra in await connection.fetch(_EXTRAS, row["oid"], row["name"])],
            has_acl=row["has_acl"],
            grants=await _grants(connection, row["oid"]),
        )
        for row in await connection.fetch(_DEPENDENTS + _VIEWS, list(tables))
    ]


async def drop(connection: Connection, views: Sequence[SavedView]) -> None:
    """Drop the views, the last made first."""
    for view in reversed(views):
        await connection.execute(f"DROP VIEW {view.name}")


async def restore(connection: Connection, views: Sequence[SavedView]) -> None:
    """Make the views again, each with all that it had."""
    for view in views:
        for statement in view.statements:
            await connection.execute(statement)
        await _restore_grants(connection, view)


async def _grants(connection: Connection, oid: int) -> list[Grant]:
    return [Grant(**dict(row)) for row in await connection.fetch(_GRANTS, oid)]


async def _restore_grants(connection: Connection, view: SavedView) -> None:
    """ALTER DEFAULT PRIVILEGES may have granted more on the new view than the old one had: undo that."""
    oid = await connection.fetchval("SELECT $1::text::regclass::oid::int8", view.name)
    excess = {grant.grantee for grant in await _grants(connection, oid)} - {view.owner}
    for grantee in (*excess, *([view.owner] if view.has_acl else [])):
        await connection.execute(f"REVOKE ALL ON {view.name} FROM {grantee}")
    for grant in view.grants:
        for statement in grant.statements(view.name):
            await connection.execute(statement)


def _create(name: str, query: str, options: list[str] | None) -> str:
    storage = f" WITH ({', '.join(options)})" if options else ""
    return f"CREATE VIEW {name}{storage} AS {query}"
