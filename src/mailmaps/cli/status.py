"""mailmaps status: whether the running daemon hears of changes, and what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any, Literal

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from mailmaps import __version__
from mailmaps.cli.ask import ask_daemon
from mailmaps.cli.options import EX_UNAVAILABLE, Failure, config_option, read_settings

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
    elif found.get("version") != __version__:
        version = found.get("version", "an older one")
        text = (
            f"the daemon that runs is of version {version}, this is {__version__}: systemctl restart mailmaps"
        )
        raise Failure(text, EX_UNAVAILABLE)
    else:
        _show(found)
    proven = all(mirror["proven"] for mirror in found.get("mirrors", {}).values())
    context.exit(ALL_PROVEN if proven else NOT_PROVEN)


def _show(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for line in _lines(found):
        console.print(escape(line), soft_wrap=True)
    console.print()
    console.print(_databases(found["databases"]))
    console.print()
    console.print(_tables(found))
    for line in _troubles(found):
        console.print(escape(line), soft_wrap=True)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    now, kept_old = time(), found["reloads"]["kept_old"]
    yield (
        f"mailmaps {found['version']}: up {_span(now - found['started'])}; the settings are of "
        f"{_span(now - found['settings_read'])} ago"
        + (f"; {kept_old} reloads failed, see the log" if kept_old else "")
    )
    clients = (f"{name} {counts['open']}" for name, counts in found["clients"].items())
    yield "clients: " + (", ".join(clients) or "nobody yet")
    for of, changes in found["changes"].items():
        heard = "heard of" if changes["trouble"] is None else changes["trouble"]
        yield f"changes for {of}: {heard}"
    if logins := found.get("logins"):
        yield f"logins: {_counted(logins['counts'])}"
    sending, notices = found["sending"], found["notices"]
    yield f"policy: senders {sending['mode']}; {_counted(sending['answers'])}"
    if trouble := sending["limits"]["trouble"]:
        yield f"  limits are counted in memory, as this host alone sees them: {trouble}"
    if "grants" in sending:
        yield f"  grants: {sending['grants']}"
    if notices["waiting"] or notices["dropped"] or notices["trouble"]:
        yield f"notices: {_counted({key: notices[key] for key in ('waiting', 'sent', 'dropped')})}" + (
            f"; {notices['trouble']}" if notices["trouble"] else ""
        )


def _databases(pools: dict[str, Any]) -> Grid:
    grid = _grid("connections to", ">open", ">in use", ">waiting", "up")
    for name, pool in pools.items():
        in_use = pool["open"] - pool["idle"]
        opened = f"{pool['open']} of {pool['size']}"
        grid.add_row(escape(name), opened, str(in_use), str(pool["waiting"]), "no" if pool["away"] else "yes")
    return grid


def _tables(found: dict[str, Any]) -> Grid:
    grid = _grid("table", ">found", ">not found", ">cannot say", ">memory", ">keys held", "proven")
    for name, table in found["tables"].items():
        mirrors = [mirror for view in table["views"] for mirror in _mirrors(found["mirrors"], view)]
        asked = table["hits"] + table["misses"]
        grid.add_row(
            escape(name),
            *(f"{table[result]:,}" for result in ("found", "not_found", "cannot_say")),
            f"{table['hits'] / asked:.0%}" if asked else "",
            f"{sum(mirror['keys'] or 0 for mirror in mirrors):,}" if mirrors else "",
            escape("; ".join(dict.fromkeys(map(_proven, mirrors)))),
        )
    return grid


def _mirrors(mirrors: dict[str, Any], view: str) -> list[dict[str, Any]]:
    """Of one view there may be two, with and without another word for our own delivery."""
    return [mirror for name, mirror in mirrors.items() if name.partition(" ")[0] == view][:1]


def _proven(mirror: dict[str, Any]) -> str:
    if mirror["proven"]:
        return "yes"
    return "no" if mirror["age"] is None else f"{_span(mirror['age'])} ago"


def _troubles(found: dict[str, Any]) -> Iterator[str]:
    """Why something is not as it should be; what several have in common is said once."""
    reasons: dict[str, list[str]] = {}
    for name, pool in found["databases"].items():
        if pool["away"]:
            reasons.setdefault(pool["away"], []).append(name)
    for view, mirror in found["mirrors"].items():
        if not mirror["proven"]:
            reasons.setdefault(mirror["why"], []).append(view)
        if mirror["drift"]:
            yield f"{view}: {mirror['drift']} rows changed unheard of"
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"{', '.join(names[:3])}{more}: {reason}"


def _grid(*columns: str) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        grid.add_column(column.lstrip(">"), justify=side, no_wrap=True)
    return grid


def _counted(counts: dict[str, Any]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.items()) or "not asked yet"


def _span(seconds: float) -> str:
    """In the two largest units: 3 d 4 h."""
    left = int(max(0.0, seconds))
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count} {unit}")
    return " ".join(words[:2])
