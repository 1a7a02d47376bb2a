"""mailmaps compare: every key through the old maps and the new."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mailmaps import cf_files, postconf
from mailmaps.cli.options import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.config import Settings
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.search import Rules
from mailmaps.maps.tables import KINDS
from mailmaps.migration import comparison, derived_keys, keys
from mailmaps.migration.comparison import Compared, Result, Verdict, shown
from mailmaps.migration.keys import Keys
from mailmaps.migration.new_side import NewSide
from mailmaps.migration.old_side import OldSide, PostmapError
from mailmaps.postconf import PostconfError
from mailmaps.tableset import rules

DIFFERENT = 1
LONGEST_WAIT = 60.0  # seconds for remembered answers to end before differences are asked again
ALL = 1_000_000  # the default of --limit
EXAMPLE = 'psql -At -c "SELECT address FROM alias" > keys && mailmaps compare --keys keys'

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@config_option
@click.option("--keys", "file", type=_FILE, metavar="FILE", help="Addresses, domains, hosts: one a line.")
@click.option("--maillog", type=_FILE, metavar="FILE", help="Who is named in Postfix's log (.gz too).")
@click.option("--all", "everything", is_flag=True, help="What the columns hold that the queries ask.")
@click.option(
    "--config-dir", type=_FOLDER, metavar="DIR", help="Postfix's.  [default: postfix.config_directory]"
)
@click.option("--table", "names", multiple=True, metavar="NAME", help="Only this table; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), default=ALL, metavar="N", help="Keys a table at most.")
@click.pass_context
def compare(
    context: click.Context,
    config: Path,
    file: Path | None,
    maillog: Path | None,
    everything: bool,
    config_dir: Path | None,
    names: tuple[str, ...],
    limit: int,
) -> None:
    """Ask the old `pgsql:` maps and the running daemon the same keys, and list the differences.

    The old side is postmap(1) with the files that mailmaps.toml names, asked for each candidate in the
    search order that Postfix's own settings make, not those in [postfix]. Exit code: 0 no difference,
    1 differences, 75 no difference, but one side could not say for some keys.
    """
    if (file is not None) + (maillog is not None) + everything != 1:
        raise click.UsageError("give one of --keys FILE, --maillog FILE and --all")
    settings = read_settings(config)
    tables = _tables(settings, names)
    job = _Job(settings, config_dir or Path(settings.postfix.config_directory))
    asked = _derived(job, tables, limit) if everything else _read(file, maillog)
    if not (asked.addresses or asked.bare or asked.hosts):
        raise Failure("there are no keys to ask", EX_UNAVAILABLE)
    result = job.run({name: asked.of_table(settings.tables[name].parameter)[:limit] for name in tables})
    context.exit(_report(result))


def _tables(settings: Settings, names: tuple[str, ...]) -> list[str]:
    """The tables to compare: those that answer from `pgsql:` files and nothing else."""
    for name in names:
        if name not in settings.tables:
            raise Failure(f"no such table: {name}; there are {', '.join(settings.tables)}", EX_CONFIG)
    found = []
    for name in names or settings.tables:
        if all(map(cf_files.is_cf, settings.tables[name].sources)):
            found.append(name)
        else:
            click.echo(f"not compared: {name} answers from more than pgsql: files", err=True)
    if not found:
        raise Failure("no table answers from pgsql: files, so there is nothing to compare with", EX_CONFIG)
    return found


def _read(file: Path | None, maillog: Path | None) -> Keys:
    try:
        return keys.from_maillog(maillog) if maillog is not None else keys.from_file(file or Path())
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(f"{maillog or file}: {error}", EX_UNAVAILABLE) from None


def _derived(job: _Job, tables: list[str], limit: int) -> Keys:
    settings = job.settings
    sources = dict.fromkeys(source for table in tables for source in settings.tables[table].sources)
    try:
        read = [cf_files.read(source, settings.postfix) for source in sources]
    except CfError as error:
        raise Failure(str(error), EX_CONFIG) from None
    delimiter = job.old_rules.recipient_delimiter or settings.postfix.recipient_delimiter
    found, notes = uvloop.run(derived_keys.derive(read, settings.database, delimiter, limit))
    for note in notes:
        click.echo(f"no keys from {note}; give them yourself: {EXAMPLE}", err=True)
    return found


@dataclass
class _Job:
    """One comparison: both sides of each table, and a second look at what differs."""

    settings: Settings
    config_dir: Path

    @cached_property
    def old_rules(self) -> Rules:
        """The rules of a search as Postfix itself has them: a wrong [postfix] section is a difference."""
        try:
            found = postconf.read(self.config_dir)
        except PostconfError as error:
            raise Failure(f"the old side cannot be asked: {error}", EX_UNAVAILABLE) from None
        for note in found.notes:
            click.echo(f"the old side may search more than is compared: {note}", err=True)
        postfix = self.settings.postfix.model_copy(update=found.values)
        return rules(self.settings.model_copy(update={"postfix": postfix}))

    def run(self, by_table: dict[str, list[str]]) -> Result:
        """Ask everything; `Result.differing` is what differs twice."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            result = self._ask(by_table, progress)
            again: dict[str, list[str]] = {}
            for one in result.differing:
                again.setdefault(one.table, []).append(one.key)
            if again:
                self._wait(progress)
                result.differing = self._ask(again, progress).differing
        return result

    def _wait(self, progress: Progress) -> None:
        """The database lives on while we ask, and the daemon remembers: look again when it has forgotten."""
        cache = self.settings.cache
        seconds = min(max(cache.ttl, cache.negative_ttl), LONGEST_WAIT)
        progress.console.print(f"what differs is asked again in {seconds:g} s (cache.ttl)")
        time.sleep(seconds)

    def _ask(self, by_table: dict[str, list[str]], progress: Progress) -> Result:
        result = Result()
        for table, asked in by_table.items():
            advance = partial(progress.update, progress.add_task(table, total=len(asked)))
            try:
                with NewSide(self.settings, table) as new:
                    for count in comparison.compare(table, asked, self._old(table), new, result):
                        advance(advance=count)
            except OSError as error:
                raise Failure(f"mailmaps does not answer for {table}: {error}", EX_TEMPFAIL) from None
            except (PostmapError, ValueError) as error:
                raise Failure(str(error), EX_UNAVAILABLE) from None
        return result

    def _old(self, table: str) -> OldSide:
        settings = self.settings.tables[table]
        return OldSide(self.config_dir, KINDS[settings.parameter], settings.sources, self.old_rules)


def _report(result: Result) -> int:
    """Print what differs, and what it comes to; the exit code."""
    for one in result.differing:
        click.echo(_line(one))
    different = len(result.of(Verdict.DIFFERENT))
    unsaid = len(result.of(Verdict.OLD_CANNOT_SAY, Verdict.NEW_CANNOT_SAY))
    neither = len(result.of(Verdict.NEITHER))
    click.echo(
        f"{result.asked} lookups, {result.found} of them found: {different} different, "
        f"{unsaid} that one side cannot say, {neither} that neither can say"
    )
    if different:
        return DIFFERENT
    return EX_TEMPFAIL if unsaid or neither == result.asked else 0


def _line(one: Compared) -> str:
    text = f"{one.verdict.value}: {one.table} {one.key}: old {shown(one.old)}, new {shown(one.new)}"
    return text.encode(errors="backslashreplace").decode()
