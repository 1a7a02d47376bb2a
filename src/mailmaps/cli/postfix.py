"""mailmaps config, mailmaps postfix-config: the settings that Postfix and mailmaps share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from mailmaps import postconf
from mailmaps.cli.options import EX_CONFIG, EX_UNAVAILABLE, Failure, config_option, read_settings
from mailmaps.config import Settings
from mailmaps.config.edit import set_values
from mailmaps.filemaps.targets import QUEUED, listable, targets, why_not
from mailmaps.maps.tables import KINDS
from mailmaps.postconf import PostconfError

QUEUE_DIRECTORY = "/var/spool/postfix/"  # Postfix's default
FILE_TYPES = ("lmdb", "cdb")
MAP_TYPES = ("tcp", "socketmap", *FILE_TYPES)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads the second file of a table, in which what was removed stays for a while (`filemaps.linger`).

    `parameter` is read by everybody from the plain file, by `program` alone from the second one: it meets
    mail that smtpd(8) has accepted before. `service` is its name in master.cf, `entry` Debian's line.
    """

    parameter: str
    program: str
    service: str
    entry: str


READERS = (
    Reader(
        "virtual_mailbox_maps",
        "virtual",
        "virtual/unix",
        "virtual   unix  -       n       n       -       -       virtual",
    ),
    Reader(
        "virtual_alias_maps",
        "cleanup",
        "cleanup/unix",
        "cleanup   unix  n       -       y       -       0       cleanup",
    ),
)

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
@click.option("--map-type", type=click.Choice(MAP_TYPES), default="tcp", show_default=True)
def postfix_config(config: Path, map_type: str) -> None:
    """Print the main.cf lines for exactly these settings.

    tcp and socketmap: Postfix asks `mailmaps serve`; lmdb and cdb: it reads what `mailmaps filemaps` writes.
    """
    settings = read_settings(config)
    click.echo("\n".join(main_cf(settings, map_type) + policy(settings)))


def main_cf(settings: Settings, map_type: str) -> list[str]:
    """The lines of main.cf, comments included. Never a network table for what virtual(8) reads."""
    if map_type in FILE_TYPES and map_type != settings.filemaps.type:
        raise Failure(
            f'filemaps.type is "{settings.filemaps.type}", so there will be no {map_type} files; '
            f'say filemaps.type = "{map_type}" in mailmaps.toml if you want these',
            EX_CONFIG,
        )
    head = [f"# Files that `mailmaps filemaps` writes. Debian's Postfix reads them with postfix-{map_type}."]
    if map_type == "lmdb":
        head += [
            "# Address space for each file, which costs nothing. Beyond it (default: 16 MB) a file that",
            "# grows just while a process opens it is a broken table to that process.",
            "lmdb_map_size = 1073741824",
            "# What a file cannot say is 451 4.3.5 to Postfix, which would mail its postmaster each time.",
            "notify_classes = resource",
        ]
    if settings.builtin_tables:
        usual = {kind.name for kind in KINDS.values() if kind.tcp_port}
        others = [name for name in settings.tables if name not in usual]
        lines = _usual_tables(settings, map_type) + _tables(settings, map_type, others)
    else:
        lines = _tables(settings, map_type, list(settings.tables))
    lines = lines if map_type not in FILE_TYPES else head + lines + _master_cf(settings, map_type)
    return lines + _logins(settings)


def _tables(settings: Settings, map_type: str, names: list[str]) -> list[str]:
    """A line for each table, in the order of the settings."""
    lines = [line for name in names for line in _table(settings, map_type, name)]
    parameters = {settings.tables[name].parameter for name in names}
    if "virtual_alias_maps" in parameters and "virtual_alias_domains" not in parameters:
        lines += [
            "# Left unset, Postfix would take every key of virtual_alias_maps for a domain.",
            "virtual_alias_domains =",
        ]
    if map_type in FILE_TYPES and "virtual_mailbox_maps" in parameters:
        lines += _places(settings)
    return lines


def _table(settings: Settings, map_type: str, name: str) -> list[str]:
    parameter = settings.tables[name].parameter
    if map_type in FILE_TYPES:
        return _file_table(settings, map_type, name)
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


def _file_table(settings: Settings, map_type: str, name: str) -> list[str]:
    """The line of a table that is a file, or of one that Postfix has to go on asking PostgreSQL for."""
    parameter = settings.tables[name].parameter
    if parameter in ("virtual_uid_maps", "virtual_gid_maps") and settings.delivery != "virtual":
        return []
    if not in_a_file(settings, name):
        because = "its rows cannot be listed" if why_not(settings, name) else NOT_ALONE
        line = _pgsql(settings, name)
        if parameter.startswith("check_"):
            line[-1] = f"# In the restriction list: {parameter} {line[-1].partition(' = ')[2]}"
        return [f"# {parameter}: {because}, so Postfix asks PostgreSQL itself.", *line]
    if parameter.startswith("check_"):
        return [f"# In the restriction list: {parameter} {_map(settings, map_type, name)}"]
    return [f"{parameter} = {_map(settings, map_type, name)}"]


def _usual_tables(settings: Settings, map_type: str) -> list[str]:
    def line(name: str, before: str = "") -> list[str]:
        if map_type in FILE_TYPES:
            lines = _file_table(settings, map_type, name)
        else:
            lines = [f"{name} = {_map(settings, map_type, name)}"]
        return [*lines[:-1], f"{before}{lines[-1]}"]

    return [
        "# Who is ours, where it goes, what it stands for.",
        *line("virtual_mailbox_domains"),
        "# Left unset, Postfix would take every key of virtual_alias_maps for a domain.",
        "virtual_alias_domains =",
        *line("virtual_alias_maps"),
        *line("transport_maps"),
        *_delivery(settings, map_type),
        "# Who owns a sender address; asked by reject_sender_login_mismatch.",
        *line("smtpd_sender_login_maps"),
        "# If you relay for other hosts (domains and recipients in mailmaps.relays, relay_recipients):",
        *line("relay_domains", "#"),
        *line("relay_recipient_maps", "#"),
    ]


def _delivery(settings: Settings, map_type: str) -> list[str]:
    by_file = map_type in FILE_TYPES
    if settings.delivery != "virtual":
        mailboxes = f"virtual_mailbox_maps = {_map(settings, map_type, 'virtual_mailbox_maps')}"
        return [
            "# Delivery is not virtual(8)'s, so smtpd(8) alone reads virtual_mailbox_maps.",
            f"virtual_transport = {settings.delivery}",
            *(_file_table(settings, map_type, "virtual_mailbox_maps") if by_file else [mailboxes]),
        ]
    if by_file:
        return [
            "# Each mailbox, and who owns it.",
            *(line for table in OF_VIRTUAL for line in _file_table(settings, map_type, table)),
            *_places(settings),
        ]
    return [
        '# delivery = "virtual": virtual(8) reads the next three, and it refuses every network table there',
        "# (mail would be deferred). So Postfix asks PostgreSQL itself for them. Each file has hosts, user,",
        "# password and dbname like the .cf files you have, and the query beside it. The how-to's own files",
        "# know nothing of `active`: with them, smtpd(8) accepts what mailmaps has ended.",
        *(line for table in OF_VIRTUAL for line in _pgsql(settings, table)),
        "# Better: files for all tables, which need no PostgreSQL while mail flows:",
        f"# `mailmaps filemaps` and `mailmaps postfix-config --map-type {settings.filemaps.type}`.",
        '# Or set delivery = "lmtp:..." to hand the mail to Dovecot.',
    ]


def _places(settings: Settings) -> list[str]:
    """What virtual(8) delivers with, besides its tables, where it has files."""
    mailboxes = [name for name, one in settings.tables.items() if one.parameter == "virtual_mailbox_maps"]
    if settings.delivery != "virtual" or not all(in_a_file(settings, name) for name in mailboxes):
        return []
    base = settings.postfix.virtual_mailbox_base
    where = [
        "# Where all mailboxes are; postfix.virtual_mailbox_base in mailmaps.toml is the same:",
        "#virtual_mailbox_base = /var/local/mail",
    ]
    return [
        *([f"virtual_mailbox_base = {base}"] if base else where),
        f"virtual_minimum_uid = {settings.postfix.virtual_minimum_uid}",
        "# message_size_limit bounds a message already. Another limit here must not be below it: virtual(8)",
        "# would not start; and mail for a mailbox (or, in a Maildir, a message) that is larger bounces.",
        "virtual_mailbox_limit = 0",
    ]


def queued_options(settings: Settings, map_type: str) -> list[tuple[Reader, str]]:
    """The `parameter=value` of master.cf for readers of a table's second file; none for network tables."""
    if map_type not in FILE_TYPES:
        return []
    entries = [one for one in READERS if one.program != "virtual" or settings.delivery == "virtual"]
    files = {target.file for target in targets(listable(settings))}
    return [
        (one, f"{one.parameter}={_map(settings, map_type, name)}{QUEUED}")
        for one in entries
        for name in settings.tables
        if settings.tables[name].parameter == one.parameter and f"{name}{QUEUED}" in files
        if in_a_file(settings, name)
    ]


def _master_cf(settings: Settings, map_type: str) -> list[str]:
    """The entries of master.cf that need an option, as comments."""
    options = queued_options(settings, map_type)
    if not options:
        return []
    return [
        "# And for mail that is in the queue when its mailbox or alias is removed, in master.cf:",
        *(f"#   postconf -P '{one.service}/{option}'" for one, option in options),
        "# which makes these entries of Debian's:",
        *(text for one, option in options for text in (f"#   {one.entry}", f"#     -o {option}")),
    ]


def _logins(settings: Settings) -> list[str]:
    """The options of submission that name our auth socket, as comments: they are for master.cf."""
    door = settings.dovecot_auth
    if not door.unix and not door.inet:
        return []
    path = door.unix.removeprefix(QUEUE_DIRECTORY) or f"inet:{door.inet}"
    notes = ["# (Not below the queue directory: smtpd must not be chrooted.)"] if path.startswith("/") else []
    options = (
        "smtpd_tls_security_level=encrypt",
        "smtpd_tls_auth_only=yes",
        "smtpd_sasl_auth_enable=yes",
        "smtpd_sasl_type=dovecot",
        f"smtpd_sasl_path={path}",
    )
    return [
        "# Logins, for submission only, in master.cf, where Debian has it as a comment (the last three for",
        "# submissions too, beside smtpd_tls_wrappermode=yes); never for port 25:",
        *notes,
        *(f"#   postconf -P 'submission/inet/{option}'" for option in options),
    ]


def policy(settings: Settings) -> list[str]:
    """The options of submission, and the line for port 25, that name our policy service, as comments."""
    door = settings.policy
    if not door.inet and not door.unix:
        return []
    path = door.unix.removeprefix(QUEUE_DIRECTORY)
    service = f"check_policy_service,inet:{door.inet}" if door.inet else f"check_policy_service,unix:{path}"
    alone = not door.inet and path.startswith("/")
    notes = ["# (Not below the queue directory: smtpd must not be chrooted.)"] if alone else []
    return [
        "# Who may send as whom, and how much ([senders], [limits]), for submission and submissions, in the",
        "# place of reject_sender_login_mismatch, and before anything that permits; in master.cf:",
        *notes,
        f"#   postconf -P 'submission/inet/smtpd_sender_restrictions={service}'",
        f"#   postconf -P 'submission/inet/smtpd_data_restrictions=reject_unauth_pipelining,{service}'",
        "# On port 25 it says who is not logged in and sends as one of us (senders.unauthenticated):",
        f"#smtpd_sender_restrictions = {service.replace(',', ' ')}",
    ]


# What virtual(8) reads (src/virtual/virtual.c:480-493).
OF_VIRTUAL = ("virtual_mailbox_maps", "virtual_uid_maps", "virtual_gid_maps")


def in_a_file(settings: Settings, table: str) -> bool:
    """Whether Postfix shall read a table from a file: all that virtual(8) reads is in files, or nothing."""
    if settings.tables[table].parameter not in OF_VIRTUAL or settings.delivery != "virtual":
        return not why_not(settings, table)
    return all(
        not why_not(settings, name) for name, one in settings.tables.items() if one.parameter in OF_VIRTUAL
    )


NOT_ALONE = "virtual(8) reads it with others whose rows cannot be listed"


def _pgsql(settings: Settings, table: str) -> list[str]:
    """The lines with which Postfix asks PostgreSQL: its `.cf` files as they are, and one for each view."""
    parameter = settings.tables[table].parameter
    queries: list[str] = []
    maps: list[str] = []
    for source in settings.tables[table].sources:
        if source.startswith("pgsql:"):
            maps.append(source)
            continue
        view = source.removeprefix("view:") if source != "builtin" else f"mailmaps.{table}"
        name = table if not queries else f"{table}-{len(queries) + 1}"
        queries.append(f"#   query = SELECT value FROM {view} WHERE key = '%s'")  # noqa: S608  # our name
        maps.append(f"pgsql:/etc/postfix/mailmaps-{name}.cf")
    return [*queries, f"{parameter} = {', '.join(maps)}"]


def _map(settings: Settings, map_type: str, table: str) -> str:
    if map_type in FILE_TYPES:
        return f"{map_type}:{settings.filemaps.directory.rstrip('/')}/{table}"
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
