"""What systemd does for mailmaps.service, where it is not PID 1: holds the sockets, hands them over, is told.

Contract: `ServiceManager` holds what `listen_*` made from before the first start until `close`, whatever the
daemon does; a daemon that is started with its `wrapper` inherits all of it and has `environment`; `told` is
every line that came by $NOTIFY_SOCKET.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

from tests.system.processes import eventually

HELPER = Path(__file__).with_name("handed_over.py")
BACKLOG = 1024


class ServiceManager:
    """A context manager. With `watchdog` (seconds) the daemon is asked to feed it."""

    def __init__(self, watchdog: float | None = None) -> None:
        self.folder = Path(mkdtemp(prefix="mailmaps-manager-", dir="/tmp"))
        self.sockets: list[socket.socket] = []
        self.names: list[str] = []
        self.told: list[str] = []
        self.environment = {"NOTIFY_SOCKET": str(self.folder / "notify")}
        if watchdog is not None:
            self.environment["WATCHDOG_USEC"] = f"{watchdog * 1e6:.0f}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(self.environment["NOTIFY_SOCKET"])
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(self.folder / "door"))
        self._door.listen()
        for target in (self._hand_over, self._hear):
            threading.Thread(target=target, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def wrapper(self) -> Sequence[str]:
        """What `tests.system.daemon.Daemon` takes."""
        return (sys.executable, "-I", "-S", str(HELPER), str(self.folder / "door"))

    def listen_inet(self, *ports: int, host: str = "127.0.0.1") -> None:
        """Hold these ports."""
        for port in ports:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            self.hold(sock, "inet")

    def listen_unix(self, path: Path, mode: int = 0o660) -> None:
        """Hold a unix socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        path.chmod(mode)
        self.hold(sock, "unix")

    def hold(self, sock: socket.socket, name: str) -> None:
        """Hand this one over too; a stream socket listens from now on."""
        if sock.type == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
        self.sockets.append(sock)
        self.names.append(name)

    def has_been_told(self, line: str, times: int = 1, limit: float = 30.0) -> bool:
        """Whether the line comes so many times within `limit` seconds, counted from the first start."""
        return eventually(lambda: self.told.count(line) >= times, limit)

    def close(self) -> None:
        """Let go of everything."""
        for sock in (*self.sockets, self._notify, self._door):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the threads
            sock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _hand_over(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                with client:
                    names = {"LISTEN_FDNAMES": ":".join(self.names)} if self.names else {}
                    message = json.dumps({**self.environment, **names}).encode()
                    socket.send_fds(client, [message], [sock.fileno() for sock in self.sockets])

    def _hear(self) -> None:
        with suppress(OSError):
            while message := self._notify.recv(65536):
                self.told += message.decode().split("\n")
