"""mailmaps completion: what a shell needs to complete our commands and options, as click makes it.

Names of domains and accounts are not completed: the shell would wait for the database.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: `mailmaps completion bash >/etc/bash_completion.d/mailmaps`."""
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click knows no {shell}")
    click.echo(made(context.find_root().command, {}, "mailmaps", "_MAILMAPS_COMPLETE").source())
