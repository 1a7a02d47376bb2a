"""What the commands that run a mail domain share: how one is carried out, asked about, and printed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from mailmaps.administration import names
from mailmaps.administration.names import BadName
from mailmaps.administration.step import Change, Prepare, Refusal, Unclear, carry_out, forced, look
from mailmaps.cli.options import EX_TEMPFAIL, Failure, read_settings
from mailmaps.config import Settings
from mailmaps.database.administration import CannotWrite
from mailmaps.database.administration_lists import filtered, pattern

# sysexits.h: EX_IOERR. Something stands that should not, or nobody knows: the message says what to look at.
UNCLEAR = 74

INTERRUPTED = 130

Columns = dict[str, Callable[[dict[str, Any]], str]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
like_option = click.option("--like", metavar="PATTERN", help="Only these: * is any text, ? one character.")
domain_filter = click.option("--domain", metavar="DOMAIN", help="Only those of this domain.")
force_option = click.option(
    "--force", is_flag=True, help="Also if more vanishes from Postfix's files than filemaps.most_removed."
)


def perform(
    config: Path, make: Callable[[Settings], Prepare], *, force: bool = False, as_json: bool = False
) -> None:
    """Carry a change out and print what was done, or end the command."""
    settings = read_settings(config)
    try:
        change = run(carry_out(settings, forced(make(settings)) if force else make(settings)))
    except BadName as error:
        raise Failure(f"{error}; nothing was changed") from None
    tell(change, as_json=as_json)


def perform_asked(
    config: Path,
    make: Callable[[Settings], Prepare],
    *,
    yes: bool,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """The same, after saying what goes and being told that it shall. Without a terminal it wants `--yes`."""
    settings = read_settings(config)
    try:
        if not yes:
            if not sys.stdin.isatty():
                raise Failure("nobody is here to ask: say --yes; nothing was changed")
            for line in run(look(settings, make(settings))).said:
                click.echo(f"would be {_printable(line)}", err=True)
            if not click.confirm("Yes?", default=False, err=True):
                raise Failure("nothing was changed")
        change = run(carry_out(settings, forced(make(settings)) if force else make(settings)))
    except BadName as error:
        raise Failure(f"{error}; nothing was changed") from None
    tell(change, as_json=as_json)


def show(config: Path, make: Callable[[], Prepare], *, as_json: bool) -> None:
    """Print one object."""
    settings = read_settings(config)
    try:
        change = run(look(settings, make()))
    except BadName as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps(change.result, ensure_ascii=False, default=str))
        return
    grid = Grid(show_header=False, box=None, pad_edge=False)
    for name, value in change.result.items():
        if value not in (None, []):
            grid.add_row(name.replace("_", " "), escape(_word(value)))
    Console(highlight=False, soft_wrap=True).print(grid)


def run(doing: Any) -> Any:
    """Run a coroutine; SIGTERM and ^C cancel it. Ends the command with what it raises."""
    try:
        return uvloop.run(_until_told(doing))
    except Refusal as error:
        raise Failure(str(error), EX_TEMPFAIL if error.temporary else 1) from None
    except CannotWrite as error:
        raise Failure(str(error), EX_TEMPFAIL if error.temporary else 1) from None
    except Unclear as error:
        raise Failure(str(error), UNCLEAR) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise Failure("interrupted; nothing was changed", INTERRUPTED) from None


async def _until_told(doing: Any) -> Any:
    task = asyncio.ensure_future(doing)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    return await task


def tell(change: Change, *, as_json: bool) -> None:
    """Print what was done; notes go to stderr."""
    for note in change.notes:
        click.echo(f"note: {_printable(note)}", err=True)
    if as_json:
        click.echo(json.dumps(change.result, ensure_ascii=False, default=str))
    else:
        for line in change.said:
            click.echo(_printable(line))


def needs_root(what: str) -> None:
    """End the command unless root runs it."""
    if os.geteuid() != 0:
        raise Failure(f"{what} needs root, since the folders are those of many users; nothing was changed")


def print_list(
    config: Path, query: str, like: str | None, domain: str | None, columns: Columns, *, as_json: bool
) -> None:
    """Print rows as they come: JSON, a table on a terminal, tab-separated columns elsewhere."""
    settings = read_settings(config)
    try:
        folded = names.domain(domain, subdomains=True).value if domain is not None else None
    except BadName as error:
        raise Failure(str(error)) from None
    run(_print(filtered(settings, [query], pattern(like), folded), columns, as_json=as_json))


async def _print(batches: AsyncIterator[list[dict[str, Any]]], columns: Columns, *, as_json: bool) -> None:
    table = _Table(columns) if sys.stdout.isatty() and not as_json else None
    async for batch in batches:
        if table is not None:
            table.print(batch)
        elif as_json:
            lines = (json.dumps(row, ensure_ascii=False, default=str) for row in batch)
            click.echo("\n".join(lines))
        else:
            values = columns.values()
            click.echo("\n".join("\t".join(_printable(cell(row)) for cell in values) for row in batch))


class _Table:
    """A table whose rows come in batches: as wide as the first ones want, with one heading."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._console = Console(highlight=False)
        self._widths: list[int] = []

    def print(self, batch: list[dict[str, Any]]) -> None:
        """Print more rows."""
        cells = [[cell(row) for cell in self._columns.values()] for row in batch]
        is_first = not self._widths
        if is_first:
            every = [list(self._columns), *cells]
            self._widths = [max(map(len, column)) for column in zip(*every, strict=True)]
        grid = Grid(show_header=is_first, box=None, pad_edge=False)
        for name, width in zip(self._columns, self._widths, strict=True):
            grid.add_column(name, min_width=width if sum(self._widths) < self._console.width else None)
        for row in cells:
            grid.add_row(*map(escape, map(_printable, row)))
        self._console.print(grid)


def text(name: str) -> Callable[[dict[str, Any]], str]:
    """A column as it is."""
    return lambda row: "" if row[name] is None else str(row[name])


def flag(name: str, word: str, *, when: bool = True) -> Callable[[dict[str, Any]], str]:
    """A word where the column is true (or, with `when`, false)."""
    return lambda row: word if bool(row[name]) is when else ""


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _printable("\n".join(map(str, value)), "\n")
    return _printable(str(value))


def _printable(line: str, also: str = "") -> str:
    return "".join(char if char.isprintable() or char in also else "?" for char in line)
