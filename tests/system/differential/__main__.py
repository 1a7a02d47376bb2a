"""The big run: `python -m tests.system.differential --count 100000`, as root. Exit code 1: they differ."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from tests.system.differential.run import SITES, Proof, Tally, default_report, proof
from tests.system.differential.settings import PAIRS, PRODUCT, Settings
from tests.system.sites import Site

from mailmaps.demo.postgres import EmbeddedPostgres

FEWEST = 80
"""Addresses below which a choice of settings is not worth the starting of so many Postfixes."""

WIDTH = 120
"""Characters a line in a file."""

COLUMNS = (
    "site",
    "recipients",
    "senders",
    "found",
    "unknown",
    "deferred",
    "delivered",
    "8-bit",
    "differ",
    "1/s",
)


@dataclass
class Report:
    """What is said and written while it goes on, and at its end."""

    console: Console
    file: Path
    tallies: dict[str, Tally] = field(default_factory=dict)

    def add(self, site: Site, tally: Tally) -> None:
        """Count what was seen at a site; differences are told at once."""
        with self.file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            for difference in tally.differences:
                file.write(f"{difference}\n")
                text = difference.encode(errors="backslashreplace").decode()
                self.console.print(f"[red]DIFFERENCE[/] {escape(text)}")
        self.tallies.setdefault(site.name, Tally()).merge(tally)

    def summary(self) -> Table:
        """A line for each site and one for all."""
        table = Table(*COLUMNS)
        everything = Tally()
        for name, tally in self.tallies.items():
            table.add_row(name, *_cells(tally))
            everything.merge(tally)
        table.add_section()
        table.add_row("all", *_cells(everything))
        return table


@click.command()
@click.option("--count", default=10_000, show_default=True, help="Recipients in all.")
@click.option("--seed", type=int, help="The addresses of an earlier run.")
@click.option("--site", "names", multiple=True, type=click.Choice([site.name for site in SITES]))
@click.option("--pairs", is_flag=True, help="Only the settings of the daily test, not all combinations.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="The file for differences.")
def main(count: int, seed: int | None, names: tuple[str, ...], pairs: bool, report: Path | None) -> None:
    """Send the same mail through Postfix with pgsql: and with mailmaps, and compare what comes of it."""
    seed = random.randrange(1 << 32) if seed is None else seed
    told = Report(
        Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH), report or default_report()
    )
    told.file.write_text("")
    sites = [site for site in SITES if not names or site.name in names]
    choices = PAIRS if pairs else PRODUCT
    share = max(FEWEST, -(-count // (len(sites) * len(choices))))
    told.console.print(f"seed {seed}; {share} recipients for each of {len(choices)} settings of each site")
    started = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailmaps-postgres-", dir="/tmp"))
        postgres = stack.enter_context(EmbeddedPostgres(Path(folder), fsync=False))
        asyncio.run(_run(postgres, sites, choices, share, seed, told))
    told.console.print(told.summary())
    told.console.print(f"{time.monotonic() - started:.0f} s, servers' starts included; seed {seed}")
    if any(tally.differences for tally in told.tallies.values()):
        told.console.print(f"[red]They differ.[/] All differences are in {told.file}")
        sys.exit(1)


async def _run(
    postgres: EmbeddedPostgres,
    sites: Sequence[Site],
    choices: Sequence[Settings],
    share: int,
    seed: int,
    report: Report,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with proof(postgres, sites) as proved:
        report.console.print(f"Postfix {proved.bench.mail_version}")
        with Progress(*columns, console=report.console) as progress:
            task = progress.add_task("", total=share * len(sites) * len(choices))
            for site in sites:
                for settings in choices:
                    progress.update(task, description=f"{site.name} {settings.short}")
                    report.add(site, await _prove(proved, site, settings, share, seed, progress))


async def _prove(
    proved: Proof, site: Site, settings: Settings, share: int, seed: int, progress: Progress
) -> Tally:
    task = progress.task_ids[0]
    return await proved.prove(site, settings, share, seed, tell=lambda done: progress.advance(task, done))


def _cells(tally: Tally) -> list[str]:
    asked = (tally.recipients, tally.senders, tally.found, tally.unknown, tally.deferred)
    numbers = (*asked, tally.delivered, tally.eight_bit)
    speed = tally.recipients / tally.seconds if tally.seconds else 0.0
    return [*(f"{number:,}" for number in numbers), str(len(tally.differences)), f"{speed:.0f}"]


if __name__ == "__main__":
    main()
