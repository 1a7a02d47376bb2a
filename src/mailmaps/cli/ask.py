"""mailmaps query, explain, reload: what a running daemon answers, and why; and its settings anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from mailmaps.cli.options import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.client import SocketmapClient, TcpTableClient, open_inet, open_unix
from mailmaps.config import Settings
from mailmaps.config.section import split_inet
from mailmaps.maps.answer import Found, NotFound

FOUND, NOT_FOUND = 0, 1

table_argument = click.argument("table", metavar="TABLE")


@click.command()
@config_option
@table_argument
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.pass_context
def query(context: click.Context, config: Path, table: str, keys: tuple[str, ...]) -> None:
    """Ask the running daemon like `postmap -q`.

    Exit code: 0 found, 1 not found, 75 cannot say now; of several keys the worst.
    """
    settings = _settings_with(config, table)
    worst = FOUND
    with ExitStack() as stack:
        client = _client(settings, table, stack)
        for key in keys:
            answer = client.ask(key)
            if isinstance(answer, Found):
                click.echo(answer.value if len(keys) == 1 else f"{key}\t{answer.value}")
            elif isinstance(answer, NotFound):
                worst = max(worst, NOT_FOUND)
            else:
                click.echo(f"{key}: cannot say now: {answer.reason}", err=True)
                worst = max(worst, EX_TEMPFAIL)
    context.exit(worst)


@click.command()
@config_option
@table_argument
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
def explain(config: Path, table: str, key: str, as_json: bool) -> None:
    """Show how the running daemon answers one key: the candidates, the row, what was put back."""
    settings = _settings_with(config, table)
    reply = ask_daemon(settings, {"command": "explain", "table": table, "key": key})
    if as_json:
        click.echo(json.dumps(reply, ensure_ascii=False))
        return
    _show(table, key, reply)


@click.command("reload")
@config_option
def reload_settings(config: Path) -> None:
    """Have the running daemon read its settings and the files they name anew, as SIGHUP does.

    When something is wrong with them it is said here, nothing changes, and the exit code is 78.
    """
    outcome = ask_daemon(read_settings(config), {"command": "reload"}, RELOAD_PATIENCE)
    if outcome["problems"]:
        raise Failure("not reloaded, the old stays in use:\n" + "\n".join(outcome["problems"]), EX_CONFIG)
    click.echo("\n".join(["reloaded", *outcome["warnings"]]))


def _settings_with(config: Path, table: str) -> Settings:
    settings = read_settings(config)
    if table not in settings.tables:
        known = ", ".join(settings.tables)
        raise click.BadParameter(f"the settings have no such table; they have {known}", param_hint="TABLE")
    return settings


def files_of_daemon(settings: Settings) -> list[str]:
    """The `pgsql:` sources that the running daemon has read; none where no daemon answers."""
    try:
        return list(ask_daemon(settings, {"command": "status"})["files"])
    except (Failure, KeyError):
        return []


def _client(settings: Settings, table: str, stack: ExitStack) -> TcpTableClient | SocketmapClient:
    tcp, socketmap = settings.tables[table].tcp, settings.socketmap
    try:
        if tcp:
            return TcpTableClient(stack.enter_context(open_inet(*split_inet(tcp))))
        if socketmap.inet:
            return SocketmapClient(stack.enter_context(open_inet(*split_inet(socketmap.inet))), table)
        if socketmap.unix:
            return SocketmapClient(stack.enter_context(open_unix(socketmap.unix)), table)
    except OSError as error:
        raise Failure(f"mailmaps does not answer: {error}", EX_TEMPFAIL) from None
    raise Failure(f"the settings give {table} no endpoint", EX_UNAVAILABLE)


# Seconds. Each file may take lookup_deadline to be planned, and a reload before ours as long again.
RELOAD_PATIENCE = 120.0


def ask_daemon(
    settings: Settings, request: Mapping[str, Any], patience: float | None = None
) -> dict[str, Any]:
    """What the running daemon replies on its control socket. Raises `Failure`."""
    if not settings.control.unix:
        raise Failure("the settings have no control socket (control.unix)", EX_UNAVAILABLE)
    try:
        with open_unix(settings.control.unix) as sock, sock.makefile("rwb") as stream:
            if patience is not None:
                sock.settimeout(patience)
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            line = stream.readline()
            if not line:
                raise Failure("mailmaps has stopped meanwhile", EX_TEMPFAIL)
            reply: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise Failure(f"mailmaps does not answer on {settings.control.unix}: {error}", EX_TEMPFAIL) from None
    if "error" in reply:
        raise Failure(reply["error"])
    return reply


def _show(table: str, key: str, reply: dict[str, Any]) -> None:
    console = Console(highlight=False)
    row = reply["row"]
    grid = Grid(title=f"{table}: {escape(key)}", title_justify="left")
    grid.add_column("#", justify="right")
    grid.add_column("candidate")
    grid.add_column("row")
    for number, candidate in enumerate(reply["candidates"]):
        answered = row is not None and number == row["index"]
        overtaken = row is not None and 0 <= row["index"] < number
        values = (", ".join(row["values"]) or "(known, answers nothing)") if answered else ""
        note = values if answered else "not asked for" if overtaken else "no row"
        grid.add_row(str(number + 1), escape(candidate), escape(note) if row is not None else "cannot say")
    if reply["candidates"]:
        console.print(grid)
    console.print(f"answer: [bold]{reply['answer']}[/]", end="")
    console.print(f" {escape(reply['value'])}" if reply["value"] else "", end="")
    console.print(f" ({escape(reply['reason'])})" if reply["reason"] else "")
    if reply["put_back"]:
        console.print(f"put back: {escape(reply['put_back'])}")
    source = f", source {escape(row['source'])}" if row and row["source"] else ""
    console.print(f"said by: {reply['said_by']}{source}")
