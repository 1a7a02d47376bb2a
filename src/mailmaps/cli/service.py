"""Commands that units run: under systemd, what they fail with is an error of the log, not a line of chatter.

click says a `Failure` as "Error: ..." without a priority, which journald keeps as info (systemd.exec(5),
SyslogLevel=): `journalctl -p warning` would show nothing while mail waits. At a terminal it stays click's.
"""

from __future__ import annotations

from typing import Any

import click

from mailmaps.cli.options import Failure
from mailmaps.logs import events
from mailmaps.logs.output import is_journal, is_logging, log_to_stderr

log = events(__name__)

STDERR = 2


class ServiceCommand(click.Command):
    """`@click.command(cls=ServiceCommand)`: a `Failure` is an event a line; the exit code is the same."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Raises `Failure` where standard error is not journald's."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            if not is_journal(STDERR):
                raise
            if not is_logging():  # the settings, which have the level, may be what is wrong
                log_to_stderr("error")
            for line in failure.message.splitlines():
                log.error("ends with a failure", command=self.name, reason=line)
            ctx.exit(failure.exit_code)
