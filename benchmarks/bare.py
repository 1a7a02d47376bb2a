"""A bare uvloop protocol around a dict: what tcp_table(5) costs in Python when nothing has to be known.

    python -m benchmarks.bare FILE      FILE has a key and its value a line, apart by a tab

One process of its own. Prints its port, a line, then serves. No search order, no folding, no quoting, no
limits: a peer, not a server.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from pathlib import Path

import uvloop

PR_SET_PDEATHSIG = 1


class Bare(asyncio.Protocol):
    """One client."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._get = values.get
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._write(b"".join([self._reply(line) for line in lines]))

    def _reply(self, line: bytes) -> bytes:
        value = self._get(line[4:])
        return b"500 not%20found\n" if value is None else b"200 " + value + b"\n"


async def serve(values: dict[bytes, bytes]) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Bare(values), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    rows = (line.split(b"\t") for line in Path(sys.argv[1]).read_bytes().splitlines())
    uvloop.run(serve({key: value for key, value in rows}))  # noqa: C416
