"""mailmaps domain: the domains we take mail for."""

from __future__ import annotations

from pathlib import Path

import click

from mailmaps.administration import domains
from mailmaps.cli.administration import (
    domain_filter,
    flag,
    force_option,
    json_option,
    like_option,
    needs_root,
    perform,
    perform_asked,
    print_list,
    text,
    yes_option,
)
from mailmaps.cli.administration import show as print_one
from mailmaps.cli.options import config_option
from mailmaps.database.administration_lists import DOMAINS

domain_argument = click.argument("domain")


@click.group()
def domain() -> None:
    """The domains we take mail for: our own, aliases of these, and those we pass on."""


@domain.command()
@config_option
@domain_argument
@click.option("--transport", metavar="NAME:NEXTHOP", help="As in transport(5).  [default: virtual:, relay:]")
@click.option("--gid", type=click.IntRange(1, 2**31 - 1), help="Of its mailboxes.  [default: a free one]")
@click.option("--alias-of", metavar="DOMAIN", help="Every address of that domain is one of this too.")
@click.option("--relay", is_flag=True, help="Only pass its mail on.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="ADDRESS", help="With --relay: who exists there."
)
@json_option
def add(
    config: Path,
    domain: str,
    transport: str | None,
    gid: int | None,
    alias_of: str | None,
    relay: bool,
    recipients: tuple[str, ...],
    as_json: bool,
) -> None:
    """Take mail for DOMAIN."""
    if alias_of is not None and (relay or transport is not None or gid is not None):
        raise click.UsageError("--alias-of goes with no other option: all is as in that domain")
    if relay and gid is not None:
        raise click.UsageError("--gid is for domains with mailboxes here")
    if recipients and not relay:
        raise click.UsageError("--recipient goes with --relay")
    if alias_of is not None:
        perform(config, lambda _: domains.add_alias(domain, alias_of), as_json=as_json)
    elif relay:
        perform(config, lambda _: domains.add_relay(domain, transport, recipients), as_json=as_json)
    else:
        perform(config, lambda _: domains.add(domain, transport, gid), as_json=as_json)


@domain.command()
@config_option
@domain_argument
@json_option
def show(config: Path, domain: str, as_json: bool) -> None:
    """Show DOMAIN and how much there is in it."""
    print_one(config, lambda: domains.show(domain), as_json=as_json)


@domain.command("list")
@config_option
@like_option
@domain_filter
@json_option
def list_all(config: Path, like: str | None, domain: str | None, as_json: bool) -> None:
    """List all domains."""
    columns = {
        "domain": text("domain"),
        "kind": text("kind"),
        "gid": text("gid"),
        "transport or target": lambda row: row["transport"] or row["target"] or "",
        "": flag("disabled", "disabled"),
    }
    print_list(config, DOMAINS, like, domain, columns, as_json=as_json)


@domain.command()
@config_option
@domain_argument
@json_option
def disable(config: Path, domain: str, as_json: bool) -> None:
    """Have the mail of DOMAIN wait in the queue. To refuse it: `mailmaps account disable --domain`."""
    perform(config, lambda _: domains.disable(domain), as_json=as_json)


@domain.command()
@config_option
@domain_argument
@json_option
def enable(config: Path, domain: str, as_json: bool) -> None:
    """Have it delivered again."""
    perform(config, lambda _: domains.enable(domain), as_json=as_json)


@domain.command()
@config_option
@domain_argument
@click.option("--with-accounts", is_flag=True, help="Also if it has accounts, which go too.")
@click.option("--with-mail", is_flag=True, help="Delete their mail as well. It cannot be had back.")
@yes_option
@force_option
@json_option
def remove(
    config: Path, domain: str, with_accounts: bool, with_mail: bool, yes: bool, force: bool, as_json: bool
) -> None:
    """Take no more mail for DOMAIN: it goes, with its addresses and forwards. Mail on disk stays."""
    if with_mail:
        needs_root("--with-mail")
    perform_asked(
        config,
        lambda _: domains.remove(domain, with_accounts=with_accounts, with_mail=with_mail),
        yes=yes,
        force=force,
        as_json=as_json,
    )
