"""mailmaps login: what the running daemon says to a login, as Dovecot hears it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mailmaps.cli.options import EX_TEMPFAIL, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.client import open_unix
from mailmaps.protocols.tab_escaped import escape, parameters

ACCEPTED, REJECTED = 0, 1

_WORDS = {b"OK": "accepted", b"NO": "rejected", b"UNKNOWN": "unknown"}


@click.command()
@config_option
@click.option("--service", default="imap", show_default=True, help="imap, pop3, smtp, sieve, lmtp...")
@click.option("--lookup", is_flag=True, help="Ask who the user is, without a password, as LMTP does.")
@click.option(
    "--dovecot", type=click.Choice(["2.3", "2.4"]), default="2.3", help="Whose names the fields have."
)
@click.argument("user")
@click.pass_context
def login(context: click.Context, config: Path, service: str, lookup: bool, dovecot: str, user: str) -> None:
    """Try a login at the running daemon; the password comes from a prompt, or is the first line of stdin.

    Exit code: 0 accepted, 1 rejected or unknown, 75 cannot say now.
    """
    path = read_settings(config).login.unix
    if not path:
        raise Failure("the settings have no login socket (login.unix)", EX_UNAVAILABLE)
    fields = [("user", user), ("service", service), ("dovecot", dovecot)]
    if not lookup:
        fields.append(("password", _password()))
    words = [f"{name}=".encode() + escape(value.encode(errors="surrogateescape")) for name, value in fields]
    line = b"\t".join([b"LOOKUP" if lookup else b"LOGIN", *words]) + b"\n"
    try:
        with open_unix(path) as sock, sock.makefile("rwb") as stream:
            stream.write(line)
            stream.flush()
            reply = stream.readline()
    except OSError as error:
        raise Failure(f"mailmaps does not answer on {path}: {error}", EX_TEMPFAIL) from None
    word, *rest = reply.rstrip(b"\n").split(b"\t")
    if word not in _WORDS:
        reason = b" ".join(rest).decode(errors="replace") or "it broke off"
        raise Failure(f"cannot say now: {reason}", EX_TEMPFAIL)
    click.echo(_WORDS[word])
    for name, value in parameters(rest).items():
        click.echo(f"  {name}={value.decode(errors='replace')}")
    context.exit(ACCEPTED if word == b"OK" else REJECTED)


def _password() -> str:
    if sys.stdin.isatty():
        prompted: str = click.prompt("Password", hide_input=True, err=True)
        return prompted
    return sys.stdin.readline().rstrip("\n")
