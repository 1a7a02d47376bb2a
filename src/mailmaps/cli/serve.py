"""mailmaps serve: the daemon in the foreground."""

from __future__ import annotations

import resource
import signal
from functools import partial
from pathlib import Path

import click
import uvloop

from mailmaps import service_manager
from mailmaps.cli.options import EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.cli.service import ServiceCommand
from mailmaps.config import SettingsError, load
from mailmaps.config.secrets import database_password
from mailmaps.daemon import Daemon
from mailmaps.inherited import inherit
from mailmaps.listeners import ListenError
from mailmaps.logs.output import log_to_stderr


@click.command(cls=ServiceCommand)
@config_option
def serve(config: Path) -> None:
    """Answer lookups until SIGTERM; SIGHUP reads the settings and the files they name anew."""
    settings = read_settings(config)
    log_to_stderr(settings.log.level)
    try:
        database_password(settings.database.password_file)
        inherited = inherit()
        daemon = Daemon(settings, partial(load, config), service_manager.from_environment())
        signal.signal(signal.SIGHUP, lambda *_: daemon.hang_up())  # which would end us until the loop runs
        daemon.bind(inherited)
    except (ListenError, SettingsError) as error:
        raise Failure(str(error), EX_UNAVAILABLE) from None
    raise_descriptor_limit()
    uvloop.run(daemon.serve())


def raise_descriptor_limit() -> None:
    """Use all the descriptors we may have: a busy Postfix holds hundreds of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
