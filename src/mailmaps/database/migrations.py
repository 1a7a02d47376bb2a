"""Makes and upgrades our schemas: numbered SQL files, a transaction each, under an advisory lock.

`create` is for an empty database, `upgrade` for one made by the how-to or by an older mailmaps. Both
look for everything that could stand in the way before they begin, make `mailmaps` and then `mailpolicy`, and
end by writing the settings that the views need and by granting what our roles may read and write. `policy`
makes or upgrades `mailpolicy` alone, in any database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.database import dependents
from mailmaps.database.connect import reason
from mailmaps.database.preflight import (
    SchemaError,
    State,
    howto_problems,
    inactive_yet_served,
    read_state,
    server_problems,
)
from mailmaps.database.sql_files import (
    HOWTO_VERSION,
    MAIN,
    POLICY,
    WIDENED_VERSION,
    Migration,
    Series,
    migrations,
)

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

__all__ = ["Site", "Standing", "Status", "create", "migrations", "policy", "read_status", "upgrade"]

Report = Callable[[str], None]

_DEFAULT_OF_ACTIVE = """SELECT column_default FROM information_schema.columns
   WHERE table_schema = 'public' AND table_name = 'user_accounts' AND column_name = 'active'"""
# The advisory lock, for both schemas: "mailmaps" as a 64-bit number.
LOCK = int.from_bytes(b"mailmaps", "big")


@dataclass(frozen=True, slots=True)
class Site:
    """What the schema must know of mailmaps.toml; `honour_active` None means undecided.

    `login_realm`, `login_addresses`: how logins behind saslauthd are spelt to Postfix, as username@realm and
    by address (`mailmaps.database.login_checks.spellings`). `sender_rules_off`: the rules of [senders] that
    are off, by their letters (schema/0012_sender_rights.sql).
    """

    honour_active: bool | None = None
    recipient_delimiter: str = ""
    owner_request_special: bool = True
    double_bounce_sender: str = "double-bounce"
    login_realm: str = ""
    login_addresses: bool = False
    sender_rules_off: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a series is in a database: 0 before any file, `pending` are the files to come."""

    series: Series
    version: int
    pending: list[Migration]


@dataclass(frozen=True, slots=True)
class Status:
    """What a database holds; `version` and `pending` are those of the main series."""

    state: State
    main: Standing
    policy: Standing

    @property
    def version(self) -> int:
        return self.main.version

    @property
    def pending(self) -> list[Migration]:
        return self.main.pending


async def read_status(connection: Connection) -> Status:
    """Tell what the database holds. Raises `SchemaError`: half a how-to, a schema newer than we are."""
    async with _errors_named():
        state = await read_state(connection)
        main = await _read_standing(connection, MAIN, HOWTO_VERSION if state is State.HOWTO else 0)
        return Status(state, main, await _read_standing(connection, POLICY))


async def _read_standing(connection: Connection, series: Series, version: int = 0) -> Standing:
    """`version`: where no file was recorded. Raises `SchemaError` for a schema newer than we are."""
    table = f"{series.schema}.schema_version"
    if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
        version = await connection.fetchval(f"SELECT max(version) FROM {table}") or 0  # noqa: S608  # ours
    files = series.migrations()
    newest = files[-1].version if files else 0
    if version > newest:
        raise SchemaError(
            [
                f"the schema {series.schema} is of version {version}, this mailmaps knows {newest}: "
                "upgrade mailmaps"
            ]
        )
    return Standing(series, version, [one for one in files if one.version > version])


async def create(connection: Connection, site: Site, report: Report, *, dry_run: bool = False) -> None:
    """Make the schema in an empty database; `active` counts unless `site` says otherwise.

    Raises `SchemaError`, with nothing done.
    """
    async with _locked(connection):
        status = await read_status(connection)
        if status.state is not State.EMPTY:
            raise SchemaError([f"the database holds {status.state.value}: use `mailmaps schema upgrade`"])
        _raise_if(await server_problems(connection))
        await _apply_both(connection, status, report, dry_run=dry_run)
        if not dry_run:
            honour = True if site.honour_active is None else site.honour_active
            await _finish(connection, site, honour, report)


async def upgrade(connection: Connection, site: Site, report: Report, *, dry_run: bool = False) -> None:
    """Bring a how-to database or an older schema up to date, in place.

    Raises `SchemaError`, with nothing done: rows that the new constraints refuse, things on the tables
    that cannot be carried over, accounts that are inactive yet served while nobody has decided.
    """
    async with _locked(connection):
        status = await read_status(connection)
        if status.state is State.EMPTY:
            raise SchemaError(["the database holds no tables of ours: use `mailmaps schema create`"])
        problems = await server_problems(connection)
        if status.version < WIDENED_VERSION:
            problems += await howto_problems(connection)
        for migration in status.pending:
            problems += [
                f"{one} stands on {', '.join(migration.tables)} and cannot be carried over: "
                "drop it, upgrade, make it again"
                for one in await dependents.obstacles(connection, migration.tables)
            ]
        _raise_if(problems)
        honour = await _decide_active(connection, status, site)
        await _apply_both(connection, status, report, dry_run=dry_run)
        if not dry_run:
            await _finish(connection, site, honour, report)


async def _decide_active(connection: Connection, status: Status, site: Site) -> bool:
    """Whether `active` counts. Raises `SchemaError` while that would silently stop somebody's mail."""
    if site.honour_active is not None:
        return site.honour_active
    if await connection.fetchval("SELECT to_regclass('mailmaps.settings') IS NOT NULL"):
        decided: bool | None = await connection.fetchval("SELECT honour_active FROM mailmaps.settings")
        if decided is not None:
            return decided
    if served := await inactive_yet_served(connection):
        raise SchemaError(
            [
                *(f"user_accounts: {username} is inactive, yet gets mail today" for username in served),
                "set database.honour_active to true (they get no more mail) or false (nothing changes),"
                " or say --honour-active or --ignore-active; nothing was done",
            ]
        )
    return True


async def policy(connection: Connection, report: Report, *, dry_run: bool = False) -> None:
    """Make or upgrade `mailpolicy`, and nothing else, whatever the database holds.

    Raises `SchemaError`, with nothing done.
    """
    async with _locked(connection):
        standing = await _read_standing(connection, POLICY)
        _raise_if(await server_problems(connection))
        await _apply(connection, standing, report, dry_run=dry_run)
        if not dry_run:
            async with _errors_named("grants"), connection.transaction():
                await connection.execute(POLICY.grants())


async def _apply_both(connection: Connection, status: Status, report: Report, *, dry_run: bool) -> None:
    for standing in (status.main, status.policy):
        await _apply(connection, standing, report, dry_run=dry_run)


async def _apply(connection: Connection, standing: Standing, report: Report, *, dry_run: bool) -> None:
    series = standing.series
    if not standing.pending:
        report(f"the schema {series.schema} is up to date (version {standing.version})")
    for migration in standing.pending:
        label = series.label(migration)
        if dry_run:
            report(f"would apply {label}")
            if standing.version:  # else there are no tables yet
                for view in await dependents.save(connection, migration.tables):
                    report(f"   would drop the view {view.name} and make it again")
            continue
        async with _errors_named(label), connection.transaction():
            await _apply_one(connection, series, migration)
        report(f"applied {label}")


async def _apply_one(connection: Connection, series: Series, migration: Migration) -> None:
    await connection.execute(f"SET LOCAL search_path = {series.search_path}, pg_temp")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {series.schema}")
    await connection.execute(
        f"""CREATE TABLE IF NOT EXISTS {series.schema}.schema_version (
              version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"""
    )
    if series is MAIN and migration.version == HOWTO_VERSION + 1:  # the how-to itself made the first
        await _record(connection, series, migrations()[0])
    views = await dependents.save(connection, migration.tables)
    await dependents.drop(connection, views)
    await connection.execute(migration.sql)
    await dependents.restore(connection, views)
    await _record(connection, series, migration)


async def _record(connection: Connection, series: Series, migration: Migration) -> None:
    await connection.execute(
        f"INSERT INTO {series.schema}.schema_version (version, name) VALUES ($1, $2)"  # noqa: S608  # ours
        " ON CONFLICT DO NOTHING",
        migration.version,
        migration.name,
    )


async def _finish(connection: Connection, site: Site, honour: bool, report: Report) -> None:
    """Write the settings that the views read, and grant what our roles may read and write."""
    async with _errors_named("settings and grants"), connection.transaction():
        await connection.execute(
            """UPDATE mailmaps.settings SET honour_active = $1, recipient_delimiter = $2,
                      owner_request_special = $3, double_bounce_sender = $4, login_realm = $5,
                      login_addresses = $6, sender_rules_off = $7""",
            honour,
            site.recipient_delimiter,
            site.owner_request_special,
            site.double_bounce_sender,
            site.login_realm,
            site.login_addresses,
            site.sender_rules_off,
        )
        for series in (MAIN, POLICY):
            await connection.execute(series.grants())
    report(f"active is {'honoured' if honour else 'ignored'}")
    if honour and "'0'" in (await connection.fetchval(_DEFAULT_OF_ACTIVE) or ""):
        report("note: an INSERT that leaves active out makes an inactive account (its default is '0')")


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise SchemaError([*problems, "nothing was done"])


@asynccontextmanager
async def _locked(connection: Connection) -> AsyncIterator[None]:
    """Hold the advisory lock, so that two upgrades do not meet."""
    async with _errors_named():
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        async with _errors_named():
            yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


@asynccontextmanager
async def _errors_named(where: str = "") -> AsyncIterator[None]:
    """Turn what PostgreSQL says into `SchemaError`."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise SchemaError([f"{where}: {reason(error)}" if where else reason(error)]) from error
