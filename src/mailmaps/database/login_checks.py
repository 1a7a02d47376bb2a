"""The logins' part of `mailmaps check`: may we read what logins need, and may nobody else of ours?

Two roles, so that a lookup's connection never sees a password hash: `database.dsn` asks for tables,
`database.auth_dsn` for logins. A view of a site's own needs `login` (folded), `username` and `password`;
what else `mailmaps.logins` has may be left out (docs/schema.md).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.auth import pam
from mailmaps.config.load import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.connect import ConnectError, auth_database, connect, reason
from mailmaps.database.inspect import SAMPLE, UPGRADE
from mailmaps.database.logins import needed_columns
from mailmaps.database.plans import scan_findings, scans_of_view
from mailmaps.database.rights import excess_findings
from mailmaps.database.views import quote_name
from mailmaps.findings import Finding, Level
from mailmaps.maps.address import fold
from mailmaps.maps.sources import view_of

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# A login that nobody has: RFC 2606 reserves .invalid. The query is planned and run all the same.
PROBE = "mailmaps-check@mailmaps-check.invalid"

# Not to_regclass(): that fails for a role without rights on the schema.
_COLUMNS = """SELECT a.attname, a.attrelid
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped"""

# Who asks, where it can read the view's hashes and not those of user_accounts, which `inspect` names.
_READER = """SELECT quote_ident(current_user)
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2
     AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
     AND NOT EXISTS (
        SELECT FROM pg_class u JOIN pg_namespace p ON p.oid = u.relnamespace AND p.nspname = 'public'
        JOIN pg_attribute a ON a.attrelid = u.oid AND a.attname = 'password'
        WHERE u.relname = 'user_accounts' AND has_column_privilege(u.oid, a.attnum, 'SELECT'))"""


def spellings(settings: Settings) -> tuple[str, bool]:
    """How logins are spelt to Postfix beside the username: the realm, and whether by address.

    Cyrus SASL, which asks saslauthd, gives Postfix what the user typed; Dovecot's protocol the username.
    """
    if not settings.saslauthd.unix:
        return "", False
    return settings.auth.realm, "address" in settings.auth.names


async def login_findings(settings: Settings) -> list[Finding]:
    """Connect as logins do and try what they ask; nothing where no door is open."""
    if not settings.has_logins:
        return []
    subject = "database.auth_dsn" if settings.database.auth_dsn else "database.dsn"
    try:
        connection = await connect(auth_database(settings.database), for_lookups=True)
    except (ConnectError, SettingsError) as error:
        remedy = "is it up, and are dsn and password right? (docs/schema.md, Roles)"
        return [Finding(Level.ERROR, subject, str(error), remedy)]
    try:
        asked = await _source_finding(connection, settings)
        scans = await _scan_findings(connection, settings) if asked.level is Level.OK else []
        excess = await excess_findings(connection, subject) if settings.database.auth_dsn else []
        return [*_pam_findings(settings), asked, *scans, *excess]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.ERROR, "auth.source", reason(error))]
    finally:
        with suppress(OSError, asyncpg.InterfaceError):  # it is of no use any more either way
            await connection.close(timeout=settings.database.connect_timeout)


def _pam_findings(settings: Settings) -> list[Finding]:
    if settings.auth.backend != "pam":
        return []
    try:
        pam.check_service(settings.auth.pam_service)
    except pam.PamError as error:
        remedy = "PAM would ask its service `other`, and the daemon does not start"
        return [Finding(Level.ERROR, "auth.pam_service", str(error).partition(": ")[2], remedy)]
    return [Finding(Level.OK, "auth.pam_service", "PAM has it")]


async def _scan_findings(connection: Connection, settings: Settings) -> list[Finding]:
    view = quote_name(view_of("logins", settings.auth.source))
    question = f"SELECT * FROM {view} WHERE login = ANY($1::text[])"  # noqa: S608  # quoted
    scans = await scans_of_view(connection, question)
    return scan_findings([(f"auth.source {settings.auth.source}", scan) for scan in scans])


async def _source_finding(connection: Connection, settings: Settings) -> Finding:
    source = settings.auth.source
    view = view_of("logins", source)
    subject = f"auth.source {source}"
    columns = {row["attname"] for row in await connection.fetch(_COLUMNS, *view.split("."))}
    needed = needed_columns(settings.auth.backend)
    missing = [name for name in needed if name not in columns]
    if missing:
        text = f"{view} has no column {', '.join(missing)}" if columns else f"there is no view {view}"
        remedy = UPGRADE if source == "builtin" else "docs/schema.md has the columns"
        return Finding(Level.ERROR, subject, text, remedy)
    query = f"SELECT {', '.join(needed)} FROM {quote_name(view)}"  # noqa: S608  # our own names, and quoted
    try:
        await connection.fetch(f"{query} WHERE login = ANY($1::text[])", [PROBE])
    except asyncpg.InsufficientPrivilegeError as error:
        return Finding(Level.ERROR, subject, reason(error), await _grant(connection, view, source))
    if source == "builtin":
        return Finding(Level.OK, subject, "can be asked")
    sample = await connection.fetch(f"SELECT login::text FROM {quote_name(view)} LIMIT {SAMPLE}")  # noqa: S608  # quoted
    if unfolded := [row["login"] for row in sample if row["login"] and fold(row["login"]) != row["login"]]:
        text = f'its login "{unfolded[0]}" is not case-folded, so nobody finds it'
        return Finding(Level.ERROR, subject, text, "select mailmaps.fold(...) or lower(...) AS login")
    return Finding(Level.OK, subject, "can be asked")


async def _grant(connection: Connection, view: str, source: str) -> str:
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    if source == "builtin" and role == "mailauth":
        return UPGRADE
    schema = quote_name(view.partition(".")[0])
    return f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {quote_name(view)} TO {role}"


async def lookup_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """What the connection for lookups tells: the views' copy of the settings, and who can read hashes."""
    try:
        return [*await _spelling_findings(connection, settings), *await _hash_findings(connection, settings)]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.ERROR, "logins", reason(error))]


async def _spelling_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """Of the builtin view alone; a schema of another version is named elsewhere."""
    if not any("builtin" in table.sources for table in settings.tables.values()):
        return []
    if not await connection.fetch(_COLUMNS, "mailmaps", "settings"):
        return []
    row = await connection.fetchrow("SELECT * FROM mailmaps.settings")
    realm, addresses = spellings(settings)
    findings = []
    for setting, column, ours in (
        ("auth.realm", "login_realm", realm),
        ("auth.names", "login_addresses", addresses),
    ):
        if row is not None and row.get(column, ours) != ours:
            text = f"the owners of sender addresses have {column} {row[column]!r}, the settings mean {ours!r}"
            findings.append(Finding(Level.ERROR, setting, text, UPGRADE))
    return findings


async def _hash_findings(connection: Connection, settings: Settings) -> list[Finding]:
    """Lookups need no hash where logins have a role of their own: the settings say so, and it is not so."""
    if not settings.database.auth_dsn:
        return []
    view = view_of("logins", settings.auth.source)
    role = await connection.fetchval(_READER, *view.split("."))
    if role is None:
        return []
    text = f"the role {role}, which only looks up tables, can read the password hashes"
    remedy = f"REVOKE SELECT ON {quote_name(view)} FROM {role}, PUBLIC"  # noqa: S608  # for a person to run
    return [Finding(Level.ERROR, view, text, remedy)]
