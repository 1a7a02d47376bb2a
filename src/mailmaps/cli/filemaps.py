"""mailmaps filemaps: the files that Postfix reads itself."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from mailmaps import service_manager
from mailmaps.cli.options import (
    EX_CONFIG,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Failure,
    config_option,
    read_settings,
)
from mailmaps.cli.service import ServiceCommand
from mailmaps.config import Settings
from mailmaps.filemaps.fileset import FileSet
from mailmaps.filemaps.folder import AlreadyFollowed, FolderError, ask_to_force, following
from mailmaps.filemaps.once import Failed, Result, bring_up
from mailmaps.filemaps.service import Service
from mailmaps.filemaps.targets import FileTable, listable, why_not
from mailmaps.logs import events
from mailmaps.logs.output import log_to_stderr

# Something is not in the files as the database has it, and has been named.
NAMED = 1

# More would have vanished than may at once (sysexits.h: EX_DATAERR).
WITHHELD = 65


@click.command(cls=ServiceCommand)
@config_option
@click.option("--follow", is_flag=True, help="Go on, and have the files follow every change.")
@click.option("--force", is_flag=True, help="Whatever would vanish, however much it is.")
@click.pass_context
def filemaps(context: click.Context, config: Path, follow: bool, force: bool) -> None:
    """Write the tables as files that Postfix reads itself, below filemaps.directory.

    Exit code: 0 all is in the files, 1 all but the keys that are named, 65 nothing was removed because it
    would have been too much (see filemaps.most_removed), 75 the files stay as they were; why is said.
    """
    settings = read_settings(config)
    tables = _tables(settings)
    try:
        with following(Path(settings.filemaps.directory)):
            files = FileSet(settings, tables)
            if follow:
                _follow(settings, tables, files, force=force)
                return
            result = asyncio.run(bring_up(settings, tables, files, force=force))
    except AlreadyFollowed:
        if not force or follow:
            raise Failure("a `mailmaps filemaps --follow` is running there already", EX_UNAVAILABLE) from None
        ask_to_force(Path(settings.filemaps.directory))
        click.echo("the running `mailmaps filemaps --follow` has been told to")
        return
    except FolderError as error:
        raise Failure(str(error), EX_CONFIG) from None
    except Failed as error:
        raise Failure(str(error), EX_TEMPFAIL) from None
    except OSError as error:
        raise Failure(f"{error.filename or 'filemaps'}: {error.strerror}", EX_TEMPFAIL) from None
    context.exit(_report(result))


def _tables(settings: Settings) -> list[FileTable]:
    tables = listable(settings)
    for name in settings.tables:
        if why := why_not(settings, name):
            click.echo(f"{name}: no file: {why}", err=True)
    if not tables:
        raise Failure("no table can be a file", EX_CONFIG)
    return tables


def _follow(settings: Settings, tables: list[FileTable], files: FileSet, *, force: bool) -> None:
    log_to_stderr(settings.log.level)
    events("mailmaps").info("following", folder=files.folder)
    manager = service_manager.from_environment()
    uvloop.run(_until_told(Service(settings, tables, files, force=force), manager))


async def _until_told(service: Service, manager: service_manager.ServiceManager) -> None:
    """Run until SIGTERM or SIGINT. Ready from the beginning: a database that is away keeps nobody waiting."""
    task = asyncio.ensure_future(service.run())
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    manager.ready("the files follow the database")
    try:
        await task
    except asyncio.CancelledError:
        manager.stopping()


def _report(result: Result) -> int:
    for name, rows in result.rows.items():
        counts = (
            ("added", result.report.added),
            ("changed", result.report.changed),
            ("removed", result.report.removed),
        )
        said = [f"{count[name]} {word}" for word, count in counts if name in count]
        click.echo(f"{name}: {rows} rows" + (f" ({', '.join(said)})" if said else ""))
    if result.lingering:
        click.echo(f"{result.lingering} removed keys stay for mail that has been accepted")
    for named in result.named:
        click.echo(f"{named}", err=True)
    for excess in result.report.withheld:
        click.echo(f"{excess}; nothing was removed: look, and use --force", err=True)
    if result.report.withheld:
        return WITHHELD
    return NAMED if result.named else 0
