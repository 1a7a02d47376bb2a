"""mailmaps schema: make the tables and views, or bring those of the how-to up to date; watch a site's own.

`policy` makes what the policy service keeps, in a schema of its own and in any database. The daemon's roles
must not own tables, so these commands take the owner's DSN: `--dsn`, else the one of the settings. Exit code
2: something is in the way, all of it is named, nothing was done (`watch`: nothing of that, all else).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import uvloop

from mailmaps.cli.options import Failure, config_option, read_settings
from mailmaps.config import Settings, SettingsError
from mailmaps.config.load import DEFAULT_PATH
from mailmaps.database import migrations, watches
from mailmaps.database.connect import ConnectError, connect
from mailmaps.database.inspect import rules_off
from mailmaps.database.login_checks import spellings
from mailmaps.database.preflight import SchemaError, State
from mailmaps.database.sql_files import MAIN, POLICY

IN_THE_WAY = 2
# Exit codes of `status`.
UP_TO_DATE, BEHIND = 0, 1


@click.group()
def schema() -> None:
    """Make, upgrade and show the database's schema."""


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    dsn = click.option("--dsn", metavar="DSN", help="Connect there, as the owner of the tables.")
    return config_option(dsn(function))


def _dry_run(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)


def _writing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    active = click.option(
        "--honour-active/--ignore-active",
        default=None,
        help="Whether user_accounts.active = '0' stops mail; overrides database.honour_active.",
    )
    return _options(active(_dry_run(function)))


@schema.command()
@_writing_options
def create(config: Path, dsn: str | None, honour_active: bool | None, dry_run: bool) -> None:
    """Make the schema in an empty database."""
    _write(migrations.create, config, dsn, honour_active, dry_run=dry_run)


@schema.command()
@_writing_options
def upgrade(config: Path, dsn: str | None, honour_active: bool | None, dry_run: bool) -> None:
    """Upgrade a database made by the how-to, or by an older mailmaps, in place."""
    _write(migrations.upgrade, config, dsn, honour_active, dry_run=dry_run)


@schema.command()
@_options
@_dry_run
def policy(config: Path, dsn: str | None, dry_run: bool) -> None:
    """Make or upgrade the schema of the policy service alone.

    Any database takes it, also one with a site's own tables; nothing else there is touched.
    """
    _ask(config, dsn, lambda connection, _: migrations.policy(connection, click.echo, dry_run=dry_run))


@schema.command()
@_options
@click.pass_context
def status(context: click.Context, config: Path, dsn: str | None) -> None:
    """Say what the database holds. Exit code 1 when files are pending.

    A database that has the policy service's schema alone wants no others.
    """
    found: migrations.Status = _ask(config, dsn, lambda connection, _: migrations.read_status(connection))
    click.echo(f"the database holds {found.state.value}, version {found.version}")
    click.echo(f"the schema {found.policy.series.schema} is of version {found.policy.version}")
    alone = found.state is State.EMPTY and found.policy.version > 0
    standings = [found.policy] if alone else [found.main, found.policy]
    pending = [standing.series.label(one) for standing in standings for one in standing.pending]
    for label in pending:
        click.echo(f"pending: {label}")
    context.exit(BEHIND if pending else UP_TO_DATE)


@schema.command()
@click.argument("version", type=int, required=False)
@click.option("--policy", "of_policy", is_flag=True, help="That of the policy service.")
def show(version: int | None, of_policy: bool) -> None:
    """Print the SQL, of all files or of one VERSION."""
    series = POLICY if of_policy else MAIN
    found = [one for one in series.migrations() if version in (None, one.version)]
    if not found:
        raise Failure(f"there is no version {version}", IN_THE_WAY)
    for migration in found:
        click.echo(f"-- {migration.version:04}_{migration.name}.sql\n{migration.sql}")


@schema.command()
@_options
@_dry_run
def watch(config: Path, dsn: str | None, dry_run: bool) -> None:
    """Have changes of your own tables notified.

    Puts triggers on the tables under the settings' views and on those that depends_on names. Exit code 2:
    something cannot be watched.
    """
    problems = _ask(
        config,
        dsn,
        lambda connection, settings: watches.watch(connection, settings, click.echo, dry_run=dry_run),
    )
    if problems:
        raise Failure("\n".join(problems), IN_THE_WAY)


def _write(
    step: Callable[..., Awaitable[None]],
    config: Path,
    dsn: str | None,
    honour_active: bool | None,
    *,
    dry_run: bool,
) -> None:
    _ask(
        config,
        dsn,
        lambda connection, settings: step(
            connection, site(settings, honour_active), click.echo, dry_run=dry_run
        ),
    )


def site(settings: Settings, honour_active: bool | None = None) -> migrations.Site:
    """What the schema needs of the settings; `honour_active` not None overrides them."""
    realm, addresses = spellings(settings)
    return migrations.Site(
        honour_active=settings.database.honour_active if honour_active is None else honour_active,
        recipient_delimiter=settings.postfix.recipient_delimiter,
        owner_request_special=settings.postfix.owner_request_special,
        double_bounce_sender=settings.postfix.double_bounce_sender,
        login_realm=realm,
        login_addresses=addresses,
        sender_rules_off=rules_off(settings),
    )


def _ask(config: Path, dsn: str | None, work: Callable[[Any, Settings], Awaitable[Any]]) -> Any:
    """Connect, do the work, and turn what went wrong into an exit code."""
    settings = _settings(config, dsn)

    async def connected() -> Any:
        connection = await connect(settings.database, dsn)
        try:
            return await work(connection, settings)
        finally:
            await connection.close(timeout=settings.database.connect_timeout)

    try:
        return uvloop.run(connected())
    except (SchemaError, ConnectError, SettingsError) as error:
        raise Failure(str(error), IN_THE_WAY) from None


def _settings(config: Path, dsn: str | None) -> Settings:
    """The settings; their defaults where a DSN is given and no file is there."""
    if dsn is not None and config == DEFAULT_PATH and not config.exists():
        return Settings()
    return read_settings(config)
