"""mailmaps config, mailmaps postfix-config: the settings that Postfix and mailmaps share."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import click

from mailmaps import postconf
from mailmaps.cli.options import EX_CONFIG, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.config import Settings
from mailmaps.config.edit import set_values
from mailmaps.maps.tables import KINDS
from mailmaps.postconf import PostconfError

QUEUE_DIRECTORY = "/var/spool/postfix/"  # Postfix's default

config_dir_option = click.option(
    "--config-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Postfix's config_directory.  [default: the system's]",
)


@click.command("config")
@click.option("--from-postconf", is_flag=True, help="Fill the [postfix] section from `postconf`.")
@config_dir_option
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Start from this file.  [default: the shipped, documented mailmaps.toml]",
)
def print_config(from_postconf: bool, config_dir: Path | None, config: Path | None) -> None:
    """Print a complete mailmaps.toml; redirect it to where you want it."""
    text = config.read_text() if config else files("mailmaps").joinpath("mailmaps.toml").read_text()
    if from_postconf:
        try:
            found = postconf.read(config_dir)
        except PostconfError as error:
            raise Failure(str(error), EX_UNAVAILABLE) from None
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        # JSON's strings, lists and booleans are TOML's too.
        values = {name: json.dumps(value, ensure_ascii=False) for name, value in found.values.items()}
        text = set_values(text, "postfix", values)
    click.echo(text, nl=False)


@click.command("postfix-config")
@config_option
@click.option("--map-type", type=click.Choice(["tcp", "socketmap"]), default="tcp", show_default=True)
def postfix_config(config: Path, map_type: str) -> None:
    """Print the main.cf lines for exactly these settings."""
    settings = read_settings(config)
    click.echo("\n".join(main_cf(settings, map_type)))


def main_cf(settings: Settings, map_type: str) -> list[str]:
    """The lines of main.cf, comments included. Never a network table for what virtual(8) reads."""
    if settings.builtin_tables:
        usual = {kind.name for kind in KINDS.values() if kind.tcp_port}
        others = [name for name in settings.tables if name not in usual]
        return _usual_tables(settings, map_type) + _tables(settings, map_type, others)
    return _tables(settings, map_type, list(settings.tables))


def _tables(settings: Settings, map_type: str, names: list[str]) -> list[str]:
    """A line for each table, in the order of the settings."""
    lines = [line for name in names for line in _table(settings, map_type, name)]
    parameters = {settings.tables[name].parameter for name in names}
    if "virtual_alias_maps" in parameters and "virtual_alias_domains" not in parameters:
        lines += [
            "# Left unset, Postfix would take every key of virtual_alias_maps for a domain.",
            "virtual_alias_domains =",
        ]
    return lines


def _table(settings: Settings, map_type: str, name: str) -> list[str]:
    parameter = settings.tables[name].parameter
    if parameter in OF_VIRTUAL and settings.delivery == "virtual":
        return [
            f"# {parameter}: virtual(8) refuses a network table, so Postfix asks PostgreSQL itself.",
            *_pgsql(settings, name),
        ]
    refusing = KINDS[parameter].refused_by
    if refusing and parameter != "virtual_mailbox_maps":  # which smtpd(8) reads too
        return [f"# {parameter} has to stay as it is: {refusing} refuses every network table."]
    if parameter.startswith("check_"):
        return [f"# In the restriction list: {parameter} {_map(settings, map_type, name)}"]
    return [f"{parameter} = {_map(settings, map_type, name)}"]


def _usual_tables(settings: Settings, map_type: str) -> list[str]:
    lines = [
        "# Who is ours, where it goes, what it stands for.",
        f"virtual_mailbox_domains = {_map(settings, map_type, 'virtual_mailbox_domains')}",
        "# Left unset, Postfix would take every key of virtual_alias_maps for a domain.",
        "virtual_alias_domains =",
        f"virtual_alias_maps = {_map(settings, map_type, 'virtual_alias_maps')}",
        f"transport_maps = {_map(settings, map_type, 'transport_maps')}",
    ]
    lines += _delivery(settings, map_type)
    lines += [
        "# Who owns a sender address; asked by reject_sender_login_mismatch.",
        f"smtpd_sender_login_maps = {_map(settings, map_type, 'smtpd_sender_login_maps')}",
        "# If you relay for other hosts (domains and recipients in mailmaps.relays, relay_recipients):",
        f"#relay_domains = {_map(settings, map_type, 'relay_domains')}",
        f"#relay_recipient_maps = {_map(settings, map_type, 'relay_recipient_maps')}",
    ]
    return lines


def _delivery(settings: Settings, map_type: str) -> list[str]:
    if settings.delivery != "virtual":
        return [
            "# Delivery is not virtual(8)'s, so smtpd(8) alone reads virtual_mailbox_maps.",
            f"virtual_transport = {settings.delivery}",
            f"virtual_mailbox_maps = {_map(settings, map_type, 'virtual_mailbox_maps')}",
        ]
    return [
        '# delivery = "virtual": virtual(8) reads the next three, and it refuses every network table there',
        "# (mail would be deferred). So Postfix asks PostgreSQL itself for them. Each file has hosts, user,",
        "# password and dbname like the .cf files you have, and the query beside it. The how-to's own files",
        "# know nothing of `active`: with them, smtpd(8) accepts what mailmaps has ended.",
        *(line for table in OF_VIRTUAL for line in _pgsql(settings, table)),
        '# Or set delivery = "lmtp:..." to hand the mail to Dovecot.',
    ]


# What virtual(8) reads (src/virtual/virtual.c:480-493).
OF_VIRTUAL = ("virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps")


def _pgsql(settings: Settings, table: str) -> list[str]:
    """The line with which Postfix asks PostgreSQL; a table made of .cf files has them already."""
    sources = settings.tables[table].sources
    if all(source.startswith("pgsql:") for source in sources):
        return [f"{settings.tables[table].parameter} = {', '.join(sources)}"]
    return [
        f"#   query = SELECT value FROM mailmaps.{table} WHERE key = '%s'",  # noqa: S608  # our name
        f"{table} = pgsql:/etc/postfix/mailmaps-{table}.cf",
    ]


def _map(settings: Settings, map_type: str, table: str) -> str:
    if map_type == "tcp":
        if not settings.tables[table].tcp:
            raise Failure(f"tables.{table}.tcp is empty: there is no tcp endpoint to name", EX_CONFIG)
        return f"tcp:{settings.tables[table].tcp}"
    if settings.socketmap.inet:
        return f"socketmap:inet:{settings.socketmap.inet}:{table}"
    if settings.socketmap.unix:
        # A chrooted client sees the queue directory as its root; relative to it, both find the socket.
        return f"socketmap:unix:{settings.socketmap.unix.removeprefix(QUEUE_DIRECTORY)}:{table}"
    raise Failure("socketmap.inet and socketmap.unix are empty: there is no endpoint to name", EX_CONFIG)
