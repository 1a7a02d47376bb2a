"""How many connections of PostgreSQL are in use while Postfix has many of its own."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from tests.system.daemon import TABLES

from benchmarks.figures import Result, at_most, figure
from benchmarks.peers import Mailmaps
from benchmarks.suite import Suite
from mailmaps.config import Settings
from mailmaps.demo.site import READER

CLIENTS = 200

SETTLED = 7.0
"""Seconds after which the connections of a whole reading are closed again (mirrors/readings.py: 5)."""

IN_USE = "SELECT count(*) AS count FROM pg_stat_activity WHERE usename = $1"


def used(suite: Suite) -> Result:
    """With everything as it comes, and with every lookup a miss."""
    pool = Settings().database.connections
    with suite.mailmaps() as mailmaps:
        reading = _most(suite, mailmaps)
        time.sleep(SETTLED)
        mirrored = _most(suite, mailmaps)
    with suite.mailmaps(mirror=False, settings={"cache": {"ttl": 0, "negative_ttl": 0}}) as mailmaps:
        missing = _most(suite, mailmaps)
    title = f"PostgreSQL connections while {CLIENTS} clients are connected and ask"
    note = f"{pool} for lookups (database.connections) and one to listen"
    return Result(
        [
            figure(title, "", mirrored, at_most(pool + 1), note),
            figure(f"{title}, without mirror and cache", "", missing, at_most(pool)),
            figure(f"{title}, in the seconds of a whole reading", "", reading),
        ]
    )


def _most(suite: Suite, mailmaps: Mailmaps) -> float:
    """The most that are open at a time."""
    most = 0
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(mailmaps, number)) for number in range(CLIENTS)]
        end = time.monotonic() + suite.sizes.seconds
        while time.monotonic() < end:
            _ask_all(clients, suite.dataset.known(CLIENTS, 1))
            _ask_all(clients, suite.dataset.unknown(CLIENTS, "connections"))
            most = max(most, suite.cluster.fetch(IN_USE, READER)[0]["count"])
    return most


def _client(mailmaps: Mailmaps, number: int) -> socket.socket:
    tables = list(TABLES)
    return socket.create_connection(("127.0.0.1", mailmaps.port(tables[number % len(tables)])), timeout=30)


def _ask_all(clients: list[socket.socket], keys: list[str]) -> None:
    """All at once: every key is sent before the first reply is read."""
    for client, key in zip(clients, keys, strict=True):
        client.sendall(f"get {key}\n".encode())
    for client in clients:
        while not client.recv(4096).endswith(b"\n"):
            pass
