"""What every section of mailmaps.toml is made of: its base, and the types that several sections have."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
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


def _unix_path(value: str) -> str:
    # sun_path holds 108 bytes with its NUL (unix(7)); Postfix dies on longer ones (unix_connect.c:69).
    if value and not value.startswith("/"):
        raise ValueError("a socket needs an absolute path")
    if len(value.encode()) > 107:
        raise ValueError("a socket's path has at most 107 bytes")
    return value


Inet = Annotated[str, AfterValidator(_inet)]
Mode = Annotated[str, AfterValidator(_mode)]
Network = Annotated[str, AfterValidator(_network)]
UnixPath = Annotated[str, AfterValidator(_unix_path)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
SecondsOrOff = Annotated[float, Field(ge=0, le=7 * 86400)]


class Unix(Section):
    """A unix socket: path, mode, owner and group."""

    unix: UnixPath = ""
    mode: Mode = "0660"
    owner: str = ""
    group: str = ""
