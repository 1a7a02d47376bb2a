"""The database's part of `mailmaps check`: can we connect, and does every query of the daemon work?"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.config.load import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.connect import READING_SETTINGS, ConnectError, connect, connect_to_listen, reason
from mailmaps.database.inspect import schema_findings
from mailmaps.database.login_checks import login_findings, lookup_findings
from mailmaps.database.plans import scan_findings, scans_of_view
from mailmaps.database.rights import excess_findings
from mailmaps.database.views import fetch_rows, question_of
from mailmaps.findings import Finding, Level
from mailmaps.maps.sources import view_of

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# A key that nobody has: RFC 2606 reserves .invalid. The query is prepared, planned and run all the same.
PROBE = "mailmaps-check@mailmaps-check.invalid"


async def database_findings(settings: Settings) -> list[Finding]:
    """Connect as the daemon does and try everything it will ask of the settings' own database."""
    asked = [
        (name, source)
        for name, table in settings.tables.items()
        for source in table.sources
        if not source.startswith("pgsql:")
    ]
    findings = []
    if asked or any(table.depends_on for table in settings.tables.values()):
        findings = await _lookup_findings(settings, asked)
    return findings + await _listen_findings(settings) + await login_findings(settings)


async def _listen_findings(settings: Settings) -> list[Finding]:
    """Where changes are notified, if that is another place than `dsn`."""
    if not settings.database.listen_dsn:
        return []
    subject = "database.listen_dsn"
    try:
        connection = await connect_to_listen(settings.database, READING_SETTINGS)
    except (ConnectError, SettingsError) as error:
        return [Finding(Level.ERROR, subject, str(error), "is it up, and is the DSN right?")]
    try:
        if await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()"):
            text = "is a standby, and no standby takes LISTEN: no change is heard of"
            return [Finding(Level.ERROR, subject, text, "name the primary")]
        return [Finding(Level.OK, subject, "can be listened to")]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.ERROR, subject, reason(error))]
    finally:
        connection.terminate()


async def _lookup_findings(settings: Settings, asked: list[tuple[str, str]]) -> list[Finding]:
    try:
        connection = await connect(settings.database, for_lookups=True)
    except (ConnectError, SettingsError) as error:
        return [Finding(Level.ERROR, "database", str(error), "is it up, and are dsn and password right?")]
    try:
        version = await connection.fetchval("SHOW server_version")
        findings = [Finding(Level.OK, "database", f"PostgreSQL {version} answers")]
        findings += [await _query_finding(connection, name, source) for name, source in asked]
        findings += await _scan_findings(connection, asked)
        findings += await schema_findings(connection, settings)
        findings += await excess_findings(connection, "database.dsn")
        return findings + await lookup_findings(connection, settings)
    finally:
        with suppress(OSError, asyncpg.InterfaceError):  # it is of no use any more either way
            await connection.close(timeout=settings.database.connect_timeout)


async def _scan_findings(connection: Connection, asked: list[tuple[str, str]]) -> list[Finding]:
    """Big tables that a view reads whole; of a view that cannot be asked others have spoken."""
    found = []
    for table, source in asked:
        question = question_of(view_of(table, source))
        with suppress(asyncpg.PostgresError):
            scans = await scans_of_view(connection, question)
            # A view of ours that no index helps is ours to mend, not the postmaster's.
            scans = [scan for scan in scans if source != "builtin" or scan.mendable]
            found += [(f"tables.{table} {source}", scan) for scan in scans]
    return scan_findings(found)


async def _query_finding(connection: Connection, table: str, source: str) -> Finding:
    subject = f"tables.{table} {source}"
    try:
        await fetch_rows(connection, view_of(table, source), [PROBE], {})
    except asyncpg.PostgresError as error:
        remedy = "mailmaps schema status" if source == "builtin" else "does the view have key and value?"
        return Finding(Level.ERROR, subject, reason(error), remedy)
    return Finding(Level.OK, subject, "can be asked")
