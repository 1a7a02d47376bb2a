"""PostgreSQL URIs (libpq, "Connection URIs"): checked, split by host, and never shown.

A password with `/`, `#` or `?` that is not percent-encoded makes the rest of a URI fall apart, and the
pieces would end up in error texts. So a URI is taken apart once, here, and errors are fixed texts.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

NOT_A_DSN = (
    "not a PostgreSQL URI (postgresql://user@host:port/database); "
    "percent-encode what is special in the password, or use password_file"
)

# host, host:port or [address]:port, each possibly empty; a host may be a socket's folder (%2Frun%2F...).
_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])(?::([0-9]{0,5}))?"
)


def check_dsn(dsn: str) -> str:
    """Return `dsn` if it can be used. Raises `ValueError`, whose text shows nothing of it."""
    try:
        parts = urlsplit(dsn)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(NOT_A_DSN) from None
    user, _, hosts = parts.netloc.rpartition("@")
    fits = (
        parts.scheme in ("postgresql", "postgres")
        and "//" in dsn[: len(parts.scheme) + 3]
        and not parts.fragment
        and "@" not in user + parts.path + parts.query
        and all(_is_host(host) for host in hosts.split(","))
    )
    if not fits:
        raise ValueError(NOT_A_DSN)
    if "connect_timeout" in parameters:
        raise ValueError("connect_timeout in the URI is not used; set database.connect_timeout")
    return dsn


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    return match is not None and int(match[1] or 0) < 65536


def each_host(dsn: str) -> list[str]:
    """Split a checked DSN with several hosts ("Specifying Multiple Hosts") into one DSN a host."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [dsn]
    return [urlunsplit(parts._replace(netloc=user + at + host)) for host in hosts.split(",")]


def place(dsn: str) -> str:
    """Host and port of a checked DSN, for messages."""
    return urlsplit(dsn).netloc.rpartition("@")[2] or "the default host"


def database_name(dsn: str) -> str:
    """The database that a checked URI names; empty: the user's own."""
    return urlsplit(dsn).path.removeprefix("/")
