"""Postfix of a new site: the lines of `mailmaps postfix-config`, put where they belong, with a way back.

Before anything is written it is known what each line replaces. A table that the site has for itself is never
replaced unasked: its entries would no longer be found, and that mail would bounce. Postfix must find what it
is told to ask, so the files or the daemon have to be there before.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mailmaps import postconf
from mailmaps.config import Settings
from mailmaps.config.section import split_inet
from mailmaps.migration import commands, configuration, uses
from mailmaps.migration.plan import Change
from mailmaps.postconf import PostconfError, Service
from mailmaps.setup import files

# Parameters that are no tables: what was there is shown, and replaced.
PLAIN = frozenset({"lmdb_map_size", "virtual_mailbox_limit", "virtual_minimum_uid"})

# What the site has chosen stays: it decides who gets mail about trouble, and no mail's way.
LEFT = frozenset({"notify_classes"})

# Tables that are files, as postfix-lmdb and postfix-cdb read them.
FILE_TYPES = ("lmdb", "cdb")

MASTER, MAIN = "master.cf", "main.cf"

# Seconds for `postfix check`, which looks at every file of the queue directory's structure, and for a reload.
COMMAND_SECONDS = 60.0

# Seconds for one of our own ports on this machine to accept.
CONNECT_SECONDS = 3.0


class Obstacle(Exception):
    """Nothing was done; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Plan:
    """What changes in one configuration directory, in the words of `postconf`.

    `first`: no parameter names a file of ours yet, so that no mail depends on what is in them.
    """

    directory: Path
    changes: list[Change]
    services: dict[str, Service]
    first: bool

    def lines(self) -> list[str]:
        """Each change as lines of a diff."""
        found = []
        for one in self.changes:
            name = f"{one.service}: -o {one.parameter}" if one.service else one.parameter
            found += [] if one.old is None else [f"- {name} = {one.old}".rstrip()]
            found += [f"+ {name} = {one.new}".rstrip()]
        return found


def parameters_in(lines: Iterable[str]) -> dict[str, str]:
    """The parameters of main.cf that the lines of `mailmaps postfix-config` set; comments are not."""
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def plan(
    settings: Settings,
    directory: Path,
    wanted: Mapping[str, str],
    options: Mapping[tuple[str, str], str],
    *,
    replace: bool,
) -> Plan:
    """What has to change so that main.cf has `wanted` and master.cf `options` (by service and parameter).

    Raises `Obstacle`, `PostconfError`.
    """
    site = configuration.read(directory)
    if found := uses.find(site):
        places = ", ".join(use.place for use in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        raise Obstacle(
            [
                f"this Postfix asks pgsql: already ({places}): `mailmaps migrate` moves these "
                "(docs/migrating.md)"
            ]
        )
    problems = [
        f"there is no service {service} in master.cf"
        for service, _ in options
        if service not in site.services
    ]
    changes = []
    own = {(one.service, one.parameter): one.value for one in site.overrides}
    for (service, parameter), value in options.items():
        if (old := own.get((service, parameter))) != value:
            changes.append(Change(parameter, service, old, value, ""))
    for parameter, value in wanted.items():
        old = site.written.get(parameter)
        if old == value or (parameter in LEFT and old is not None):
            continue
        changes.append(Change(parameter, "", old, value, ""))
    if not replace:
        problems += [
            f"{_place(one)} is {one.old}: what it has would no longer be found. Move it to the database "
            "(`mailmaps domain`, `account`, `forward`) and remove the line, or replace it with --replace"
            for one in changes
            if one.old and one.parameter not in PLAIN and not _is_ours(one.old, settings)
        ]
    if problems:
        raise Obstacle(problems)
    files_of_ours = re.compile(
        rf"({'|'.join(FILE_TYPES)}):{re.escape(settings.filemaps.directory.rstrip('/'))}/"
    )
    in_use = [*site.written.values(), *own.values()]
    first = not any(files_of_ours.search(value) for value in in_use)
    return Plan(directory, changes, site.services, first)


# Places that are named.
SHOWN = 3


def _place(change: Change) -> str:
    return (
        f"master.cf {change.service} -o {change.parameter}"
        if change.service
        else f"main.cf: {change.parameter}"
    )


def _is_ours(value: str, settings: Settings) -> bool:
    """Whether every word of a value is a table of this mailmaps."""
    tables = [f"tcp:{inet}" for inet in settings.inet_endpoints().values()]
    starts = (
        *(f"{kind}:{settings.filemaps.directory.rstrip('/')}/" for kind in FILE_TYPES),
        f"socketmap:inet:{settings.socketmap.inet}:",
        *(f"socketmap:unix:{path}:" for path in _paths(settings.socketmap.unix)),
    )
    words = re.split(r"[\s,]+", value.strip())
    return all(word in tables or word.startswith(starts) for word in words)


def _paths(unix: str) -> list[str]:
    """How main.cf may name a socket: a chrooted Postfix leaves out where the path begins."""
    queue = "/var/spool/postfix/"
    return [unix, unix.removeprefix(queue), f"/{unix.removeprefix(queue)}"] if unix else []


def missing(settings: Settings, values: Iterable[str], supported: Iterable[str]) -> list[str]:
    """What Postfix would not find, files apart: types that it cannot read, ports where nobody listens."""
    words = _words(values)
    known = set(supported)
    problems = [
        f"Postfix cannot read {kind}: files: apt-get install postfix-{kind}"
        for kind in FILE_TYPES
        if kind not in known and any(word.startswith(f"{kind}:") for word in words)
    ]
    ports = [word.removeprefix("tcp:") for word in words if word.startswith("tcp:")]
    ports += [settings.socketmap.inet] if any(word.startswith("socketmap:") for word in words) else []
    if silent := [port for port in ports if not _answers(port)]:
        problems.append(
            f"nobody listens at {', '.join(silent)}: systemctl start mailmaps, or mail would wait"
        )
    return problems


def missing_files(values: Iterable[str]) -> list[Path]:
    """The files that the values name and that are not there: Postfix would take their tables for broken."""
    split = (word.partition(":") for word in _words(values))
    paths = [Path(f"{name}.{kind}") for kind, _, name in split if kind in FILE_TYPES]
    return [path for path in paths if not path.exists()]


def _words(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for value in values for word in re.split(r"[\s,]+", value)))


def _answers(inet: str) -> bool:
    try:
        socket.create_connection(split_inet(inet), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def map_types(directory: Path) -> list[str]:
    """The map types that this Postfix can read. Raises `PostconfError`."""
    return postconf.map_types(directory)


def back(copies: Mapping[str, Path], directory: Path) -> str:
    """The command that brings the old files back."""
    words = [f"cp -p {copy} {directory / name}" for name, copy in copies.items()]
    return " && ".join([*words, f"postfix -c {directory} reload"])


def apply(made: Plan) -> dict[str, Path]:
    """Write it; the copies of main.cf and master.cf as they were, by name.

    Raises `Obstacle` where Postfix refuses it: everything is then as it was. `OSError`.
    """
    copies = {name: files.backup(made.directory / name) for name in (MAIN, MASTER)}
    try:
        for command in commands.switch(made.changes, made.services):
            postconf.edit(made.directory, *command)
        if complaint := _run("postfix", "-c", str(made.directory), "check"):
            raise Obstacle([f"postfix check: {complaint}"])
    except BaseException as error:
        for name, copy in copies.items():  # bytes: comments may be in any encoding
            files.write(made.directory / name, copy.read_bytes(), files.PUBLIC)
            copy.unlink()
        if isinstance(error, PostconfError):
            raise Obstacle([str(error)]) from None
        raise
    return copies


def _run(*words: str) -> str:
    """What a command says when it fails; empty when all is well."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=COMMAND_SECONDS,
            check=False,
            env=postconf.environment(),
        )
    except FileNotFoundError:
        return f"{words[0]} is not installed here"
    except subprocess.TimeoutExpired:
        return f"no answer within {COMMAND_SECONDS:g} s"
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")


def reload(directory: Path) -> str:
    """Have a running Postfix read its settings; why not, or empty."""
    if _run("postfix", "-c", str(directory), "status"):
        return "Postfix does not run; it reads its settings when it starts"
    return _run("postfix", "-c", str(directory), "reload")
