"""mailmaps forward: addresses whose mail goes on to others."""

from __future__ import annotations

from pathlib import Path

import click

from mailmaps.administration import addresses as work
from mailmaps.cli.administration import (
    domain_filter,
    flag,
    force_option,
    json_option,
    like_option,
    perform,
    perform_asked,
    print_list,
    text,
    yes_option,
)
from mailmaps.cli.administration import show as print_one
from mailmaps.cli.options import config_option
from mailmaps.database.administration_lists import FORWARDS

address_argument = click.argument("address")
targets_argument = click.argument("targets", nargs=-1, metavar="[TARGET]...")


@click.group()
def forward() -> None:
    """Addresses whose mail goes on to others, here or elsewhere."""


@forward.command()
@config_option
@address_argument
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@json_option
def add(config: Path, address: str, targets: tuple[str, ...], as_json: bool) -> None:
    """Have mail for ADDRESS go to every TARGET as well. @DOMAIN is every address there that nobody has."""
    perform(config, lambda _: work.add_forward(address, targets), as_json=as_json)


@forward.command()
@config_option
@address_argument
@json_option
def show(config: Path, address: str, as_json: bool) -> None:
    """Show where mail for ADDRESS goes."""
    print_one(config, lambda: work.show_forward(address), as_json=as_json)


@forward.command("list")
@config_option
@like_option
@domain_filter
@json_option
def list_all(config: Path, like: str | None, domain: str | None, as_json: bool) -> None:
    """List forwards, a target a line."""
    columns = {
        "address": text("address"),
        "target": text("target"),
        "": flag("disabled", "disabled"),
    }
    print_list(config, FORWARDS, like, domain, columns, as_json=as_json)


@forward.command()
@config_option
@address_argument
@targets_argument
@force_option
@json_option
def disable(config: Path, address: str, targets: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Have no mail go to these targets (all) for now."""
    perform(config, lambda _: work.disable_forward(address, targets), force=force, as_json=as_json)


@forward.command()
@config_option
@address_argument
@targets_argument
@json_option
def enable(config: Path, address: str, targets: tuple[str, ...], as_json: bool) -> None:
    """Have it go there again."""
    perform(config, lambda _: work.enable_forward(address, targets), as_json=as_json)


@forward.command()
@config_option
@address_argument
@targets_argument
@yes_option
@force_option
@json_option
def remove(
    config: Path, address: str, targets: tuple[str, ...], yes: bool, force: bool, as_json: bool
) -> None:
    """Remove these targets, or the whole forward."""
    perform_asked(
        config, lambda _: work.remove_forward(address, targets), yes=yes, force=force, as_json=as_json
    )
