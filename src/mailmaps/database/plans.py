"""Which query of the daemon reads a big table whole, and the index that mends it.

The question is put to PostgreSQL's planner (EXPLAIN, nothing is run), on a connection like the daemon's own
and so with the plan that the daemon gets: a generic one for views and logins, one for the value at hand for
`.cf` files (mailmaps.database.connect). For a table of few rows reading it whole is the right plan, and
nothing is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import asyncpg

from mailmaps.database.conditions import Comparison, comparisons, has_or, is_call, without_alias
from mailmaps.database.statements import literal_text
from mailmaps.findings import Finding, Level
from mailmaps.maps import template
from mailmaps.maps.answer import CannotSay

if TYPE_CHECKING:
    from mailmaps.database.cf_source import CfDatabase
    from mailmaps.database.connect import Connection
    from mailmaps.maps.pgsql_cf import CfTable

# Rows. To read so many takes about a millisecond, ten times what a lookup by index takes.
BIG = 10_000

# A domain and local part that nobody has (RFC 2606), recognized in a condition by this word.
SENTINEL = "mailmaps-check"
PROBE = f"{SENTINEL}@{SENTINEL}.invalid"

# Keys of a question: one address, and as many as come together when much mail comes (database/batch.py).
FEW, MANY = [PROBE], [f"{SENTINEL}-{number}@{SENTINEL}.invalid" for number in range(300)]

_CONDITIONS = ("Filter", "Join Filter", "Hash Cond", "Merge Cond", "Recheck Cond")

_NUMBER = count()  # a statement outlives a transaction that fails


@dataclass(frozen=True, slots=True)
class Scan:
    """A table that is read whole: its name (quoted for SQL), its rows as far as known, and what mends it.

    `statements` make the indexes, none where no index can help; `why` says then what is in the way.
    """

    relation: str
    rows: int
    statements: tuple[str, ...]
    why: str = ""

    @property
    def mendable(self) -> bool:
        """Whether something can be done without another query or view."""
        return bool(self.statements) or self.why.startswith("ANALYZE")


async def scans_of_view(connection: Connection, question: str) -> list[Scan]:
    """For a question with one parameter, the array of keys. Raises `asyncpg.PostgresError`."""
    found: dict[str, Scan] = {}
    for keys in (FEW, MANY):
        array = ", ".join(f"'{key}'" for key in keys)
        name = f"mailmaps_scan_{next(_NUMBER)}"
        async with connection.transaction():  # behind PgBouncer a statement is there as long as this lasts
            await connection.execute(f"PREPARE {name} (text[]) AS {question}")
            plan = await connection.fetchval(
                f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE {name} (ARRAY[{array}])"
            )
            await connection.execute(f"DEALLOCATE {name}")
        for scan in await _scans(connection, plan):
            found.setdefault(scan.relation, scan)
    return list(found.values())


async def scans_of_query(connection: Connection, text: str) -> list[Scan]:
    """For a query with its values written into it. Raises `asyncpg.PostgresError`."""
    async with connection.transaction(readonly=True):
        plan = await connection.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) {text}")
    return await _scans(connection, plan)


async def cf_scans(database: CfDatabase, table: CfTable) -> list[Scan]:
    """The same on one of the connections that the file's queries have; none where it cannot be told."""
    try:
        return await database.pool.run(lambda connection: scans_of_cf(connection, table))
    except (asyncpg.PostgresError, CannotSay):
        return []  # no sample value suits the column, or nobody answers any more: the query itself was tried


async def scans_of_cf(connection: Connection, table: CfTable) -> list[Scan]:
    """For a pgsql_table(5), whatever keys it is asked for. Raises `asyncpg.PostgresError`."""
    parts = {"s": PROBE, "u": SENTINEL, "d": f"{SENTINEL}.invalid"}
    parts = {code: parts.get(code.lower(), SENTINEL) for code in template.CODES}
    literals = [template.expand(value, parts) for value in table.query.values]
    return await scans_of_query(connection, literal_text(table.query, literals))


def scan_findings(found: Sequence[tuple[str, Scan]]) -> list[Finding]:
    """One line for each table and remedy; `found` has what asks beside each."""
    by_scan: dict[Scan, list[str]] = {}
    for subject, scan in found:
        by_scan.setdefault(scan, []).append(subject)
    findings = []
    for scan, subjects in by_scan.items():
        more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        text = f"reads all of {scan.relation} (about {scan.rows:,} rows) for each lookup"
        remedy = "; ".join(scan.statements) or scan.why
        findings.append(Finding(Level.WARNING, subjects[0] + more, text, remedy))
    return findings


async def _scans(connection: Connection, plan: str) -> list[Scan]:
    found: dict[str, Scan] = {}
    for node, conditions in _whole(json.loads(plan)[0]["Plan"], ()):
        schema, relation = node["Schema"], node["Relation Name"]
        rows = await _rows(connection, schema, relation)
        if rows < BIG:
            continue
        scan = await _scan(connection, node, conditions, rows)
        found.setdefault(scan.relation, scan)
    # Without the index that is missing, tables that are joined are read whole too, for all their indexes.
    missing = any(scan.statements for scan in found.values())
    return [scan for scan in found.values() if scan.statements or not (missing and scan.mendable)]


def _whole(node: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The nodes that read a table whole, each with the conditions that its rows have to meet."""
    conditions = (*(node[name] for name in _CONDITIONS if name in node), *above)
    if "Relation Name" in node and _is_whole(node):
        yield node, list(conditions)
    for child in node.get("Plans", []):
        # A merge ends with the shorter side: the planner then reckons it to cost less than its longer side.
        if node["Node Type"] != "Merge Join" or child["Total Cost"] <= node["Total Cost"]:
            yield from _whole(child, conditions)


def _is_whole(node: dict[str, Any]) -> bool:
    by_index = node["Node Type"] in ("Index Scan", "Index Only Scan")
    return node["Node Type"] == "Seq Scan" or (by_index and "Index Cond" not in node)


# Not every table has been counted (reltuples is -1 or 0 before the first ANALYZE): then by its size. 100
# bytes a row are few, so that this errs towards many.
_ROWS = """SELECT greatest(c.reltuples::bigint, pg_catalog.pg_stat_get_live_tuples(c.oid),
                           CASE WHEN c.reltuples <= 0 THEN pg_catalog.pg_relation_size(c.oid) / 100 END)
   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2"""

# A plain column that is compared as text although it is varchar: PostgreSQL looks through that cast.
_VARCHAR = """SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3
        AND a.atttypid IN ('varchar'::regtype, 'text'::regtype))"""

_CHANGING = """SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p
   WHERE p.proname = ANY ($1::text[]) AND p.provolatile <> 'i'"""

_INDEXED = """SELECT pg_catalog.pg_get_indexdef(i.indexrelid, 1, false) FROM pg_catalog.pg_index i
   JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2 AND i.indisvalid AND i.indpred IS NULL"""


# mailmaps.fold() as the planner writes it out; views compare it under COLLATE "C", which EXPLAIN leaves out.
_FOLDED = re.compile(
    r"CASE WHEN \(octet_length\((.+)\) = char_length\(\1\)\) THEN .* ELSE mailmaps\.fold_unicode.*"
)


async def _rows(connection: Connection, schema: str, relation: str) -> int:
    return int(await connection.fetchval(_ROWS, schema, relation) or 0)


async def _scan(connection: Connection, node: dict[str, Any], conditions: Sequence[str], rows: int) -> Scan:
    schema, relation, alias = node["Schema"], node["Relation Name"], node["Alias"]
    name = f"{_identifier(schema)}.{_identifier(relation)}"
    wanted = _wanted(conditions, alias)
    if not wanted:
        why = "no index can help: as it is written it compares no column of the table with the key"
        return Scan(name, rows, (), why)
    statements, why = [], ""
    indexed = set(await _first_columns(connection, schema, relation))
    for one in wanted:
        column = without_alias(one.column, alias)
        if SENTINEL in column or await _changing(connection, column):
            why = f"no index can help: the query compares ({column}), which is no value of the row alone"
            continue
        column = await _plain(connection, schema, relation, column)
        if one.operator == "=" and column in indexed:
            why = f"ANALYZE {name}, which has an index on {column} that was not used"
            continue
        classes = " text_pattern_ops" if one.operator == "~~" else ""
        statements.append(f"CREATE INDEX CONCURRENTLY ON {name} ({column}{classes})")
    return Scan(name, rows, tuple(dict.fromkeys(statements)), why)


def _wanted(conditions: Sequence[str], alias: str) -> list[Comparison]:
    """What to find rows by: what is compared with the key, if anything is, else with another table."""
    for condition in conditions:
        found = comparisons(condition, alias)
        asked = [one for one in found if SENTINEL in one.other or "$" in one.other]
        joined = [one for one in found if re.search(r"[\w\"]\.[\w\"]", one.other)]
        if some := asked or joined:
            return some if has_or(condition) else some[:1]
    return []


async def _first_columns(connection: Connection, schema: str, relation: str) -> list[str]:
    return [str(row[0]) for row in await connection.fetch(_INDEXED, schema, relation)]


async def _changing(connection: Connection, expression: str) -> bool:
    """Whether it calls what is not IMMUTABLE, which an index may not hold."""
    names = re.findall(r"([a-z_][\w$]*)\(", expression)
    return bool(await connection.fetch(_CHANGING, names)) if names else False


async def _plain(connection: Connection, schema: str, relation: str, expression: str) -> str:
    """A column without the cast that an index does not need; any other expression in parentheses."""
    if folded := _FOLDED.fullmatch(expression):
        return f'(mailmaps.fold({folded[1]}) COLLATE "C")'
    cast = re.fullmatch(r"\(?(\"(?:[^\"]|\"\")+\"|[a-z_][\w$]*)\)?(::text)?", expression)
    if cast is None:
        return expression if is_call(expression) else f"({expression})"
    column = cast[1].strip('"').replace('""', '"') if cast[1].startswith('"') else cast[1]
    if cast[2] and not await connection.fetchval(_VARCHAR, schema, relation, column):
        return f"({expression})"
    return cast[1]


def _identifier(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
