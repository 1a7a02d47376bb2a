"""mailmaps senders: why somebody may or may not send as an address, and whom the check would hit."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from mailmaps.cli.ask import ask_daemon
from mailmaps.cli.options import EX_TEMPFAIL, config_option, read_settings

ALLOWED, REFUSED = 0, 1

# What `observed` takes, besides a bare number of seconds.
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Duration(click.ParamType[float]):
    """90, 30m, 24h, 7d as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises `click.BadParameter`."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", str(value))
        if match is None:
            self.fail("not a time such as 30m, 24h or 7d", param, ctx)
        return float(int(match[1]) * _UNITS[match[2] or "s"])


@click.group()
def senders() -> None:
    """Who may send as whom, as the running daemon decides it."""


@senders.command()
@config_option
@click.argument("login")
@click.argument("address")
@click.option("--client", metavar="IP", default="", help="From this address; grants may depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.pass_context
def explain(
    context: click.Context, config: Path, login: str, address: str, client: str, as_json: bool
) -> None:
    """Say whether LOGIN may send as ADDRESS, by which rule and row, and what would be needed.

    LOGIN "" is a client that did not log in, ADDRESS "<>" the null sender.
    Exit code: 0 it may, 1 it may not, 75 cannot say now.
    """
    settings = read_settings(config)
    request = {
        "command": "senders explain",
        "login": login,
        "address": "" if address == "<>" else address,
        "client": client,
    }
    reply = ask_daemon(settings, request)
    if as_json:
        click.echo(json.dumps(reply, ensure_ascii=False))
    else:
        _show(login, address, reply)
    context.exit(EX_TEMPFAIL if reply["allowed"] is None else ALLOWED if reply["allowed"] else REFUSED)


@senders.command()
@config_option
@click.option("--since", type=Duration(), default="24h", show_default=True, metavar="TIME")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def observed(config: Path, since: float, as_json: bool) -> None:
    """List whose mail was refused, or would be while senders.mode is "observe"; the most frequent first."""
    reply = ask_daemon(read_settings(config), {"command": "senders observed", "since": since})
    if as_json:
        click.echo(json.dumps(reply, ensure_ascii=False))
        return
    if not reply["observed"]:
        click.echo("nobody was refused, and nobody would have been")
    else:
        _list(reply["observed"])
    if reply["kept"] == "memory":
        click.echo(
            "kept in memory, of this daemon since it started (database.write_dsn keeps them)", err=True
        )


def _show(login: str, address: str, reply: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    who = escape(login) if login else "a client that did not log in"
    if reply["allowed"] is None:
        console.print(
            f"[yellow]cannot say[/] whether {who} may send as {escape(address)}: {escape(reply['by'])}"
        )
    else:
        word = "[green]may[/]" if reply["allowed"] else "[red]may not[/]"
        console.print(f"{who} {word} send as {escape(address)}: {escape(reply['by'])}")
    if reply["needed"]:
        console.print(f"needed: {escape(reply['needed'])}")
    if reply["resolved"] not in ("", address):
        console.print(f"to Postfix the sender is {escape(reply['resolved'])}")
    if reply["candidates"]:
        console.print(f"asked for: {escape(', '.join(reply['candidates']))}")
    if reply["candidates"]:
        console.print(f"smtpd_sender_login_maps {escape(reply['map_says'])}")
    if reply["allowed"] is False and reply["mode"] != "enforce":
        console.print(f"the check refuses nobody now: its mode is {reply['mode']}")


def _list(found: list[dict[str, Any]]) -> None:
    """A line each, as it can go into a mail from cron."""
    for one in sorted(found, key=lambda event: -event["times"]):
        last = datetime.fromtimestamp(one["last"]).astimezone().strftime("%Y-%m-%d %H:%M")
        who = one["login"] or "nobody logged in"
        what = f"{who} as <{one['sender']}> from {one['client']}: {one['verdict']}: {one['why']}"
        click.echo(f"{one['times']:6} times, last {last}: {what}")
