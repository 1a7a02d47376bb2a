"""The settings: every name, type and default of mailmaps.toml.

The shipped mailmaps.toml documents each of them and equals these defaults (tested). Unknown names
and wrong types are errors. A value is never printed, since it may be a password in the wrong place.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from mailmaps.config.dsn import check_dsn
from mailmaps.maps.tables import KINDS


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )


def _inet(value: str) -> str:
    """Check HOST:PORT with a numeric host; Postfix is often chrooted and cannot resolve names."""
    if value:
        split_inet(value)
    return value


def split_inet(value: str) -> tuple[str, int]:
    """Split "127.0.0.1:17011" or "[::1]:17011". Raises `ValueError`."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("not of the form ADDRESS:PORT")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError("the address before the port must be numeric, such as 127.0.0.1") from None
    return bare, int(port)


def _mode(value: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError("not an octal mode such as 0660")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("not a network such as 192.0.2.0/24 (no bits set beyond the prefix)") from None
    return value


def _source(value: str) -> str:
    if value == "builtin" or re.fullmatch(r"view:[A-Za-z_][\w$]*\.[A-Za-z_][\w$]*", value):
        return value
    raise ValueError('not a source; known are "builtin" and "view:SCHEMA.NAME"')


def _delivery(value: str) -> str:
    if value == "virtual" or re.fullmatch(r"[a-z][\w-]*:\S*", value):
        return value
    raise ValueError(
        'not "virtual" nor of the form TRANSPORT:NEXTHOP, such as lmtp:unix:private/dovecot-lmtp'
    )


def _unix_path(value: str) -> str:
    # sun_path holds 108 bytes with its NUL (unix(7)); Postfix dies on longer ones (unix_connect.c:69).
    if value and not value.startswith("/"):
        raise ValueError("a socket needs an absolute path")
    if len(value.encode()) > 107:
        raise ValueError("a socket's path has at most 107 bytes")
    return value


Dsn = Annotated[str, AfterValidator(check_dsn)]
Inet = Annotated[str, AfterValidator(_inet)]
Mode = Annotated[str, AfterValidator(_mode)]
Network = Annotated[str, AfterValidator(_network)]
SourceName = Annotated[str, AfterValidator(_source)]
UnixPath = Annotated[str, AfterValidator(_unix_path)]
Delivery = Annotated[str, AfterValidator(_delivery)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
SecondsOrOff = Annotated[float, Field(ge=0, le=7 * 86400)]


class Log(_Section):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Database(_Section):
    """[database]"""

    dsn: Dsn = Field(default="postgresql://mailreader@127.0.0.1:5432/mail", repr=False)
    password_file: str = ""
    connections: int = Field(default=4, ge=1, le=100)
    connect_timeout: Seconds = 3.0
    lookup_deadline: Seconds = 5.0
    pgbouncer: bool = False
    honour_active: bool | None = None


class Cache(_Section):
    """[cache]"""

    ttl: SecondsOrOff = 30.0
    negative_ttl: SecondsOrOff = 5.0
    size: int = Field(default=100_000, ge=0)
    negative_size: int = Field(default=50_000, ge=0)
    refresh: Seconds = 1.0
    max_stale: SecondsOrOff = 86_400.0
    max_stale_not_found: SecondsOrOff = 600.0


class Postfix(_Section):
    """[postfix]: the main.cf parameters of these names, as Postfix has them."""

    recipient_delimiter: str = ""
    owner_request_special: bool = True
    double_bounce_sender: str = "double-bounce"
    propagate_unmatched_extensions: list[str] = ["canonical", "virtual"]
    myorigin: str = ""
    mydestination: list[str] = []
    inet_interfaces: list[str] = []
    proxy_interfaces: list[str] = []
    parent_domain_matches_subdomains: list[str] = [
        "debug_peer_list",
        "fast_flush_domains",
        "mynetworks",
        "permit_mx_backup_networks",
        "qmqpd_authorized_clients",
        "relay_domains",
        "smtpd_access_maps",
    ]
    smtputf8_enable: bool = True


class Listen(_Section):
    """[listen]"""

    allow_networks: list[Network] = []


class Unix(_Section):
    """A unix socket: path, mode, owner and group."""

    unix: UnixPath = ""
    mode: Mode = "0660"
    owner: str = ""
    group: str = ""


class Socketmap(Unix):
    """[socketmap]"""

    inet: Inet = "127.0.0.1:17020"


class Control(Unix):
    """[control]"""

    unix: UnixPath = "/run/mailmaps/control.sock"


class Table(_Section):
    """[tables.NAME]; the default of `tcp` depends on the table."""

    sources: list[SourceName] = Field(default=["builtin"], min_length=1)
    tcp: Inet = ""


def _default_tables() -> dict[str, Table]:
    return {kind.name: Table(tcp=f"127.0.0.1:{kind.tcp_port}") for kind in KINDS.values()}


def _table_name(value: str) -> str:
    if value not in KINDS:
        raise ValueError("no such table; known are " + ", ".join(KINDS))
    return value


TableName = Annotated[str, AfterValidator(_table_name)]


class Settings(_Section):
    """All of mailmaps.toml."""

    delivery: Delivery = "virtual"
    log: Log = Log()
    database: Database = Database()
    cache: Cache = Cache()
    listen: Listen = Listen()
    socketmap: Socketmap = Socketmap()
    control: Control = Control()
    tables: dict[TableName, Table] = Field(default_factory=_default_tables)
    postfix: Postfix = Postfix()

    @field_validator("tables", mode="before")
    @classmethod
    def _add_default_tables(cls, given: object) -> object:
        """A table that is not mentioned, or mentioned without `tcp`, keeps its default endpoint."""
        if not isinstance(given, dict):
            return given
        defaults = {name: {"tcp": table.tcp} for name, table in _default_tables().items()}
        return defaults | {
            name: defaults.get(name, {}) | table if isinstance(table, dict) else table
            for name, table in given.items()
        }

    @model_validator(mode="after")
    def _endpoints_make_sense(self) -> Settings:
        seen: dict[str, str] = {}
        for path, inet in self.inet_endpoints().items():
            if inet in seen:
                raise ValueError(f"{path} and {seen[inet]} are the same endpoint")
            seen[inet] = path
            if not self.listen.allow_networks and not ipaddress.ip_address(split_inet(inet)[0]).is_loopback:
                raise ValueError(
                    f"{path} is not a loopback address; say in listen.allow_networks who may ask there"
                )
        return self

    def inet_endpoints(self) -> dict[str, str]:
        """The TCP endpoints in use, by the path of the setting that names them."""
        endpoints = {f"tables.{name}.tcp": table.tcp for name, table in self.tables.items()}
        endpoints["socketmap.inet"] = self.socketmap.inet
        return {path: inet for path, inet in endpoints.items() if inet}
