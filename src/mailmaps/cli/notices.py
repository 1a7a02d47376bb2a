"""mailmaps notices: whether the mails to the postmaster arrive."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from mailmaps.cli.options import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.notices.handover import NoticeError
from mailmaps.notices.mailer import Mailer
from mailmaps.notices.notice import test as test_notice
from mailmaps.policy.texts import shown


@click.group()
def notices() -> None:
    """Mail to the postmaster: limits reached, logins that send as others, a database that is away."""


@notices.command("test")
@config_option
def send_test(config: Path) -> None:
    """Send a test notice, from this command by the settings; the daemon need not run.

    Exit code: 0 taken, 69 refused for good, 75 not taken now, 78 nobody to tell (notices.to is empty).
    """
    settings = read_settings(config)
    told = settings.notices
    if not told.to:
        raise Failure("nobody is told: notices.to is empty", EX_CONFIG)
    mailer = Mailer(told, settings.postfix.myhostname)
    tls = {"no": "without TLS", "starttls": "with STARTTLS", "tls": "with TLS"}[told.tls]
    click.echo(f"to {told.to}, From: {mailer.sender}, envelope sender <>, by {told.smtp} {tls}")
    try:
        reply = asyncio.run(mailer.deliver_now(test_notice()))
    except NoticeError as error:
        if error.temporary:
            raise Failure(f"not taken now: {error}", EX_TEMPFAIL) from None
        raise Failure(f"refused: {error}", EX_UNAVAILABLE) from None
    click.echo(f"taken: {shown(reply)}")
