"""What main.cf and master.cf say, as `mailmaps check` looks at it: who reads what, and where our tables are.

Every service of master.cf has a view of all parameters of its own (`-o`); one that is not looked at may be
the one that goes wrong.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mailmaps import postconf
from mailmaps.cli.restrictions import Smtpd
from mailmaps.config import Settings
from mailmaps.findings import Finding
from mailmaps.postconf import Override

PROGRAMS = ("virtual", "cleanup", "smtpd", "local", "trivial-rewrite")

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

# Seconds for a connection on this machine.
CONNECT_LIMIT = 1.0

# master(5): service type private unpriv chroot wakeup maxproc command
_CHROOT = 4


@dataclass(frozen=True, slots=True)
class Reader:
    """A service of master.cf.

    `values` has all parameters in force for it, expanded; `written` those that main.cf or its own `-o` set,
    as they are written; `chrooted` whether the queue directory is its root.
    """

    service: str
    program: str
    values: dict[str, str]
    written: dict[str, str]
    chrooted: bool

    @property
    def name(self) -> str:
        """As in master.cf: "smtp/inet"."""
        return self.service.removeprefix("master.cf ")


def readers(config_dir: Path) -> list[Reader]:
    """The services whose tables matter. Raises `PostconfError`."""
    local: dict[str, list[Override]] = {}
    for one in postconf.all_overrides(config_dir):
        local.setdefault(one.service, []).append(one)
    common = postconf.parameters(config_dir, all_of_them=True, expanded=True)
    written = postconf.parameters(config_dir)
    found = []
    for service in postconf.services(config_dir).values():
        if service.program not in PROGRAMS:
            continue
        own = local.get(service.name, [])
        values = (
            postconf.parameters(config_dir, all_of_them=True, expanded=True, local=own) if own else common
        )
        found.append(
            Reader(
                f"master.cf {service.name}",
                service.program,
                values,
                written | {one.parameter: one.value for one in own},
                _is_chrooted(service.line.split()[_CHROOT], values),
            )
        )
    return found


def _is_chrooted(word: str, values: dict[str, str]) -> bool:
    """`-` is the default, n from compatibility_level 1 on (COMPATIBILITY_README). Debian writes y or n."""
    return word == "y" or (word == "-" and values.get("compatibility_level", "0") == "0")


def smtpds(among: Iterable[Reader]) -> list[Smtpd]:
    """Every smtpd(8) with what is in force for it."""
    return [Smtpd(reader.name, reader.values) for reader in among if reader.program == "smtpd"]


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """What is said of several services alike becomes one line that names them all."""
    found: dict[tuple[object, ...], Finding] = {}
    for one in findings:
        key = (one.level, one.text, one.remedy)
        if key in found and one.subject not in found[key].subject.split(", "):
            subject = f"{found[key].subject}, {one.subject.removeprefix('master.cf ')}"
            found[key] = replace(one, subject=subject)
        else:
            found.setdefault(key, one)
    return list(found.values())


class Endpoints:
    """The network tables that a value of main.cf names."""

    _PATTERN = re.compile(r"(?<![^\s,{:])(?:tcp|socketmap):[^\s,{}]+")

    def __init__(self, settings: Settings) -> None:
        self._tcp = {f"tcp:{inet}" for inet in settings.inet_endpoints().values()}
        self._inet = settings.socketmap.inet
        self._unix = settings.socketmap.unix

    @classmethod
    def any_in(cls, value: str) -> list[str]:
        """Whoever's they are."""
        return cls._PATTERN.findall(value)

    def ours_in(self, value: str) -> list[str]:
        """Those of this mailmaps. A chrooted Postfix leaves out where a socket's path begins."""
        return [table for table in self.any_in(value) if self.is_ours(table)]

    def is_ours(self, table: str) -> bool:
        """Whether `tcp:HOST:PORT` or `socketmap:...` is an endpoint of the settings."""
        if table.startswith("tcp:"):
            return table in self._tcp
        family, _, where = table.removeprefix("socketmap:").partition(":")
        where = where.rpartition(":")[0]
        if family == "inet":
            return where == self._inet
        return bool(where) and f"/{self._unix}".endswith(f"/{where.lstrip('/')}")


def listens(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_LIMIT).close()
    except OSError:
        return False
    return True
