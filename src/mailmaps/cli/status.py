"""mailmaps status: whether the running daemon hears of changes, and what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from mailmaps.cli.ask import ask_daemon
from mailmaps.cli.options import config_option, read_settings

ALL_PROVEN, NOT_PROVEN = 0, 1


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.pass_context
def status(context: click.Context, config: Path, as_json: bool) -> None:
    """Show what the running daemon holds and how far it trusts it.

    Exit code 1 while a mirror is not proven to be what the database has.
    """
    found = ask_daemon(read_settings(config), {"command": "status"})
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(found)
    proven = all(mirror["proven"] for mirror in found["mirrors"].values())
    context.exit(ALL_PROVEN if proven else NOT_PROVEN)


def _show(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"connections of clients: {found['connections']}")
    console.print(f"changes are heard of: {escape(found['listening'])}")
    for name, pool in found.items():
        if name.startswith("database"):
            away = f"; {pool['away']}" if pool["away"] else ""
            console.print(f"{escape(name)}: {pool['open']} of {pool['size']} open{escape(away)}")
    if logins := found.get("logins"):
        pool, counts = logins["database"], logins["counts"]
        away = f"; {pool['away']}" if pool["away"] else ""
        console.print(f"logins: {pool['open']} of {pool['size']} connections open{escape(away)}")
        for what, count in counts.items():
            console.print(f"  {escape(what)}: {count}")
    _show_sending(console, found["sending"], found["notices"])
    grid = Grid(title=f"mirrors in {found['directory']}", title_justify="left")
    for column in ("view", "proven", "keys", "MB", "as of", "drift"):
        grid.add_column(column, justify="left" if column in ("view", "proven") else "right")
    for view, mirror in found["mirrors"].items():
        grid.add_row(
            escape(view),
            "yes" if mirror["proven"] else escape(mirror["why"]),
            _number(mirror["keys"]),
            _number(mirror["bytes"], 1e6),
            "never" if mirror["age"] is None else f"{mirror['age']:.0f} s ago",
            str(mirror["drift"]),
        )
    if found["mirrors"]:
        console.print(grid)


def _show_sending(console: Console, sending: dict[str, Any], notices: dict[str, Any]) -> None:
    answers, limits = sending["answers"], sending["limits"]
    said = ", ".join(f"{word} {count}" for word, count in answers.items()) or "not asked yet"
    console.print(f"policy: senders {escape(sending['mode'])}; {escape(said)}")
    trouble = f": {limits['trouble']}" if limits["trouble"] else ""
    console.print(f"  limits are counted in the {limits['counted in']}{escape(trouble)}")
    if pool := sending.get("database"):
        away = f"; {pool['away']}" if pool["away"] else ""
        console.print(f"  {pool['open']} of {pool['size']} connections open{escape(away)}")
        console.print(f"  grants: {sending['grants']}")
    if notices["waiting"] or notices["dropped"] or notices["trouble"]:
        console.print(f"notices: {escape(str(notices))}")


def _number(value: float | None, unit: float = 1) -> str:
    return "" if value is None else f"{value / unit:,.0f}"
