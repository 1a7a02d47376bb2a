"""mailmaps report: what the mail system did, problems first; by mail or on stdout."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from pathlib import Path

import click

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
from mailmaps.notices.handover import NoticeError, hand_over
from mailmaps.notices.mailer import Mailer, own_name
from mailmaps.policy.texts import shown
from mailmaps.report.document import Document
from mailmaps.report.logins import FOLDER
from mailmaps.report.mail import mail
from mailmaps.report.making import Wanted, as_json, make
from mailmaps.report.period import period
from mailmaps.report.picture import picture
from mailmaps.report.sources import FOLDER as LOGS
from mailmaps.report.sources import SourceError
from mailmaps.report.text import as_text


@click.command(cls=ServiceCommand)
@config_option
@click.option("--mail-to", metavar="ADDRESS", default="", help="Send it there instead of printing it.")
@click.option("--since", default="yesterday", show_default=True, metavar="TIME", help="From when on.")
@click.option(
    "--until", default="now", show_default=True, metavar="TIME", help="Up to and without this time."
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A log to read (.gz too, or .journal); may be repeated, in any order.",
)
@click.option("--json", "is_json", is_flag=True, help="Print it for programs.")
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of a table.")
@click.option(
    "--dormant",
    "days",
    type=click.IntRange(0, 3650),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="Name accounts without a login for so long; 0 for none.",
)
@click.option(
    "--memory",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="FOLDER",
    help=f"Where last logins are remembered.  [default: {FOLDER}; with --log: nowhere]",
)
def report(
    config: Path,
    mail_to: str,
    since: str,
    until: str,
    logs: tuple[Path, ...],
    is_json: bool,
    top: int,
    days: int,
    memory: Path | None,
) -> None:
    """Report from Postfix's log: problems first, then volumes.

    TIME is yesterday, today, now, 2026-11-23, "2026-11-23 13:30", 24h or 7d (ago). Without --log it is the
    journal where that reaches back far enough, else /var/log/mail.log and its like, rotated ones among them.

    Exit code: 0 printed or taken, 2 wrong words, 69 refused for good or no log, 75 not taken now, 78 wrong
    settings. A report that is not taken is printed.
    """
    if mail_to and is_json:
        raise click.UsageError("--json is printed: it goes without --mail-to")
    settings = read_settings(config)
    if memory is None and not logs:  # a log that is named may be another machine's
        memory = Path(os.environ.get("STATE_DIRECTORY", FOLDER).partition(":")[0])
    try:
        times = period(since, until, datetime.now())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    host = own_name(settings.postfix.myhostname)
    try:
        found, tally = make(settings, Wanted(times, logs, LOGS, memory, days, top), host)
    except SourceError as error:
        raise Failure(str(error), EX_UNAVAILABLE) from None
    if is_json:
        click.echo(as_json(found, tally))
    elif mail_to:
        _send(found, settings, mail_to, host)
    else:
        click.echo(as_text(found), nl=False)


def _send(found: Document, settings: Settings, to: str, host: str) -> None:
    """Mail it; print it where that fails, so that it is not lost."""
    sender = Mailer(settings.notices, settings.postfix.myhostname).sender
    try:
        message = mail(found, picture(found.slots), sender, to, host, datetime.now().astimezone())
        reply = asyncio.run(hand_over(message, settings.notices, host))
    except ValueError as error:
        click.echo(as_text(found), nl=False)
        raise Failure(f"--mail-to or notices.sender: {error}", EX_CONFIG) from None
    except NoticeError as error:
        click.echo(as_text(found), nl=False)
        if error.temporary:
            raise Failure(f"not taken now: {error}", EX_TEMPFAIL) from None
        raise Failure(f"refused: {error}", EX_UNAVAILABLE) from None
    click.echo(f"taken: {shown(reply)}")
