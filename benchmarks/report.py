"""The table on the screen, and RESULTS.md: what was measured, where, by which commands, and why a target is
missed (`misses.toml`, written by hand: a figure that misses its target without a word in it says so)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Absolute, Figure, Result, Spread, Target

MISSES = Path(__file__).parent / "misses.toml"

HEADINGS = ("what", "median", "lowest to highest", "target", "")


def show(result: Result, console: Console) -> None:
    """Print the table of figures."""
    table = Table(*HEADINGS)
    for one in result.figures:
        style = "red" if one.missed else "" if one.target is None else "green"
        table.add_row(*_cells(one), style=style)
    console.print(table)
    for text in result.left_out:
        console.print(f"left out: {text}", markup=False)


def write(file: Path, result: Result, about: Sequence[tuple[str, str]], commands: Sequence[str]) -> None:
    """Write RESULTS.md."""
    aimed = [(*_cells(one), one.note) for one in result.figures if one.target]
    beside = [(*_cells(one)[:3], one.note) for one in result.figures if not one.target]
    parts = [
        "# Results",
        "Written by `make bench`; see [README.md](README.md) for what each row means. Everything was "
        "measured in one run, peers interleaved; figures in x are the median of the ratios of the rounds, "
        "and the spread is over the rounds. Take the ratios, not the times.",
        _markdown(("", ""), about),
        "## Targets",
        _markdown((*HEADINGS, "remark"), aimed),
        *_explained(result.figures),
        "## Beside them",
        _markdown((*HEADINGS[:3], "remark"), beside),
        *(["Left out:", "\n".join(f"* {text}" for text in result.left_out)] if result.left_out else []),
        "## Each peer's own numbers",
        _markdown(("what", "median", "lowest to highest"), [_absolute(one) for one in result.absolutes]),
        "## Commands",
        "```\n" + "\n".join(commands) + "\n```",
    ]
    file.write_text("\n\n".join(parts) + "\n")


def _explained(figures: Sequence[Figure]) -> list[str]:
    """Why what was missed was missed, and what figures with a word in the file are about."""
    reasons: Mapping[str, str] = tomllib.loads(MISSES.read_text())
    missed = [one for one in figures if one.missed]
    if not missed:
        return []
    lines = [f"* **{one.what}**: {reasons.get(one.what, 'not explained yet.')}" for one in missed]
    return ["### What is missed, and why", "\n".join(lines)]


def _cells(one: Figure) -> tuple[str, str, str, str, str]:
    verdict = "" if one.target is None else "missed" if one.missed else "met"
    return one.what, _number(one.spread.median, one.unit), _range(one.spread, one.unit), _target(one), verdict


def _absolute(one: Absolute) -> tuple[str, str, str]:
    return one.peer, _number(one.spread.median, one.unit), _range(one.spread, one.unit)


def _target(one: Figure) -> str:
    target: Target | None = one.target
    if target is None:
        return ""
    return ("≥ " if target.at_least else "≤ ") + _number(target.limit, one.unit)


def _range(spread: Spread, unit: str) -> str:
    if spread.lowest == spread.highest:
        return ""
    return f"{_plain(spread.lowest)} to {_number(spread.highest, unit)}"


def _number(value: float, unit: str) -> str:
    return f"{_plain(value)} {unit}".strip()


def _plain(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}"


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
