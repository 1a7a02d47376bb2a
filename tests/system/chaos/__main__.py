"""The big run, as root: `python -m tests.system.chaos --messages 2000 --unknown 2000`. Exit code 1: mail was
lost, doubled, refused or bounced.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import click
from rich.console import Console
from rich.markup import escape
from tests.system.chaos.run import Outcome, Plan, chaos

WIDTH = 140
"""Characters a line in a file."""

SHOWN = 20
"""Lines of each kind that are shown."""


@click.command()
@click.option("--messages", default=2000, show_default=True, help="Messages to known recipients.")
@click.option("--unknown", default=2000, show_default=True, help="RCPTs to unknown ones.")
@click.option("--seed", type=int, help="The troubles of an earlier run.")
@click.option("--by", type=click.Choice(["tcp", "socketmap"]), default="tcp", show_default=True)
def main(messages: int, unknown: int, seed: int | None, by: str) -> None:
    """Send mail through a real Postfix while PostgreSQL and the daemon are in trouble, and judge it."""
    seed = random.randrange(1 << 32) if seed is None else seed
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    plan = Plan(messages, unknown, seed, by)
    console.print(f"seed {seed}; {plan.rate:.1f} messages and as many probes a second, tables by {by}")
    begun = time.monotonic()
    outcome = asyncio.run(chaos(plan, lambda what, count: console.print(f"{what}: {count}", style="dim")))
    _report(console, outcome)
    console.print(f"{time.monotonic() - begun:.0f} s; seed {seed}")
    if outcome.wrong:
        console.print(f"[red]{len(outcome.wrong)} things must not be.[/]")
        sys.exit(1)
    console.print(
        "Every accepted message arrived exactly once, no known recipient was told 5xx, nothing bounced."
    )


def _report(console: Console, outcome: Outcome) -> None:
    console.print(outcome.tally.table())
    for text, count in outcome.tally.reasons().most_common(SHOWN):
        console.print(f"{count:6d} × {escape(text)}")
    for line in outcome.wrong[:SHOWN]:
        console.print(f"[red]WRONG[/] {escape(line)}")
    if outcome.wrong:
        console.print(escape(outcome.log[-20_000:]))


if __name__ == "__main__":
    main()
