"""Waiting for conditions, free ports, and the end of a Postfix."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path


def eventually(condition: Callable[[], bool], limit: float, every: float = 0.02) -> bool:
    """Wait until `condition` holds; False when `limit` seconds passed first."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


async def eventually_async(
    condition: Callable[[], bool | Awaitable[bool]], limit: float, every: float = 0.02
) -> bool:
    """The same without stopping the event loop, on which sinks of the test may run."""
    deadline = time.monotonic() + limit
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(every)


_GIVEN_OUT: set[int] = set()
"""Ports whose servers may not have started yet: of a dozen asked for one by one, the kernel gives the same
one twice in every 200th case."""


def free_ports(count: int) -> list[int]:
    """As many different ports that nobody listens on now; none that this process was given before."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = int(probe.getsockname()[1])
            if port not in _GIVEN_OUT:
                _GIVEN_OUT.add(port)
                ports.append(port)
    return ports


def end_master(master: subprocess.Popen[bytes], limit: float) -> None:
    """TERM to master, which passes it on to its process group; what is left of the group is killed."""
    group = master.pid  # master calls setsid() before anything can be asked of it
    master.terminate()
    try:
        master.wait(limit)
    except subprocess.TimeoutExpired:
        master.kill()
        master.wait()
    if not eventually(lambda: not _running(group), limit):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _running(group: int) -> bool:
    """Whether a process of the group runs. Dead ones that nobody has waited for yet do not count: they are
    init's now, and not every container's init is quick about it."""
    return any(state != "Z" and pgrp == group for state, pgrp in _processes())


def _processes() -> Iterator[tuple[str, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # proc(5): pid (comm) state ppid pgrp ...; comm may hold blanks and brackets.
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            yield state, int(pgrp)
