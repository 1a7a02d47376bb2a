"""mailmaps demo: the whole thing on one's own machine, in the foreground."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from mailmaps.cli.options import EX_UNAVAILABLE, Failure
from mailmaps.config import Settings, SettingsError
from mailmaps.daemon import Daemon
from mailmaps.database.connect import ConnectError
from mailmaps.database.preflight import SchemaError
from mailmaps.demo.data import BIG_EXAMPLES, EXAMPLES, LOGIN, LOGIN_PASSWORD
from mailmaps.demo.postgres import EmbeddedPostgres, PostgresError
from mailmaps.demo.site import Site
from mailmaps.listeners import ListenError
from mailmaps.logs.output import log_to_stderr


@click.command()
@click.option("--accounts", type=click.IntRange(1, 5_000_000), help="Load that many accounts instead.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Where the data is kept between runs.",
)
@click.option("--port-shift", type=click.IntRange(-16000, 40000), default=0, help="Add this to every port.")
def demo(accounts: int | None, directory: Path, port_shift: int) -> None:
    """Start an embedded PostgreSQL with a small mail domain, and answer lookups from it."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with EmbeddedPostgres(directory / "postgres") as postgres:
            site = Site(directory, postgres, accounts, port_shift)
            settings = asyncio.run(_prepare(site, accounts))
            log_to_stderr("warning")
            daemon = Daemon(settings)
            daemon.bind()
            _introduce(site, settings, accounts)
            uvloop.run(daemon.serve())
    except (PostgresError, ListenError, SettingsError, SchemaError, ConnectError) as error:
        raise Failure(str(error), EX_UNAVAILABLE) from None


async def _prepare(site: Site, accounts: int | None) -> Settings:
    if accounts is None:
        return await site.prepare()
    columns = (TextColumn("accounts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("accounts", total=accounts)
        return await site.prepare(lambda more: progress.update(task, advance=more))


def _introduce(site: Site, settings: Settings, accounts: int | None) -> None:
    console = Console(highlight=False)
    grid = Grid("table", "endpoint, as main.cf names it", title="mailmaps answers here", title_justify="left")
    for name, table in settings.tables.items():
        grid.add_row(name, f"tcp:{table.tcp}")
    grid.add_row("each of them by NAME", f"socketmap:inet:{settings.socketmap.inet}:NAME")
    console.print(grid)
    examples = EXAMPLES if accounts is None else BIG_EXAMPLES
    key = examples[0][0]
    aliases = settings.tables["virtual_alias_maps"].tcp
    program, config = _shortest(Path(sys.argv[0])), _shortest(site.config)
    console.print("Try, in another terminal:", style="bold")
    commands = [
        f"postmap -q {key} tcp:{aliases}",
        f"{program} query --config {config} virtual_alias_maps {key}",
        f"{program} explain --config {config} virtual_alias_maps {key}",
    ]
    if accounts is None:
        commands += [
            f"echo {LOGIN_PASSWORD} | {program} login --config {config} {LOGIN}@second.example",
            f"{program} senders explain --config {config} {LOGIN} info@lxtreme.example",
        ]
    for words in commands:
        console.print(f"  {words}", soft_wrap=True)
    console.print("Other keys to try:", style="bold")
    for example, shows in examples[1:]:
        console.print(f"  {example:30} {shows}", soft_wrap=True)
    console.print("Ctrl-C ends it; the data stays.")


def _shortest(path: Path) -> Path:
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
