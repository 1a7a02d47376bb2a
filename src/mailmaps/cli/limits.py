"""mailmaps limits: who has sent how much, who may send more or less, and letting somebody send again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from mailmaps.cli.ask import ask_daemon
from mailmaps.cli.options import config_option, read_settings
from mailmaps.cli.senders import Duration
from mailmaps.policy.texts import shown

FIELDS = ("messages_hour", "messages_day", "recipients_hour", "recipients_day")

name_argument = click.argument("name")
domain_option = click.option("--domain", is_flag=True, help="NAME is a domain, not a login.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")


@click.group()
def limits() -> None:
    """How much logins and domains send, and may send, as the running daemon counts it."""


@limits.command("list")
@config_option
@json_option
def list_all(config: Path, as_json: bool) -> None:
    """List what was sent in the last hour and day, and whose limits are not those of the settings."""
    reply = _ask(config, {"command": "limits list"})
    if as_json:
        click.echo(json.dumps(reply, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if reply["sent"]:
        console.print(_grid(reply["sent"]))
    else:
        console.print("nothing was counted in the last day (only who is limited is counted)")
    for one in reply["overrides"]:
        console.print(f"{one['scope']} {escape(shown(one['name']))}: {escape(_own(one))}")
    _say_where(reply)


@limits.command()
@config_option
@name_argument
@domain_option
@json_option
def show(config: Path, name: str, domain: bool, as_json: bool) -> None:
    """Show what NAME has sent and may send, and why."""
    _show(_ask(config, {"command": "limits show", **_whose(name, domain)}), as_json)


@limits.command("set")
@config_option
@name_argument
@domain_option
@click.option("--messages-hour", type=click.IntRange(0), help="0 is no limit.")
@click.option("--messages-day", type=click.IntRange(0))
@click.option("--recipients-hour", type=click.IntRange(0))
@click.option("--recipients-day", type=click.IntRange(0))
@click.option("--exempt", is_flag=True, help="No limit at all, for a login not even its domain's.")
@click.option("--reason", required=True, help="Why; whoever reads it next year will ask.")
@click.option("--for", "lasting", type=Duration(), metavar="TIME", help="Ends after this time, such as 7d.")
@json_option
def set_limits(
    config: Path,
    name: str,
    domain: bool,
    reason: str,
    lasting: float | None,
    exempt: bool,
    as_json: bool,
    **numbers: int | None,
) -> None:
    """Give NAME limits of its own, in the place of those it has; what is left out is as in the settings."""
    request = {
        "command": "limits set",
        **_whose(name, domain),
        **numbers,
        "exempt": exempt,
        "reason": reason,
        "until": None if lasting is None else time() + lasting,
    }
    _show(_ask(config, request), as_json)


@limits.command()
@config_option
@name_argument
@domain_option
def clear(config: Path, name: str, domain: bool) -> None:
    """Take the limits of its own from NAME: the settings apply again."""
    reply = _ask(config, {"command": "limits clear", **_whose(name, domain)})
    click.echo("cleared" if reply["cleared"] else f"{name} had no limits of its own")


@limits.command()
@config_option
@name_argument
@domain_option
def release(config: Path, name: str, domain: bool) -> None:
    """Forget what NAME has sent, so that it may send again at once."""
    reply = _ask(config, {"command": "limits release", **_whose(name, domain)})
    click.echo(f"released: {reply['messages']} messages of the last day do not count any more")


def _ask(config: Path, request: dict[str, Any]) -> dict[str, Any]:
    return ask_daemon(read_settings(config), request)


def _whose(name: str, domain: bool) -> dict[str, str]:
    return {"name": name, "scope": "domain" if domain else "login"}


def _show(reply: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(reply, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_grid([reply]))
    if reply["override"]:
        console.print(f"its own limits: {escape(_own(reply['override']))}")
    elif not any(number is not None for number in reply["allowed"].values()):
        console.print("no limit applies to it" + (" (exempt)" if reply["exempt"] else ""))
    _say_where(reply)


def _grid(rows: list[dict[str, Any]]) -> Grid:
    grid = Grid("", "name", "messages/hour", "/day", "recipients/hour", "/day")
    for one in rows:
        numbers = (
            f"{one['sent'][field]}" + ("" if (limit := one["allowed"][field]) is None else f" of {limit}")
            for field in FIELDS
        )
        note = " (exempt)" if one["exempt"] else ""
        grid.add_row(one["scope"], escape(shown(one["name"])) + note, *numbers)
    return grid


def _own(one: dict[str, Any]) -> str:
    words = [f"{field.replace('_', '/')} {one[field]}" for field in FIELDS if one[field] is not None]
    words += ["exempt"] if one["exempt"] else []
    until = ""
    if one["until"] is not None:
        when = datetime.fromtimestamp(one["until"]).astimezone().strftime("%Y-%m-%d %H:%M")
        until = f", ended {when}" if one["ended"] else f", until {when}"
    return f"{', '.join(words) or 'none'} ({shown(one['reason'])}{until})"


def _say_where(reply: dict[str, Any]) -> None:
    if reply["counted"] == "memory":
        where = "in memory, by this daemon since it started (database.write_dsn shares it)"
        click.echo(f"counted {where}", err=True)
    elif reply["counted"] != "database":
        click.echo(f"as far as this daemon knows: {reply['counted']}", err=True)
