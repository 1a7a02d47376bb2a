"""mailmaps import and mailmaps export: all domains, accounts, addresses and forwards as one CSV file."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mailmaps.administration.csv_file import COLUMNS, write
from mailmaps.administration.importing import BadLines, importing
from mailmaps.administration.names import BadName
from mailmaps.administration.step import Change, Refusal, carry_out, look
from mailmaps.cli.administration import json_option, run, tell
from mailmaps.cli.options import Failure, config_option, read_settings
from mailmaps.config import Settings
from mailmaps.database.administration_lists import EXPORTS, HASHES, rows

BAD_LINES = 65  # sysexits.h: EX_DATAERR


@click.command("import")
@config_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--update", is_flag=True, help="Change what is there and other in the file.")
@click.option("--dry-run", is_flag=True, help="Count what would be new, changed, the same and refused.")
@json_option
@click.pass_context
def import_file(
    context: click.Context, config: Path, file: Path, update: bool, dry_run: bool, as_json: bool
) -> None:
    """Import domains, accounts, addresses and forwards from a CSV file (- is stdin; docs/administration.md).

    All of it or, if one line is refused, nothing. Nothing is removed. Exit code: 0 done, 65 lines are
    refused, all of which are named.
    """
    settings = read_settings(config)
    try:
        with _opened(file) as text, _Bar() as bar:
            prepare = importing(
                file,
                text,
                settings.postfix.virtual_minimum_uid,
                update=update,
                dry_run=dry_run,
                told=bar.told,
            )
            change = run(_refusals(look(settings, prepare) if dry_run else carry_out(settings, prepare)))
    except BadLines as error:
        for problem in error.problems:
            click.echo(f"{file}:{problem}", err=True)
        raise Failure(f"{error}; nothing was changed", BAD_LINES) from None
    except BadName as error:
        raise Failure(f"{file}:{error}; nothing was changed", BAD_LINES) from None
    tell(change, as_json=as_json)
    if change.result["refused"]:
        click.echo(f"would be refused: {change.result['refused']} lines, and so all of it", err=True)
        context.exit(BAD_LINES)


async def _refusals(doing: Coroutine[Any, Any, Change]) -> Change:
    """Lines that are refused, under their own name."""
    try:
        return await doing
    except Refusal as error:
        if isinstance(error.cause, (BadLines, BadName)):
            raise error.cause from None
        raise


def _opened(file: Path) -> IO[str]:
    if str(file) == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8", newline="")
    try:
        return file.open(encoding="utf-8", newline="")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None


class _Bar:
    """A bar on stderr, if that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, word: str, done: int, of: int) -> None:
        """How far it is."""
        self._progress.update(self._task, description=word, completed=done, total=of or None)


@click.command("export")
@config_option
@click.option(
    "--with-hashes", is_flag=True, help="With the password hashes: keep the file from others' eyes."
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file, mode 0600.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line, instead of CSV.")
def export_file(config: Path, with_hashes: bool, output: Path | None, as_json: bool) -> None:
    """Write everything as CSV to stdout, as `mailmaps import` takes it."""
    settings = read_settings(config)
    if output is None:
        run(_export(settings, sys.stdout, with_hashes=with_hashes, as_json=as_json))
        return
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"{output}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            run(_export(settings, file, with_hashes=with_hashes, as_json=as_json))
    except BaseException as error:
        output.unlink()  # half a file would be taken for all of it
        if isinstance(error, OSError):
            raise Failure(f"{output}: {error.strerror}") from None
        raise


async def _export(settings: Settings, file: IO[str], *, with_hashes: bool, as_json: bool) -> None:
    """All of one moment."""
    columns = COLUMNS if with_hashes else COLUMNS[:-1]
    if not as_json:
        csv.writer(file, lineterminator="\n").writerow(columns)
    async for batch in rows(settings, *(EXPORTS if not with_hashes else HASHES)):
        if as_json:
            for row in batch:
                given = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(given, ensure_ascii=False) + "\n")
        else:
            write(iter(batch), file, columns, header=False)
