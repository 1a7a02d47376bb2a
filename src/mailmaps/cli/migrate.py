"""mailmaps migrate: from a Postfix with `pgsql:` tables to one that asks mailmaps, on paper."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import click

from mailmaps.cli.options import Failure
from mailmaps.config import SettingsError, parse
from mailmaps.config.settings import Postfix
from mailmaps.migration import configuration, files, planner, rehearsal, report, settings_file, uses
from mailmaps.migration.files import CfFile
from mailmaps.migration.plan import Endpoints
from mailmaps.migration.rehearsal import RehearsalError
from mailmaps.postconf import PostconfError

MOVED, STAYS, ERRORS = 0, 1, 2


@click.command()
@click.option(
    "--config-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/etc/postfix"),
    show_default=True,
    help="Postfix's config_directory; nothing there is changed.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where to write; it must be empty or not there.",
)
@click.option("--map-type", type=click.Choice(["tcp", "socketmap"]), default="tcp", show_default=True)
@click.option(
    "--first-port",
    type=click.IntRange(1024, 65000),
    metavar="PORT",
    help="Give ports from here on.  [default: 17020 to socketmap, 17011-17017 and 17031 on to tcp]",
)
@click.pass_context
def migrate(
    context: click.Context, config_dir: Path, out: Path, map_type: str, first_port: int | None
) -> None:
    """Write what moves this site's `pgsql:` tables to mailmaps, and the way back.

    DIR gets MIGRATION.md, which says for each table what becomes of it and why; mailmaps.toml; the lines
    of main.cf before and after; and switch.sh and back.sh. Exit code: 0 everything moves, 1 something
    stays or could not be taken over, 2 something is wrong.
    """
    if out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty; nothing was written", ERRORS)
    try:
        migration = _migration(config_dir, Endpoints(map_type, first_port or 0))
        parse(migration.settings, "the new mailmaps.toml")
    except (PostconfError, RehearsalError, SettingsError, OSError) as error:
        raise Failure(f"{error}; nothing was written", ERRORS) from None
    if not migration.plan.fates:
        raise Failure(f"nothing in {config_dir} asks pgsql:, so there is nothing to move", ERRORS)
    out.mkdir(parents=True, exist_ok=True)
    written = report.write(migration, out)
    _tell(migration, written)
    context.exit(_exit_code(migration))


def _migration(config_dir: Path, endpoints: Endpoints) -> report.Migration:
    site = configuration.read(config_dir)
    postfix = Postfix(mail_version=site.version, config_directory=str(site.directory))

    @cache
    def inspect(source: str) -> CfFile:
        return files.inspect(source, postfix)

    made = planner.make(site, uses.find(site), inspect, endpoints)
    rehearsal.rehearse(site, made)
    settings, notes = settings_file.text(site, made.tables, endpoints)
    sources = dict.fromkeys(source for table in made.tables for source in table.sources)
    return report.Migration(
        site,
        made,
        endpoints,
        settings,
        notes,
        [inspect(source) for source in sources],
        uses.unsupported(site),
    )


def _exit_code(migration: report.Migration) -> int:
    if any(fate.broken for fate in migration.plan.fates):
        return ERRORS
    stays = migration.plan.staying or migration.plan.kept or migration.unsupported or migration.notes
    return STAYS if stays else MOVED


def _tell(migration: report.Migration, written: list[Path]) -> None:
    for fate in migration.plan.moved:
        assert fate.table is not None  # that is what moved means
        where = migration.endpoints.of(fate.table)
        click.echo(f"{click.style('moves', fg='green')}  {fate.use.place}: {where}")
    for fate in migration.plan.staying:
        word = click.style("wrong", fg="red") if fate.broken else click.style("stays", fg="yellow")
        click.echo(f"{word}  {fate.use.place}: {fate.why}")
    stays = click.style("stays", fg="yellow")
    for change in migration.plan.kept:
        click.echo(f"{stays}  master.cf {change.service} -o {change.parameter}: {change.why}")
    for line in migration.unsupported:
        click.echo(f"{stays}  {line}: not PostgreSQL")
    for note in migration.notes:
        click.echo(f"{click.style('note', fg='yellow')}   {note}")
    click.echo(f"Read {written[0]} first; nothing has been changed yet.")
