"""Which endpoint of the settings speaks which protocol, and what a running daemon cannot change of them.

The rule it keeps: every endpoint is named here once, with its setting; who binds, who reloads and
who looks whether we live read it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mailmaps.config.section import Unix, split_inet
from mailmaps.config.settings import Settings
from mailmaps.listeners import InetPlace, Place, ProtocolFactory, UnixAccess, UnixPlace
from mailmaps.protocols import tcp_table
from mailmaps.protocols.asked import LoginCodec
from mailmaps.protocols.dovecot_auth import DovecotAuth
from mailmaps.protocols.login import LoginLines
from mailmaps.protocols.request import Codec
from mailmaps.protocols.saslauthd import Saslauthd
from mailmaps.protocols.socketmap import Socketmap

# The endpoints of socketmap, which have no table of their own.
ALL_TABLES = "*"

# The sections that are about listening.
LISTENING = ("listen", "socketmap", "control", "login", "dovecot_auth", "saslauthd", "policy", "metrics")

Speaks = Literal["tcp_table", "socketmap", "login", "dovecot-auth", "saslauthd", "policy", "http", "control"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. `setting` is the path of its setting; `table` is the one that a tcp_table serves."""

    setting: str
    place: Place
    speaks: Speaks
    factory: ProtocolFactory
    table: str = ""


@dataclass(frozen=True, slots=True)
class Doors:
    """What makes a connection of each kind."""

    lookup: Callable[[str, Callable[[], Codec]], ProtocolFactory]  # of a table's name or ALL_TABLES
    login: Callable[[Callable[[], LoginCodec]], ProtocolFactory]
    policy: ProtocolFactory
    http: ProtocolFactory
    control: ProtocolFactory


def endpoints(settings: Settings, doors: Doors) -> Iterator[Endpoint]:
    """All endpoints of the settings, in the order in which they are bound; the control socket is the last."""
    for name, table in settings.tables.items():
        if table.tcp:
            factory = doors.lookup(name, tcp_table.codec(name))
            place = InetPlace(*split_inet(table.tcp))
            yield Endpoint(f"tables.{name}.tcp", place, "tcp_table", factory, name)
    yield from _both("socketmap", settings.socketmap, "socketmap", doors.lookup(ALL_TABLES, Socketmap))
    yield from _both("login", settings.login, "login", doors.login(LoginLines))
    yield from _both("dovecot_auth", settings.dovecot_auth, "dovecot-auth", doors.login(DovecotAuth))
    yield from _both("saslauthd", settings.saslauthd, "saslauthd", doors.login(Saslauthd))
    yield from _both("policy", settings.policy, "policy", doors.policy)
    if settings.metrics.inet:
        yield Endpoint("metrics.inet", InetPlace(*split_inet(settings.metrics.inet)), "http", doors.http)
    yield from _both("control", settings.control, "control", doors.control)


def _both(name: str, section: Unix, speaks: Speaks, factory: ProtocolFactory) -> Iterator[Endpoint]:
    """The TCP endpoint and the unix socket of a section, as far as it has them."""
    if inet := getattr(section, "inet", ""):
        yield Endpoint(f"{name}.inet", InetPlace(*split_inet(inet)), speaks, factory)
    if section.unix:
        access = UnixAccess(int(section.mode, 8), section.owner, section.group)
        yield Endpoint(f"{name}.unix", UnixPlace(Path(section.unix), access), speaks, factory)


def after_a_restart(bound: Settings, wanted: Settings) -> tuple[str, ...]:
    """What of the `wanted` settings is about listening, and so waits until those that are `bound` are not."""
    ours, theirs = bound.inet_endpoints(), wanted.inet_endpoints()
    none = "nothing"
    found = [
        f"{path} = {theirs.get(path, none)}: after a restart; until then {ours.get(path, none)}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]
    found += [
        f"[{name}] takes a restart" for name in LISTENING if getattr(wanted, name) != getattr(bound, name)
    ]
    if (wanted.database, wanted.mirror) != (bound.database, bound.mirror):
        found.append("[database], [mirror]: in use, but what is held is kept on disk after a restart only")
    return tuple(found)
