"""mailmaps address: further addresses of accounts."""

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
from mailmaps.database.administration_lists import ADDRESSES

addresses_argument = click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")


@click.group()
def address() -> None:
    """Further addresses of accounts. @DOMAIN is every address there that nobody has."""


@address.command()
@config_option
@click.argument("username")
@addresses_argument
@json_option
def add(config: Path, username: str, addresses: tuple[str, ...], as_json: bool) -> None:
    """Have mail for ADDRESS go to USERNAME, who may send as it."""
    perform(config, lambda _: work.add(username, addresses), as_json=as_json)


@address.command()
@config_option
@click.argument("address")
@json_option
def show(config: Path, address: str, as_json: bool) -> None:
    """Show whose ADDRESS is."""
    print_one(config, lambda: work.show(address), as_json=as_json)


@address.command("list")
@config_option
@like_option
@domain_filter
@json_option
def list_all(config: Path, like: str | None, domain: str | None, as_json: bool) -> None:
    """List addresses, each with its account."""
    columns = {
        "address": text("address"),
        "account": text("username"),
        "": flag("disabled", "disabled"),
    }
    print_list(config, ADDRESSES, like, domain, columns, as_json=as_json)


@address.command()
@config_option
@addresses_argument
@force_option
@json_option
def disable(config: Path, addresses: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Have ADDRESS not be there for now; it stays reserved for its account."""
    perform(config, lambda _: work.disable(addresses), force=force, as_json=as_json)


@address.command()
@config_option
@addresses_argument
@json_option
def enable(config: Path, addresses: tuple[str, ...], as_json: bool) -> None:
    """Have it back."""
    perform(config, lambda _: work.enable(addresses), as_json=as_json)


@address.command()
@config_option
@addresses_argument
@yes_option
@force_option
@json_option
def remove(config: Path, addresses: tuple[str, ...], yes: bool, force: bool, as_json: bool) -> None:
    """Take ADDRESS from its account."""
    perform_asked(config, lambda _: work.remove(addresses), yes=yes, force=force, as_json=as_json)
