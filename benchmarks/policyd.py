"""policyd-rate-limit, the sending limit for Postfix that the package index has: a peer, in a venv of its own.

Contract: it is installed from the package index below the folder of the run, configured as its own example is
(a limit by SASL login, counted at DATA) but for one window of an hour, as mailmaps has, that nobody fills,
and its debug output, which is off; it runs as the user who measures and ends with the `with` statement.
SQLite is its default; in PostgreSQL it has mailmaps' `synchronous_commit = off`, so that neither waits for a
disk.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.system.ports import steady_ports

from benchmarks.peers import POLL, START_LIMIT, NotReady

PACKAGES = ("policyd-rate-limit==1.2.0", "psycopg2-binary")
"""The last release (2023). It wants Python's module `imp`, which 3.12 no longer has."""

LAST_PYTHON = (3, 11)

INSTALL_LIMIT = 180.0

HOUR = 3600

SQLITE, POSTGRESQL = 0, 2  # its `backend`


class Unavailable(RuntimeError):
    """It cannot be installed here; the text says why."""


def install(folder: Path) -> Path:
    """The program, in a venv below `folder`. Raises `Unavailable`."""
    if sys.version_info[:2] > LAST_PYTHON:
        raise Unavailable("policyd-rate-limit 1.2.0 imports `imp`, which Python 3.12 no longer has")
    place = folder / "policyd-venv"
    venv.create(place, with_pip=True)
    words = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"policyd-rate-limit cannot be installed: {error.stderr.strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"policyd-rate-limit: pip took more than {INSTALL_LIMIT:g} s") from error
    return place / "bin" / "policyd-rate-limit"


@contextmanager
def policyd(program: Path, folder: Path, limit: int, dsn: str = "") -> Iterator[int]:
    """One running, that counts in PostgreSQL by a `dsn`, or else in SQLite; gives its port.

    Raises `NotReady` with what it said.
    """
    folder.mkdir()
    (port,) = steady_ports(1)
    file = folder / "policyd.yaml"
    file.write_text(json.dumps(_settings(folder, port, limit, dsn)))  # YAML knows JSON
    file.chmod(0o600)
    output = folder / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [str(program), "--file", str(file)], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
    try:
        _wait(process, port, output)
        yield port
    finally:
        process.kill()
        process.wait()


def database(folder: Path) -> Path:
    """Where it counts in SQLite."""
    return folder / "count.sqlite3"


def _settings(folder: Path, port: int, limit: int, dsn: str) -> dict[str, object]:
    return {
        "debug": False,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "group": grp.getgrgid(os.getegid()).gr_name,
        "pidfile": str(folder / "pid"),
        "SOCKET": ["127.0.0.1", port],
        "limits": [[limit, HOUR]],
        "limit_by_sasl": True,
        "count_mode": 1,
        "sql_limits_by_id": "",
        "backend": POSTGRESQL if dsn else SQLITE,
        "sqlite_config": {"database": str(database(folder))},
        "pgsql_config": _connection(dsn) if dsn else {},
    }


def _connection(dsn: str) -> dict[str, object]:
    """What psycopg2 is told."""
    url = urlsplit(dsn)
    return {
        "host": url.hostname,
        "port": url.port,
        "user": unquote(url.username or ""),
        "dbname": url.path.removeprefix("/"),
        "options": "-c synchronous_commit=off",
    }


def _wait(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                said = output.read_text(errors="replace")
                raise NotReady(f"policyd-rate-limit did not start: {said}") from None
            time.sleep(POLL)
