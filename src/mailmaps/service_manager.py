"""Tells systemd how we are, by sd_notify(3): datagrams of KEY=VALUE lines to the socket $NOTIFY_SOCKET.

The rule it keeps: where nobody wants to know ($NOTIFY_SOCKET is not set) nothing is done, and telling never
stops the daemon: what cannot be told within `PATIENCE` is logged and given up. The environment variables are
taken out of the environment, so that no program that we start speaks for us.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import MutableMapping
from time import CLOCK_MONOTONIC, clock_gettime_ns

from mailmaps.logs import events

log = events(__name__)

# Seconds for which a full queue of systemd's is waited for; it holds 8 MB.
PATIENCE = 0.5

# While we start, systemd is told every so many seconds to allow us so many more: reading a million rows for
# the first time may take longer than TimeoutStartSec=, and an event loop that hangs says nothing.
EXTEND_EVERY = 10.0
EXTEND_BY = 30.0

# Bytes of STATUS=; systemctl shows one line.
LONGEST_STATUS = 300


class ServiceManager:
    """systemd, or nobody. `address` is a path, or an abstract name behind @; empty: nobody wants to know.

    `watchdog` is the time in seconds within which WATCHDOG=1 is expected again and again; None: it is not.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = watchdog
        # From the beginning: at the descriptor limit there is none to be had, and systemd must hear of us.
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None

    @property
    def listens(self) -> bool:
        """Whether anybody wants to know."""
        return self._sock is not None

    def close(self) -> None:
        """Tell no more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def ready(self, status: str) -> None:
        """We are started, or a reload is over, whatever came of it."""
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        now = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", _status("reloading"))

    def stopping(self) -> None:
        """We have begun to stop."""
        self._tell("STOPPING=1", _status("answering what was asked, then stopping"))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(_status(text))

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    async def extend_start(self) -> None:
        """Ask for more time to start, again and again until cancelled."""
        while self.listens:
            self._tell(f"EXTEND_TIMEOUT_USEC={EXTEND_BY * 1e6:.0f}", _status("reading the tables"))
            await asyncio.sleep(EXTEND_EVERY)

    def _tell(self, *lines: str) -> None:
        if self._sock is None:
            return
        try:
            self._sock.settimeout(PATIENCE)
            self._sock.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            log.warning("systemd cannot be told", what=lines[0], reason=error)


def _status(text: str) -> str:
    line = " ".join(text.split())
    return "STATUS=" + line.encode(errors="replace")[:LONGEST_STATUS].decode(errors="ignore")


def from_environment(environ: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Whom $NOTIFY_SOCKET names, and what $WATCHDOG_USEC and $WATCHDOG_PID say; they are removed."""
    address = environ.pop("NOTIFY_SOCKET", "")
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if address and not address.startswith(("/", "@")):
        log.warning("NOTIFY_SOCKET is neither a path nor an abstract name", value=address)
        address = ""
    watchdog = None
    if address and usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid())):
        watchdog = int(usec) / 1e6
    return ServiceManager(address, watchdog)
