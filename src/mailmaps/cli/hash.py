"""`mailmaps hash`: make a password hash for the database.

The password comes from the terminal or from stdin, never from argv, which everybody on the machine can read.
"""

from __future__ import annotations

import sys

import click

from mailmaps.auth.passwords import SCHEMES, CannotVerify, default_scheme, make, verify
from mailmaps.cli.options import EX_CONFIG, Failure


@click.command("hash")
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES, case_sensitive=False),
    help="The scheme (default: YESCRYPT, or ARGON2ID where libcrypt does not have it).",
)
@click.option("--list", "list_schemes", is_flag=True, help="Print the schemes, the strong ones first.")
@click.option(
    "--check", is_flag=True, help="Read a second line, a hash, and say whether the password fits it."
)
def hash_password(scheme: str | None, list_schemes: bool, check: bool) -> None:
    """Print the hash of a password that is typed, or is the only line of stdin."""
    if sum((scheme is not None, list_schemes, check)) > 1:
        raise click.UsageError("--scheme, --list and --check exclude each other")
    if list_schemes:
        click.echo("\n".join(SCHEMES))
    elif check:
        _check()
    else:
        (password,) = _lines("password")
        try:
            click.echo(make(password, scheme or default_scheme()))
        except ValueError as error:
            raise Failure(str(error)) from None


def _check() -> None:
    password, stored = _lines("password", "hash")
    try:
        fits = verify(password, stored.decode("utf-8", "replace"), allow_plain=True)
    except CannotVerify as error:
        raise Failure(f"cannot say: {error}", EX_CONFIG) from None
    if not fits:
        raise Failure("the password does not fit the hash")
    click.echo("the password fits the hash")


def _lines(*names: str) -> list[bytes]:
    """Ask for each of `names` without echo, or take the lines of stdin, which must be as many."""
    if sys.stdin.isatty():
        return [_typed(name, confirm=len(names) == 1) for name in names]
    lines = sys.stdin.buffer.read().removesuffix(b"\n").split(b"\n")
    if len(lines) != len(names):
        raise Failure(f"stdin must have {len(names)} line{'s' * (len(names) > 1)}: {', '.join(names)}")
    return [line.removesuffix(b"\r") for line in lines]


def _typed(name: str, *, confirm: bool) -> bytes:
    text: str = click.prompt(name.capitalize(), hide_input=True, confirmation_prompt=confirm, err=True)
    return text.encode("utf-8", "surrogateescape")
