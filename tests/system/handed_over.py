"""Becomes the command behind it with listening sockets as systemd hands them over: PATH COMMAND...

PATH is the unix socket of `tests.system.service_manager`, which sends the descriptors and the environment.
Nothing but the standard library, and little of it: this runs before every start.
"""

from __future__ import annotations

import json
import os
import socket
import sys

FIRST = 3
MOST = 64


def main() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(sys.argv[1])
        message, descriptors, _, _ = socket.recv_fds(client, 65536, MOST)
    environment = {**os.environ, **json.loads(message)}
    above = [os.dup2(descriptor, FIRST + MOST + number) for number, descriptor in enumerate(descriptors)]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, FIRST + number)  # inheritable, as systemd leaves them
        os.close(descriptor)
    if above:
        environment["LISTEN_PID"] = str(os.getpid())
        environment["LISTEN_FDS"] = str(len(above))
    if "WATCHDOG_USEC" in environment:
        environment["WATCHDOG_PID"] = str(os.getpid())
    os.execvpe(sys.argv[2], sys.argv[2:], environment)  # noqa: S606  # as a service manager does


main()
