"""Reads from the system catalogs, which every role may read, what lies under a view or table.

One statement of a few milliseconds for any number of names: the relations that a view reads (pg_depend,
partitions and inheriting tables included), what in its rule changes with time alone or cannot be seen, and
the statement triggers of ours on the tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailmaps.database.volatility import TIME_WORDS

if TYPE_CHECKING:
    import asyncpg

    from mailmaps.database.connect import Connection

# Asked with names as (given, schema or NULL, name). Direct reading of a system catalog is in no
# pg_depend (catalogs are pinned), so it is read from the rule; OIDs below 16384 are the system's. A statement
# trigger of a partitioned table fires for its partitions only when it is the one that is written to, so
# each has to have its own. The fingerprint has the xmin of all that defines the rows, and the file of the
# table, which is another one after an ALTER TABLE that rewrites.
_QUERY = r"""
WITH RECURSIVE
asked (given, oid) AS (
   SELECT a.given, (
      SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relname = a.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND n.nspname = ANY (CASE WHEN a.schema IS NULL THEN p.path ELSE ARRAY[a.schema::name] END)
      ORDER BY array_position(p.path, n.nspname) LIMIT 1)
   FROM unnest($1::text[], $2::text[], $3::text[]) AS a (given, schema, name),
        LATERAL (SELECT current_schemas(false) || ARRAY['public'::name]) AS p (path)
),
reads (given, oid) AS (
   SELECT given, oid FROM asked WHERE oid IS NOT NULL
   UNION
   SELECT r.given, next.oid
   FROM reads r JOIN pg_catalog.pg_class c ON c.oid = r.oid AND c.oid >= 16384,
      LATERAL (
         SELECT d.refobjid
         FROM pg_catalog.pg_rewrite w
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass
         WHERE c.relkind = 'v' AND w.ev_class = c.oid AND w.ev_type = '1'
         UNION ALL
         SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE c.relkind <> 'v' AND i.inhparent = c.oid
      ) AS next (oid)
),
relations AS (
   SELECT c.oid, n.nspname, c.relname, c.relkind, c.relfilenode
   FROM (SELECT DISTINCT oid FROM reads) AS r
   JOIN pg_catalog.pg_class c ON c.oid = r.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
),
rules AS MATERIALIZED (
   SELECT r.oid, format('%s %s', w.oid, w.xmin) AS print, r.nspname, t.tree,
          t.tree ~ '\{(SQLVALUEFUNCTION :op [0-8]|TABLESAMPLECLAUSE) ' AS unsteady,
          (SELECT x[1]::oid::regclass::text FROM regexp_matches(t.tree, ':relid ([1-9]\d{0,4})\M', 'g') x
           WHERE x[1]::int < 16384 LIMIT 1) AS catalog
   FROM relations r
   JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid AND w.ev_type = '1',
      LATERAL (SELECT w.ev_action::text OFFSET 0) AS t (tree)
   WHERE r.relkind = 'v' AND r.oid >= 16384
),
called AS (
   SELECT w.oid, string_agg(format('%s %s', p.oid, p.xmin), ' ' ORDER BY p.oid) AS print,
          array_agg(format('%s.%s', n.nspname, p.proname)) FILTER (
             WHERE p.provolatile = 'v' OR p.proname = ANY ($4::text[])
                OR l.lanname NOT IN ('internal', 'c')
                   AND lower(p.prosrc) ~ ('\m(' || array_to_string($4::text[], '|') || ')\M')
                OR p.prosqlbody::text ~ '\{SQLVALUEFUNCTION :op [0-8] '
                OR EXISTS (
                   SELECT FROM regexp_matches(p.prosqlbody::text, ':(?:op)?funcid (\d+)', 'g') x
                   JOIN pg_catalog.pg_proc q ON q.oid = x[1]::oid
                   WHERE q.provolatile = 'v' OR q.proname = ANY ($4::text[]))
          ) AS unsteady,
          array_agg(format('%s.%s', n.nspname, p.proname)) FILTER (
             WHERE p.provolatile = 's' AND l.lanname NOT IN ('internal', 'c')
               AND NOT (w.nspname = 'mailmaps' AND n.nspname = 'mailmaps')
          ) AS unseen
   FROM rules w,
      LATERAL (
         SELECT DISTINCT x[1]::oid FROM regexp_matches(w.tree, ':(?:op)?funcid (\d+)', 'g') x
      ) AS f (oid)
   JOIN pg_catalog.pg_proc p ON p.oid = f.oid
   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   JOIN pg_catalog.pg_language l ON l.oid = p.prolang
   GROUP BY w.oid
),
triggered AS (
   SELECT r.oid,
          string_agg(format('%s %s %s', t.oid, t.xmin, t.tgenabled), ' ' ORDER BY t.oid) AS print,
          bit_or(t.tgtype) AS installed,
          bit_or(t.tgtype) FILTER (WHERE t.tgenabled = 'A') AS enabled,
          bit_or(t.tgtype) FILTER (WHERE t.tgenabled = 'A' AND n.nspname = 'mailmaps') AS with_keys
   FROM relations r
   JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid
   JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   WHERE (n.nspname = 'mailmaps_changes' AND p.proname = 'relation_changed'
          OR n.nspname = 'mailmaps' AND p.proname LIKE 'notify\_%')
     AND t.tgtype & (1 | 2 | 64) = 0 AND t.tgqual IS NULL AND t.tgattr::text = ''
   GROUP BY r.oid
)
SELECT a.given, r.relkind::text AS kind, r.nspname || '.' || r.relname AS name,
       quote_ident(r.nspname) || '.' || quote_ident(r.relname) AS quoted, r.oid < 16384 AS system,
       w.catalog,
       EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = r.oid) AS subscribed,
       w.unsteady, c.unsteady[1] AS unsteady_call, c.unseen[1] AS unseen_call,
       coalesce(t.installed, 0)::int AS installed, coalesce(t.enabled, 0)::int AS enabled,
       coalesce(t.with_keys, 0)::int AS with_keys,
       concat_ws(':', r.oid, r.nspname, r.relname, r.relfilenode, w.print, c.print, t.print) AS print
FROM asked a
LEFT JOIN reads d ON d.given = a.given
LEFT JOIN relations r ON r.oid = d.oid
LEFT JOIN rules w ON w.oid = r.oid
LEFT JOIN called c ON c.oid = r.oid
LEFT JOIN triggered t ON t.oid = r.oid
WHERE d.oid IS NULL OR r.oid IS NOT NULL
ORDER BY a.given, r.oid
"""


async def read_under(connection: Connection, names: Sequence[str]) -> dict[str, list[asyncpg.Record]]:
    """The relations under each name ("schema.name", or "name" along the search_path), itself among them.

    A name that is nothing has one row whose `kind` is NULL; else that is pg_class.relkind. `quoted`: the
    name for SQL. `unsteady`, `unsteady_call`: the rule has the time or a random sample in it, or calls this
    function that does. `unseen_call`: it calls this one, whose tables cannot be seen. `installed`, `enabled`,
    `with_keys`: the events (bits of pg_trigger.tgtype) for which our triggers are there, are enabled
    always (ENABLE alone, which pg_restore --disable-triggers leaves, is not for sessions of replicas), and
    name keys. `print` changes when the relation, its rule, a function in it, or its triggers do.

    Raises asyncpg's errors.
    """
    parts = [name.rpartition(".") for name in names]
    rows = await connection.fetch(
        _QUERY,
        list(names),
        [schema or None for schema, _, _ in parts],
        [name for _, _, name in parts],
        sorted(TIME_WORDS),
    )
    found: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row["given"]].append(row)
    return found
