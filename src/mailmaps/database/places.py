"""Where the database of a pgsql_table(5) file is: its `hosts`, as asyncpg wants them.

src/global/dict_pgsql.c:690-825: `unix:/folder` or `/folder`, `inet:host:port` or `host:port`, or a URI. Unix
sockets are preferred to TCP, TCP to URIs; among equals the order is random.
"""

from __future__ import annotations

import random
import re
from typing import Any

from mailmaps.config.dsn import check_dsn, place
from mailmaps.database.connect import Host
from mailmaps.maps.pgsql_cf import Place

_UNIX, _INET, _URI = range(3)


def check(where: Place) -> None:
    """Raises `ValueError` naming the first host that cannot be used."""
    ranked = [_host(host, where) for host in where.hosts]
    if not where.dbname and any(rank != _URI for rank, _ in ranked):
        raise ValueError("dbname is missing (only hosts that are URIs do without)")
    if "=" in where.dbname or where.dbname.startswith(("postgresql://", "postgres://")):
        raise ValueError("dbname is a connection string; write it as a URI in hosts")


def hosts(where: Place) -> list[Host]:
    """The hosts in the order to try them now."""
    ranked = [_host(host, where) for host in where.hosts]
    random.shuffle(ranked)
    return [host for _, host in sorted(ranked, key=lambda one: one[0])]


def _host(host: str, where: Place) -> tuple[int, Host]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", host):
        try:
            return _URI, Host(place(check_dsn(host)), {"dsn": host})
        except ValueError as error:
            raise ValueError(f"a URI in hosts: {error}") from None
    login: dict[str, Any] = {"database": where.dbname}
    login |= {"user": where.user} if where.user else {}
    login |= {"password": where.password} if where.password else {}
    shown = host.rpartition("@")[2]  # a password belongs elsewhere, but somebody may have tried
    address = re.sub(r"^(unix|inet):", "", host)
    if not address or address.startswith("/"):
        return _UNIX, Host(shown, {**login, "host": address} if address else login)
    name, _, port = address.rpartition(":") if ":" in address else (address, "", "")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError("the port of a host in hosts is no number from 1 to 65535")
    return _INET, Host(shown, {**login, "host": name} | ({"port": int(port)} if port else {}))
