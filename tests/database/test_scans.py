"""Big tables that a query reads whole are named, and the index that is named mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests import cf_site
from tests.conftest import Database
from tests.database.test_plans import LOAD
from tests.system.sites import Site, iredmail, postfixadmin

from mailmaps.cf_checks import cf_findings
from mailmaps.config import Settings, parse
from mailmaps.database.checks import database_findings
from mailmaps.database.conditions import comparisons, has_or, without_alias
from mailmaps.findings import Finding

ROWS = 30_000

POSTFIXADMIN = f"""
INSERT INTO domain SELECT 'dom' || i || '.test', 'virtual' FROM generate_series(1, 100) i;
INSERT INTO mailbox SELECT 'u' || i || '@dom' || 1 + i % 100 || '.test', 'm' || i, 0,
      'dom' || 1 + i % 100 || '.test'
   FROM generate_series(1, {ROWS}) i;
INSERT INTO alias SELECT username, username, domain FROM mailbox;
INSERT INTO alias_domain SELECT 'dom' || i || '.test', 'dom' || i + 1 || '.test'
   FROM generate_series(1, 20) i;
"""

IREDMAIL = f"""
INSERT INTO domain SELECT 'dom' || i || '.test' FROM generate_series(1, 100) i;
INSERT INTO mailbox (username, domain)
   SELECT 'u' || i || '@dom' || 1 + i % 100 || '.test', 'dom' || 1 + i % 100 || '.test'
   FROM generate_series(1, {ROWS}) i;
INSERT INTO forwardings (address, forwarding, domain) SELECT username, username, domain FROM mailbox;
INSERT INTO alias_domain SELECT 'other' || i || '.test', 'dom' || i || '.test' FROM generate_series(1, 20) i;
"""


def slow(findings: list[Finding]) -> list[tuple[str, str]]:
    """What reads which table whole, and the remedy."""
    return [
        (re.sub(r"reads all of (.*) \(about .* rows\) for each lookup", r"\1", one.text), one.remedy)
        for one in findings
        if "reads all of" in one.text
    ]


def files(folder: Path, database: Database, queries: dict[str, str]) -> Settings:
    """Settings with a table of one source for each query."""
    tables = {
        f"t{number}": [cf_site.write(folder, name, f"{cf_site.login(database.dsn)}{text}\n")]
        for number, (name, text) in enumerate(queries.items())
    }
    return cf_site.settings(tables)


def site_files(folder: Path, database: Database, site: Site) -> Settings:
    """All files of a site."""
    texts = {
        name: "\n".join(line for line in text.splitlines() if "query" in line and not line.startswith("#"))
        for name, text in site.files.items()
    }
    return files(folder, database, texts)


@pytest.mark.parametrize(
    ("site", "schema", "rows"),
    [
        (postfixadmin.SITE, postfixadmin.SCHEMA, POSTFIXADMIN),
        (iredmail.SITE, iredmail.SCHEMA, IREDMAIL),
    ],
    ids=["postfixadmin", "iredmail"],
)
async def test_what_sites_forget_is_named_and_mended(
    empty_database: Database, tmp_path: Path, site: Site, schema: str, rows: str
) -> None:
    connection = empty_database.connection
    await connection.execute(schema + rows + "ANALYZE")
    settings = site_files(tmp_path, empty_database, site)
    assert slow(await cf_findings(settings, [])) == [], "the project's own schema has what its queries need"
    keys = await connection.fetch(
        """SELECT conrelid::regclass::text AS relation, conname AS name FROM pg_constraint
           WHERE contype IN ('p', 'u') AND conrelid IN ('mailbox'::regclass, to_regclass('forwardings'),
                                                        to_regclass('alias'))"""
    )
    for key in keys:
        await connection.execute(f"ALTER TABLE {key['relation']} DROP CONSTRAINT {key['name']} CASCADE")
    for _ in range(3):
        found = slow(await cf_findings(settings, []))
        for _, remedy in found:
            for statement in remedy.split("; "):
                assert statement.startswith("CREATE INDEX CONCURRENTLY ON public."), remedy
                await connection.execute(statement)
        await connection.execute("ANALYZE")
    assert slow(await cf_findings(settings, [])) == []


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("SELECT v FROM t WHERE k = '%s'", "(k)"),
        ("SELECT v FROM t WHERE lower(k) = '%s' AND active", "(lower((k)::text))"),
        ("SELECT v FROM t WHERE lower(c) = lower('%s')", "(lower(c))"),
        ("SELECT v FROM t WHERE 'mailmaps' <> v AND p || '@' || d = '%s'", "(((p || '@'::text) || d))"),
        ("SELECT v FROM t WHERE p = '%u' AND d = '%d'", "(p)"),
        ("SELECT v FROM t WHERE c LIKE '%s'", "(c text_pattern_ops)"),
        ("SELECT v FROM t WHERE (k = '%s' OR c = '%s') AND active", "(k); (c)"),
        ('SELECT v FROM "Odd Table" AS "o""t" WHERE "Odd Key" = \'%s\'', '("Odd Key")'),
        ("SELECT v FROM t WHERE fixed = '%s'", "((fixed)::text)"),
        ("SELECT t.v FROM few JOIN t ON t.c = few.v WHERE few.k = '%s'", "(c)"),
        ("SELECT v FROM t WHERE c IN (SELECT v FROM few WHERE k = '%s')", "(c)"),
    ],
)
async def test_an_index_that_is_missing(
    empty_database: Database, tmp_path: Path, query: str, remedy: str
) -> None:
    connection = empty_database.connection
    await connection.execute(
        f"""CREATE TABLE t (k varchar(200), c text, p text, d text, v text, fixed char(50), active boolean);
            INSERT INTO t SELECT 'k' || i, 'c' || i, 'p' || i, 'd' || i, 'v', 'f' || i, true
               FROM generate_series(1, {ROWS}) i;
            CREATE TABLE "Odd Table" AS SELECT k::text AS "Odd Key", v FROM t;
            CREATE TABLE few (k text, v text);
            INSERT INTO few VALUES ('a', 'c1');
            ANALYZE"""
    )
    settings = files(tmp_path, empty_database, {"one": f"query = {query}"})
    [(relation, found)] = slow(await cf_findings(settings, []))
    if not query.startswith("SELECT v FROM t WHERE fixed"):  # bpchar may be compared either way
        assert found.replace(f"CREATE INDEX CONCURRENTLY ON {relation} ", "") == remedy
    for statement in found.split("; "):
        await connection.execute(statement)
    await connection.execute("ANALYZE")
    assert slow(await cf_findings(settings, [])) == []


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT v FROM t WHERE k ILIKE '%s'", "compares no column of the table with the key"),
        ("SELECT v FROM t WHERE concat(k, '') = '%s'", "which is no value of the row alone"),
        ("SELECT v FROM t", "compares no column of the table with the key"),
    ],
)
async def test_where_no_index_helps_that_is_said(
    empty_database: Database, tmp_path: Path, query: str, why: str
) -> None:
    await empty_database.connection.execute(
        f"CREATE TABLE t AS SELECT 'k' || i AS k, 'v' AS v FROM generate_series(1, {ROWS}) i; ANALYZE"
    )
    [(_, remedy)] = slow(await cf_findings(files(tmp_path, empty_database, {"one": f"query = {query}"}), []))
    assert why in remedy


async def test_of_few_rows_nothing_is_said(empty_database: Database, tmp_path: Path) -> None:
    await empty_database.connection.execute(
        "CREATE TABLE t AS SELECT 'k' || i AS k, 'v' AS v FROM generate_series(1, 1000) i"
    )
    settings = files(tmp_path, empty_database, {"one": "query = SELECT v FROM t WHERE k = '%s'"})
    assert slow(await cf_findings(settings, [])) == []


async def test_an_index_that_statistics_hide(empty_database: Database, tmp_path: Path) -> None:
    """The planner believes that the table is of few rows."""
    connection = empty_database.connection
    await connection.execute(
        f"""CREATE TABLE t (k text, v text); CREATE INDEX ON t (k);
            ALTER TABLE t SET (autovacuum_enabled = off);
            ANALYZE t; INSERT INTO t SELECT 'k' || i, 'v' FROM generate_series(1, {ROWS}) i;
            SET enable_indexscan = off"""
    )
    settings = files(tmp_path, empty_database, {"one": "query = SELECT v FROM t WHERE k = '%s'"})
    assert slow(await cf_findings(settings, [])) == []
    await connection.execute(f"ALTER DATABASE {empty_database.name} SET enable_indexscan = off")
    await connection.execute(f"ALTER DATABASE {empty_database.name} SET enable_bitmapscan = off")
    [(_, remedy)] = slow(await cf_findings(settings, []))
    assert remedy == "ANALYZE public.t, which has an index on k that was not used"


def view_settings(database: Database, more: str = "") -> Settings:
    start, _, rest = more.partition("\n") if more.startswith("builtin") else ("", "", more)
    postfix = '[postfix]\nrecipient_delimiter = "+"'
    return parse(f'{start}\n{postfix}\n[database]\ndsn = "{database.dsn}"\n{rest}')


async def test_our_own_schema_reads_no_big_table(database: Database) -> None:
    """40,000 domains, 100,000 accounts; logins too."""
    connection = database.connection
    await connection.execute(LOAD)
    login = '[login]\nunix = "/run/x"\n'
    assert slow(await database_findings(view_settings(database, login))) == []
    await connection.execute("DROP INDEX user_addresses_folded")
    found = slow(await database_findings(view_settings(database, login)))
    for _, remedy in found:
        await connection.execute(remedy)
    await connection.execute("ANALYZE")
    assert slow(await database_findings(view_settings(database, login))) == []


async def test_a_view_of_the_sites_own(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(postfixadmin.SCHEMA + POSTFIXADMIN)
    await connection.execute(
        """CREATE VIEW aliases AS SELECT lower(address) AS key, goto AS value FROM alias WHERE active
           UNION ALL SELECT lower(username), username::text FROM mailbox;
           CREATE VIEW logins AS SELECT lower(username) AS login, username::text, maildir::text AS password
              FROM mailbox;
           ANALYZE"""
    )
    settings = view_settings(
        empty_database,
        'builtin_tables = false\n[tables.virtual_alias_maps]\nsources = ["view:public.aliases"]\n'
        '[auth]\nsource = "view:public.logins"\n[login]\nunix = "/run/x"\n',
    )
    found = slow(await database_findings(settings))
    assert found == [
        ("public.alias", "CREATE INDEX CONCURRENTLY ON public.alias (lower((address)::text))"),
        ("public.mailbox", "CREATE INDEX CONCURRENTLY ON public.mailbox (lower((username)::text))"),
        ("public.mailbox", "CREATE INDEX CONCURRENTLY ON public.mailbox (lower((username)::text))"),
    ], "the view of aliases names two tables, the view of logins one"
    for _, remedy in found[:2]:
        await connection.execute(remedy)
    await connection.execute("ANALYZE")
    assert slow(await database_findings(settings)) == []


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(m.k = 'x'::text)", ["m.k"]),
        ("((m.active AND (m.k = ' AND (m.c = '::text)) AND (m.c = ANY ($1)))", ["m.k", "m.c"]),
        ("(lower((m.k)::text) = 'it''s ('::text)", ["lower((m.k)::text)"]),
        ("('x'::text = m.k)", ["m.k"]),
        ("(a.k = m.k)", ["m.k"]),
        ("(m.k = m.c)", []),
        ("(mailmaps.fold(m.k) = ANY ($1))", ["mailmaps.fold(m.k)"]),
        ("((m.k)::text ~~ 'x%'::text)", ["(m.k)::text"]),
        ("(m.active = 1)", ["m.active"]),
        ("", []),
        ("(NOT m.gone)", []),
    ],
)
def test_conditions_are_read(condition: str, expected: list[str]) -> None:
    assert [one.column for one in comparisons(condition, "m")] == expected


def test_or_and_aliases() -> None:
    assert has_or("((m.k = 'x') OR (m.c = 'y'))")
    assert not has_or("(m.k = ' OR '::text)")
    assert without_alias("lower((m.k)::text)", "m") == "lower((k)::text)"
    assert without_alias("(m.k || 'm.k'::text)", "m").endswith("'::text)")
