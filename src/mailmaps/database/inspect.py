"""The schema's part of `mailmaps check`: does the database hold what the daemon's answers rest on?

Asked with the daemon's own connection, so it reads only what `mailreader` may read; rows of tables
closed to it come through the view `mailmaps.doubtful_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from mailmaps.config.settings import Settings
from mailmaps.database.connect import reason
from mailmaps.database.sql_files import migrations
from mailmaps.database.watching import Watch, read_relations, read_watches
from mailmaps.findings import Finding, Level
from mailmaps.maps.sources import view_of
from mailmaps.policy.ownership import LETTERS

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

UPGRADE = "mailmaps schema upgrade, with a --dsn of the tables' owner"
# Logins looked at in a view: enough to see a habit, cheap at any size.
SAMPLE = 1000
# Lines for one kind of doubt; the rest is counted.
LISTED = 20
# Milliseconds. `doubtful_rows` reads every address, about a second for 200,000.
PATIENCE = 120_000
_HASHES = "public.user_accounts"
# What the how-to's own uids.cf and gids.cf and other programs may still want to read.
_HARMLESS = "username, uid, gid, email, mailbox, quota, active"


async def schema_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """Return what is wrong with the schema, its settings, its views and its rows; OK lines included."""
    try:
        await connection.execute(f"SET statement_timeout = {PATIENCE}")
        findings = await _contract_findings(connection, settings)
        findings += await _watch_findings(connection, settings)
        if any("builtin" in table.sources for table in settings.tables.values()):
            findings += await _builtin_findings(connection, settings)
        return findings + await _hash_findings(connection, apart=bool(settings.database.auth_dsn))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.ERROR, "schema", reason(error))]


async def _builtin_findings(connection: Connection, settings: Settings) -> list[Finding]:
    newest = migrations()[-1].version
    if not await connection.fetchval(
        """SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'schema_version'
                          AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'mailmaps'))"""
    ):
        return [Finding(Level.ERROR, "schema", "is not there", "mailmaps schema create, or upgrade")]
    version = await connection.fetchval("SELECT max(version) FROM mailmaps.schema_version")
    if version != newest:
        text = f"is of version {version}, this mailmaps wants {newest}"
        return [Finding(Level.ERROR, "schema", text, UPGRADE if version < newest else "upgrade mailmaps")]
    return [
        Finding(Level.OK, "schema", f"is of version {version}"),
        *await _settings_findings(connection, settings),
        *await _row_findings(connection),
    ]


async def _settings_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """The views' own copy of our settings: a delimiter that drifted would call a live target dead."""
    row = await connection.fetchrow("SELECT * FROM mailmaps.settings")
    if row is None:
        return [Finding(Level.ERROR, "mailmaps.settings", "its one row is missing", UPGRADE)]
    findings = []
    for name in ("recipient_delimiter", "owner_request_special", "double_bounce_sender"):
        ours = getattr(settings.postfix, name)
        if row[name] != ours:
            text = f"is {row[name]!r} in the database, {ours!r} in the settings"
            findings.append(Finding(Level.ERROR, f"postfix.{name}", text, UPGRADE))
    theirs, ours_off = row.get("sender_rules_off", ""), rules_off(settings)
    if theirs != ours_off:
        text = f"the view smtpd_sender_login_maps has the rules {theirs!r} off, the settings {ours_off!r}"
        findings.append(Finding(Level.WARNING, "senders", text, UPGRADE))
    wanted = settings.database.honour_active
    if row["honour_active"] is None:
        text = "is not decided: inactive accounts get mail"
        remedy = "set it to true or false, then mailmaps schema upgrade"
        findings.append(Finding(Level.WARNING, "database.honour_active", text, remedy))
    elif wanted is not None and wanted != row["honour_active"]:
        text = f"is {row['honour_active']} in the database, {wanted} in the settings"
        findings.append(Finding(Level.WARNING, "database.honour_active", text, UPGRADE))
    return findings


def rules_off(settings: Settings) -> str:
    """The rules of [senders] that are off, by the letters that the schema has for them."""
    switches = settings.senders
    return "".join(letter for letter, name in LETTERS.items() if not getattr(switches, name))


async def _row_findings(connection: Connection) -> list[Finding]:
    rows = await connection.fetch(
        f"""SELECT subject, text, count(*) OVER (PARTITION BY subject) AS total, place
            FROM (SELECT *, row_number() OVER (PARTITION BY subject ORDER BY text COLLATE "C") AS place
                  FROM mailmaps.doubtful_rows) AS numbered
            ORDER BY subject, place LIMIT {10 * LISTED}"""  # noqa: S608  # a number of ours
    )
    findings = []
    for row in rows:
        if row["place"] <= LISTED:
            findings.append(Finding(Level.WARNING, row["subject"], row["text"]))
        elif row["place"] == LISTED + 1:
            text = f"and {row['total'] - LISTED} more, see the view mailmaps.doubtful_rows"
            findings.append(Finding(Level.WARNING, row["subject"], text))
    return findings


async def _contract_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """The site's own views; what ours hold against it is in `doubtful_rows`, by table and row."""
    findings = []
    for table, values in settings.tables.items():
        for source in values.sources:
            if source.startswith("view:"):
                findings += await _view_findings(connection, view_of(table, source))
    return findings


async def _view_findings(connection: Connection, view: str) -> list[Finding]:
    """Whether a view's columns are those of docs/schema.md; one that is missing is named elsewhere."""
    schema, _, name = view.partition(".")
    rows = await connection.fetch(
        """SELECT a.attname, a.atttypid::regtype::text AS type
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = $1 AND c.relname = $2 AND a.attname IN ('key', 'value') AND a.attnum > 0""",
        schema,
        name,
    )
    types = {row["attname"]: row["type"] for row in rows}
    return [
        Finding(Level.ERROR, view, f"its column {column} is of type {kind}, it must be text")
        for column, kind in types.items()
        if kind != "text"
    ]


async def _watch_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """Views and tables of which not every change is notified; of missing views others speak."""
    views = {
        view_of(table, source)
        for table, values in settings.tables.items()
        for source in values.sources
        if settings.mirror.enabled and not source.startswith("pgsql:")
    }
    watches = await read_watches(connection, sorted(views))
    findings = [_watch_finding(view, watch) for view, watch in watches.items() if watch.fingerprint]
    for table, values in settings.tables.items():
        watches = await read_relations(connection, values.depends_on)
        findings += [
            _watch_finding(f"tables.{table}.depends_on {name}", watch) for name, watch in watches.items()
        ]
    return [finding for finding in findings if finding is not None]


def _watch_finding(subject: str, watch: Watch) -> Finding | None:
    if not watch.problem:
        return None
    text, _, command = watch.problem.partition("; run ")
    remedy = f"{command.strip('`')}, with a --dsn of the tables' owner" if command else ""
    return Finding(Level.WARNING, subject, text, remedy)


async def _hash_findings(connection: Connection, *, apart: bool) -> list[Finding]:
    """Who of mailreader and the role we ask as can read password hashes.

    An error where logins have a role of their own (`apart`); without it somebody may still need them so.
    """
    rows = await connection.fetch(
        """SELECT r.rolname, quote_ident(r.rolname) AS quoted, r.rolsuper OR c.relowner = r.oid AS mighty
           FROM pg_roles r
           JOIN pg_class c ON c.relname = 'user_accounts'
           JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'password'
           WHERE r.rolname IN (current_user, 'mailreader')
             AND has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
           ORDER BY r.rolname"""
    )
    level = Level.ERROR if apart else Level.WARNING
    return [_hash_finding(level, row["rolname"], row["quoted"], mighty=row["mighty"]) for row in rows]


def _hash_finding(level: Level, role: str, quoted: str, *, mighty: bool) -> Finding:
    revoke = f"REVOKE SELECT ON {_HASHES} FROM {quoted}, PUBLIC"  # noqa: S608  # for a person to run
    grant = f"GRANT SELECT ({_HARMLESS}) ON {_HASHES} TO {quoted}"
    remedy = "let the daemon ask as mailreader (docs/schema.md)" if mighty else f"{revoke}; {grant}"
    return Finding(level, _HASHES, f"the role {role} can read the password hashes", remedy)
