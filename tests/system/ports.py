"""Ports for servers that go and come back.

A port that the kernel gives out (`processes.free_ports`) may be some client's own once the server is down,
and then the server cannot have it back. These lie below that range, as PostgreSQL's do (demo/postgres.py).
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress

RANGE = range(10_000, 17_000)
"""Below net.ipv4.ip_local_port_range (32768), mailmaps' own (17011) and the embedded PostgreSQL's (20000)."""

_GIVEN_OUT: set[int] = set()


def steady_ports(count: int) -> list[int]:
    """As many different ports that nobody listens on; none that this process was given before."""
    ports: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(ports) == count:
            break
        if port not in _GIVEN_OUT and _is_free(port):
            _GIVEN_OUT.add(port)
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
