"""A bare uvloop policy server around a dict of pairs: what policy delegation costs in Python at the least.

    python -m benchmarks.bare_policy FILE      FILE has a login and a sender that it may use a line, apart by
                                               a tab

One process of its own. Prints its port, a line, then serves. It finds where a request ends, takes it apart
into its attributes, looks one pair up and says DUNNO or a refusal: what every policy server must do, and
nothing more. No request is checked, no sender completed, folded or searched for, nothing is counted or
logged: a peer, not a server.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from pathlib import Path

import uvloop

PR_SET_PDEATHSIG = 1

Pairs = dict[tuple[bytes, ...], bool]


class BarePolicy(asyncio.Protocol):
    """One client."""

    def __init__(self, pairs: Pairs) -> None:
        self._may = pairs.get
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(b"\n\n")
        self._write(b"".join([self._reply(request) for request in requests]))

    def _reply(self, request: bytes) -> bytes:
        attributes = dict([line.split(b"=", 1) for line in request.split(b"\n")])
        pair = attributes[b"sasl_username"], attributes[b"sender"]
        if self._may(pair):
            return b"action=DUNNO\n\n"
        return b"action=553 5.7.1 You are logged in as %s, which may not send as %s.\n\n" % pair


async def serve(pairs: Pairs) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: BarePolicy(pairs), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    rows = (line.split(b"\t") for line in Path(sys.argv[1]).read_bytes().splitlines())
    uvloop.run(serve(dict.fromkeys(map(tuple, rows), True)))
