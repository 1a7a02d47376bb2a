"""The command `mailmaps`: each command is a module of this package, which is imported when it is called.

All of them together take half a second to import, which somebody pays who asks for one key.
"""

from __future__ import annotations

from importlib import import_module

import click

from mailmaps import __version__

# In the order of `--help`: MODULE:FUNCTION of each, by its name.
COMMANDS = {
    "demo": "demo:demo",
    "serve": "serve:serve",
    "reload": "ask:reload_settings",
    "status": "status:status",
    "query": "ask:query",
    "explain": "ask:explain",
    "check": "check:check",
    "schema": "schema:schema",
    "setup": "setup:setup",
    "config": "postfix:print_config",
    "postfix-config": "postfix:postfix_config",
    "dovecot-config": "dovecot:dovecot_config",
    "dovecot-files": "dovecot:dovecot_files",
    "login": "login:login",
    "hash": "hash:hash_password",
    "senders": "senders:senders",
    "limits": "limits:limits",
    "notices": "notices:notices",
    "report": "report:report",
    "filemaps": "filemaps:filemaps",
    "maildirs": "maildirs:maildirs",
    "migrate": "migrate:migrate",
    "compare": "compare:compare",
    "domain": "domain:domain",
    "account": "account:account",
    "address": "address:address",
    "forward": "forward:forward",
    "import": "csv_files:import_file",
    "export": "csv_files:export_file",
    "completion": "completion:completion",
}


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(":")
        found: click.Command = getattr(import_module(f"mailmaps.cli.{module}"), function)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailmaps")
def main() -> None:
    """Answer Postfix's and Dovecot's questions from PostgreSQL."""
