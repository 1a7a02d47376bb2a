"""mailmaps maildirs: the mailbox folders of virtual(8), made beforehand, checked and put right."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mailmaps.cli.options import EX_CONFIG, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.config import SettingsError
from mailmaps.maildirs.action import Action, State, visible
from mailmaps.maildirs.box import Box, Row
from mailmaps.maildirs.reading import CannotList, CannotRead, read, views_of
from mailmaps.maildirs.sorting import Sorter
from mailmaps.maildirs.walk import Walk, open_base

OPEN = 1  # something is to be done, was refused or failed
SHOWN_EVERY = 100  # boxes between two looks of the progress bar


@click.command()
@config_option
@click.option("--base", metavar="DIR", help="The base.  [default: postfix.virtual_mailbox_base]")
@click.option("--apply", is_flag=True, help="Do it (as root), instead of saying what would be done.")
@click.option("--hand-over", is_flag=True, help="Also give folders of another user to the box's user.")
@click.option(
    "--minimum-uid",
    type=click.IntRange(min=0),
    metavar="N",
    help="Refuse lower ones.  [default: postfix.virtual_minimum_uid]",
)
@click.pass_context
def maildirs(
    context: click.Context,
    config: Path,
    base: str | None,
    apply: bool,
    hand_over: bool,
    minimum_uid: int | None,
) -> None:
    """Make the folders that virtual(8) delivers into, with their owners and modes; fix those that are there.

    Without --apply it only says what it would do. Nothing is deleted, no link followed, no message
    touched. Exit code: 0 nothing is to be done, 1 something is to be done, was refused or failed,
    69 the database cannot be asked, 78 the settings do not do.
    """
    settings = read_settings(config)
    base = base or settings.postfix.virtual_mailbox_base
    _check_base(base)
    if apply and os.geteuid() != 0:
        raise Failure("--apply needs root: the folders become those of many users")
    minimum = settings.postfix.virtual_minimum_uid if minimum_uid is None else minimum_uid
    try:
        views = views_of(settings)
        base_fd = open_base(base)
    except CannotList as error:
        raise Failure(str(error), EX_CONFIG) from None
    except OSError as error:
        raise Failure(f"{base}: {error.strerror}; the base is not made, it may be a disk's") from None
    try:
        with Walk(base_fd, apply=apply, hand_over=hand_over) as walk, _progress() as progress:
            run = _Run(walk, Sorter(minimum), progress)
            uvloop.run(read(settings.database, views, run.take))
            run.end()
    except (CannotRead, SettingsError) as error:
        raise Failure(f"the database cannot be asked: {error}", EX_UNAVAILABLE) from None
    finally:
        os.close(base_fd)
    context.exit(run.report(base, apply))


def _check_base(base: str) -> None:
    if not base:
        raise Failure("there is no base: set postfix.virtual_mailbox_base, or give --base DIR", EX_CONFIG)
    if not base.startswith("/"):
        raise Failure(f"the base {base} is not an absolute path, which virtual(8) refuses too", EX_CONFIG)
    if os.path.realpath(base) == "/":
        raise Failure(f"the base {base} is the whole system; its folders are not ours to judge", EX_CONFIG)


def _progress() -> Progress:
    """A bar on stderr, if that is a terminal. Lines go round it if they go there too, else straight out."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal
    return Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty(), disable=not shown)


class _Run:
    """From rows to lines, and the count of them."""

    def __init__(self, walk: Walk, sorter: Sorter, progress: Progress) -> None:
        self._walk = walk
        self._sorter = sorter
        self._progress = progress
        self._task = progress.add_task("boxes", total=None)
        self._rows = 0
        self._boxes = 0
        self._states: Counter[State] = Counter()
        self._closed = False
        self._say(walk.notes())

    def take(self, row: Row) -> None:
        """The next row."""
        self._handle(self._sorter.take(row))
        self._rows += 1
        if self._rows % SHOWN_EVERY == 1:
            self._progress.update(self._task, completed=self._rows, total=row.boxes)

    def end(self) -> None:
        """All rows have come."""
        self._handle(self._sorter.end())
        self._progress.update(self._task, completed=self._rows, total=self._rows)

    def _handle(self, sorted_out: list[Box | Action]) -> None:
        for one in sorted_out:
            if isinstance(one, Box):
                self._boxes += 1
                self._say(self._walk.handle(one))
            else:
                self._say([one])

    def _say(self, actions: list[Action]) -> None:
        for action in actions:
            self._states[action.state] += 1
            self._closed = self._closed or action.closes
            click.echo(str(action))

    def report(self, base: str, apply: bool) -> int:
        """Print what it comes to; the exit code."""
        if self._closed:
            click.echo(
                "virtual(8) makes no box in a folder that its user may not write: mail for a new account is "
                "deferred (4.2.0), not bounced, until this command has made its box"
            )
        states = self._states
        counts = ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
        click.echo(f"{self._boxes} boxes below {visible(base)}: {counts or 'nothing to do'}")
        if states[State.TODO]:
            click.echo("nothing was changed; --apply does what is to do")
        return OPEN if states[State.TODO] or states[State.LEFT] or states[State.FAILED] else 0
