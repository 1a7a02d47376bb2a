"""mailmaps account: who has a mailbox. Passwords come from the terminal or from stdin, never from argv."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from mailmaps.administration import accounts
from mailmaps.administration.accounts import RIGHTS, NewAccount
from mailmaps.auth.passwords import default_scheme, is_locked, looks_like_a_hash, make
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
from mailmaps.cli.options import Failure, config_option, read_settings
from mailmaps.config import Settings
from mailmaps.database.administration_lists import ACCOUNTS

username_argument = click.argument("username")
stdin_option = click.option(
    "--password-stdin", is_flag=True, help="The password is the only line of stdin, and not asked for."
)
hash_option = click.option(
    "--hash-stdin", is_flag=True, help="The same, but a hash as `mailmaps hash` prints it."
)


@click.group()
def account() -> None:
    """Who has a mailbox here, and what he may do."""


@account.command()
@config_option
@username_argument
@click.argument("email")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS", help="Another one.  [repeatable]")
@click.option("--mailbox", metavar="PATH", help="Below the base.  [default: DOMAIN/LOCAL-PART of the email]")
@click.option("--quota", type=click.IntRange(0, 2**31 - 1), default=0, metavar="MB", help="0: none.")
@click.option("--uid", type=click.IntRange(1, 2**31 - 1), help="[default: one that nobody has had]")
@click.option("--no-login", is_flag=True, help="Mail is kept, nobody logs in; no password is asked for.")
@click.option("--without", multiple=True, type=click.Choice(RIGHTS), help="What it may not do.  [repeatable]")
@click.option(
    "--adopt", is_flag=True, help="Take over the mail that is in its mailbox already, with its uid."
)
@click.option(
    "--folder/--no-folder",
    default=None,
    help="Make the mailbox folder, as root.  [default: if delivery is virtual and there is a base]",
)
@stdin_option
@hash_option
@json_option
def add(
    config: Path,
    username: str,
    email: str,
    addresses: tuple[str, ...],
    mailbox: str | None,
    quota: int,
    uid: int | None,
    no_login: bool,
    without: tuple[str, ...],
    adopt: bool,
    folder: bool | None,
    password_stdin: bool,
    hash_stdin: bool,
    as_json: bool,
) -> None:
    """Make the account USERNAME, whose mail for EMAIL goes to a mailbox of its own."""
    settings = read_settings(config)
    makes = _makes_folder(settings, folder)
    if no_login:
        if password_stdin or hash_stdin:
            raise click.UsageError("--no-login has no password")
        without = tuple(dict.fromkeys((*without, *(right for right in RIGHTS if right != "receive"))))
    new = NewAccount(
        username=username,
        email=email,
        password=None if no_login else _hash(password_stdin, hash_stdin),
        addresses=addresses,
        mailbox=mailbox,
        quota=quota,
        uid=uid,
        without=without,
        adopt=adopt,
        folder=makes,
    )
    perform(config, lambda _: accounts.add(new, settings.postfix.virtual_minimum_uid), as_json=as_json)


def _makes_folder(settings: Settings, folder: bool | None) -> bool:
    base = settings.postfix.virtual_mailbox_base
    makes = (bool(base) and settings.delivery == "virtual") if folder is None else folder
    if makes and not base:
        raise Failure("--folder: postfix.virtual_mailbox_base is not set")
    if makes and os.geteuid() != 0:
        raise Failure("making the mailbox folder needs root (or --no-folder); nothing was changed")
    return makes


@account.command()
@config_option
@username_argument
@stdin_option
@hash_option
@json_option
def passwd(config: Path, username: str, password_stdin: bool, hash_stdin: bool, as_json: bool) -> None:
    """Set the password of USERNAME. What is logged in stays so."""
    read_settings(config)
    stored = _hash(password_stdin, hash_stdin)
    perform(
        config, lambda _: accounts.change(username, password=stored, quota=None, rights={}), as_json=as_json
    )


@account.command()
@config_option
@username_argument
@click.option("--quota", type=click.IntRange(0, 2**31 - 1), metavar="MB", help="0: none.")
@click.option("--allow", multiple=True, type=click.Choice(RIGHTS), help="What it may do.  [repeatable]")
@click.option("--forbid", multiple=True, type=click.Choice(RIGHTS), help="What it may not.  [repeatable]")
@force_option
@json_option
def change(
    config: Path,
    username: str,
    quota: int | None,
    allow: tuple[str, ...],
    forbid: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Change the quota of USERNAME, or what it may do; all else stays."""
    if set(allow) & set(forbid) or (quota is None and not allow and not forbid):
        raise click.UsageError("say what shall change, and nothing both ways")
    rights = dict.fromkeys(allow, True) | dict.fromkeys(forbid, False)
    perform(
        config,
        lambda _: accounts.change(username, password=None, quota=quota, rights=rights),
        force=force,
        as_json=as_json,
    )


@account.command()
@config_option
@username_argument
@json_option
def show(config: Path, username: str, as_json: bool) -> None:
    """Show USERNAME, with its addresses."""
    print_one(config, lambda: accounts.show(username), as_json=as_json)


@account.command("list")
@config_option
@like_option
@domain_filter
@json_option
def list_all(config: Path, like: str | None, domain: str | None, as_json: bool) -> None:
    """List accounts by username."""
    columns = {
        "username": text("username"),
        "email": text("email"),
        "uid": text("uid"),
        "gid": text("gid"),
        "mailbox": text("mailbox"),
        "MB": text("quota"),
        "may not": lambda row: " ".join(right for right in RIGHTS if not row[right]),
        "": flag("active", "disabled", when=False),
    }
    print_list(config, ACCOUNTS, like, domain, columns, as_json=as_json)


usernames_argument = click.argument("usernames", nargs=-1, metavar="[USERNAME]...")


@account.command()
@config_option
@usernames_argument
@domain_filter
@force_option
@json_option
def disable(config: Path, usernames: tuple[str, ...], domain: str | None, force: bool, as_json: bool) -> None:
    """Have mail for USERNAME refused and nobody log in or send as it; what it has stays."""
    _set_active(config, usernames, domain, active=False, force=force, as_json=as_json)


@account.command()
@config_option
@usernames_argument
@domain_filter
@json_option
def enable(config: Path, usernames: tuple[str, ...], domain: str | None, as_json: bool) -> None:
    """Have USERNAME work again."""
    _set_active(config, usernames, domain, active=True, force=False, as_json=as_json)


def _set_active(
    config: Path, usernames: tuple[str, ...], domain: str | None, *, active: bool, force: bool, as_json: bool
) -> None:
    if not usernames and domain is None:
        raise click.UsageError("say which USERNAME, or --domain")
    perform(
        config,
        lambda _: accounts.set_active(usernames, domain, active=active),
        force=force,
        as_json=as_json,
    )


@account.command()
@config_option
@username_argument
@click.option("--with-mail", is_flag=True, help="Delete the mail as well. It cannot be had back.")
@yes_option
@force_option
@json_option
def remove(config: Path, username: str, with_mail: bool, yes: bool, force: bool, as_json: bool) -> None:
    """Remove USERNAME and its addresses. Its mail stays on disk, and nobody gets it by accident."""
    if with_mail:
        needs_root("--with-mail")
    perform_asked(
        config,
        lambda _: accounts.remove(username, with_mail=with_mail),
        yes=yes,
        force=force,
        as_json=as_json,
    )


def _hash(password_stdin: bool, hash_stdin: bool) -> str:
    """What is stored, of a password or hash from stdin, or of one that is typed twice."""
    if password_stdin and hash_stdin:
        raise click.UsageError("--password-stdin and --hash-stdin exclude each other")
    if hash_stdin:
        stored = _line("hash").decode("utf-8", "replace")
        if is_locked(stored) or not stored.isprintable() or not looks_like_a_hash(stored):
            raise Failure("stdin has no hash that anybody could log in by; nothing was changed")
        return stored
    if password_stdin:
        password = _line("password")
    elif sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        password = typed.encode("utf-8", "surrogateescape")
    else:
        raise Failure("nobody is here to type a password: --password-stdin takes it; nothing was changed")
    try:
        return make(password, default_scheme())
    except ValueError as error:
        raise Failure(f"{error}; nothing was changed") from None


def _line(what: str) -> bytes:
    lines = sys.stdin.buffer.read().removesuffix(b"\n").split(b"\n")
    if len(lines) != 1:
        raise Failure(f"stdin must have one line, the {what}; nothing was changed")
    return lines[0].removesuffix(b"\r")
