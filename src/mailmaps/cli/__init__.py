"""The command `mailmaps`."""

from __future__ import annotations

import click

from mailmaps import __version__
from mailmaps.cli.account import account
from mailmaps.cli.address import address
from mailmaps.cli.ask import explain, query, reload_settings
from mailmaps.cli.check import check
from mailmaps.cli.compare import compare
from mailmaps.cli.completion import completion
from mailmaps.cli.csv_files import export_file, import_file
from mailmaps.cli.demo import demo
from mailmaps.cli.domain import domain
from mailmaps.cli.dovecot import dovecot_config, dovecot_files
from mailmaps.cli.filemaps import filemaps
from mailmaps.cli.forward import forward
from mailmaps.cli.hash import hash_password
from mailmaps.cli.limits import limits
from mailmaps.cli.login import login
from mailmaps.cli.maildirs import maildirs
from mailmaps.cli.migrate import migrate
from mailmaps.cli.notices import notices
from mailmaps.cli.postfix import postfix_config, print_config
from mailmaps.cli.report import report
from mailmaps.cli.schema import schema
from mailmaps.cli.senders import senders
from mailmaps.cli.serve import serve
from mailmaps.cli.setup import setup
from mailmaps.cli.status import status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailmaps")
def main() -> None:
    """Answer Postfix's and Dovecot's questions from PostgreSQL."""


_COMMANDS = (
    demo,
    serve,
    reload_settings,
    status,
    query,
    explain,
    check,
    schema,
    setup,
    print_config,
    postfix_config,
    dovecot_config,
    dovecot_files,
    login,
    hash_password,
    senders,
    limits,
    notices,
    report,
    filemaps,
    maildirs,
    migrate,
    compare,
    domain,
    account,
    address,
    forward,
    import_file,
    export_file,
    completion,
)
for command in _COMMANDS:
    main.add_command(command)
