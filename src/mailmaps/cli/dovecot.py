"""mailmaps dovecot-config, mailmaps dovecot-files: what Dovecot needs to log users in by mailmaps."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from importlib.resources import files
from pathlib import Path

import click

from mailmaps.cli.options import EX_CONFIG, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.cli.postfix import QUEUE_DIRECTORY
from mailmaps.config import Settings
from mailmaps.dovecot.configuration import DOORS, LIBRARY, Listener, Site, Version, text

DOVECOT_USER = "dovecot"
"""Dovecot's default_internal_user, and its group: as whom it runs its part of a login (master-settings.c)."""

LMTP_PORT = 24
"""What Postfix takes where a nexthop names no port (lmtp_tcp_port, postconf(5))."""

ADDRESS = re.compile(r"\[?(?:ipv6:)?([\d.]+|[\da-f]*:[\da-f:.]*(?=\]))\]?(?::(\d+))?", re.IGNORECASE)
"""[127.0.0.1]:24, 127.0.0.1, [ipv6:::1]:24"""

PROGRAMS = {"checkpassword.py": 0o755, "mailmaps.lua": 0o644}


def _version(context: click.Context, parameter: click.Parameter, value: str) -> Version:
    try:
        return Version.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command("dovecot-config")
@config_option
@click.option(
    "--dovecot",
    "version",
    callback=_version,
    required=True,
    metavar="VERSION",
    help="2.3 or 2.4, or exactly what `dovecot --version` says.",
)
@click.option(
    "--door",
    type=click.Choice(["checkpassword", "lua"]),
    help="How Dovecot asks mailmaps.  [default: checkpassword for 2.3, lua for 2.4]",
)
def dovecot_config(config: Path, version: Version, door: str | None) -> None:
    """Print a complete dovecot.conf for exactly these settings.

    What Dovecot runs for it comes by `mailmaps dovecot-files`. Exit code 78: the settings do not do.
    """
    doors = DOORS[version.dialect]
    if door is not None and door not in doors:
        raise click.UsageError(f"Dovecot {version.dialect} has no {door}; it has --door {doors[0]}")
    door = door or doors[0]
    click.echo(text(site(read_settings(config)), version, door), nl=False)


@click.command("dovecot-files")
@config_option
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path(LIBRARY)
)
def dovecot_files(config: Path, directory: Path) -> None:
    """Write to DIRECTORY (/usr/lib/mailmaps) what Dovecot runs, and where that finds mailmaps."""
    settings = read_settings(config)
    contents = {
        name: (files("mailmaps.dovecot").joinpath(name).read_bytes(), mode) for name, mode in PROGRAMS.items()
    }
    contents["login-socket"] = (f"{_login_unix(settings)}\n".encode(), 0o644)
    for name, (content, mode) in contents.items():
        try:
            directory.mkdir(mode=0o755, exist_ok=True)
            _write(directory / name, content, mode)
        except OSError as error:
            raise Failure(f"{directory / name}: {error.strerror}", EX_UNAVAILABLE) from None
        click.echo(f"wrote {directory / name}")


def site(settings: Settings) -> Site:
    """What the settings say about Dovecot. Raises `Failure`, which names the setting that does not do."""
    if not settings.postfix.virtual_mailbox_base.startswith("/"):
        raise Failure(
            "postfix.virtual_mailbox_base is no absolute path: mailmaps could not tell Dovecot where mail is",
            EX_CONFIG,
        )
    return Site(
        base=settings.postfix.virtual_mailbox_base.rstrip("/"),
        minimum_uid=settings.postfix.virtual_minimum_uid,
        login_unix=_login_unix(settings),
        extra_group=_extra_group(settings),
        lmtp=listener(settings.delivery),
    )


def _login_unix(settings: Settings) -> str:
    if not settings.login.unix:
        raise Failure("login.unix is empty: there is no socket at which Dovecot could ask", EX_CONFIG)
    return settings.login.unix


def _extra_group(settings: Settings) -> str:
    """The group by which Dovecot's user reaches the socket; empty when it does so anyway."""
    login = settings.login
    if login.owner == DOVECOT_USER and int(login.mode, 8) & 0o200:
        return ""
    if not login.group:
        raise Failure(
            'login.group is empty: Dovecot asks as its user dovecot; say group = "dovecot" in [login]',
            EX_CONFIG,
        )
    if not int(login.mode, 8) & 0o020:
        raise Failure(
            "login.mode lets nobody of login.group connect, but Dovecot has to; say 0660", EX_CONFIG
        )
    return "" if login.group == DOVECOT_USER else login.group


def listener(delivery: str) -> Listener | None:
    """Where Dovecot has to listen for the transport `delivery`; None for one that is not LMTP (lmtp(8)).

    A relative unix path is below Postfix's queue directory. Raises `Failure` for a host by name: Dovecot
    listens at addresses.
    """
    transport, _, nexthop = delivery.partition(":")
    if transport != "lmtp":
        return None
    if nexthop.startswith("unix:"):
        return Listener(unix=str(Path(QUEUE_DIRECTORY, nexthop.removeprefix("unix:"))))
    found = ADDRESS.fullmatch(nexthop.removeprefix("inet:"))
    if found is None:
        raise Failure(f"delivery = {delivery!r} names no unix socket and no address to listen at", EX_CONFIG)
    return Listener(host=found[1], port=int(found[2] or LMTP_PORT))


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place of what is there, at once: Dovecot may be running it. Raises `OSError`."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
