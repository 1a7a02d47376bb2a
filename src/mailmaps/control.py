"""The control socket: one JSON object a line each way, for the commands that ask a running daemon.

{"command": "explain", "table": "virtual_alias_maps", "key": "info@example.com"}
-> {"answer": ...}  or  {"error": "..."}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mailmaps.logs import events

log = events(__name__)

LONGEST_LINE = 64 * 1024

# Commands of one client under way, some more when they come together; it is not read from meanwhile.
MOST_AT_ONCE = 16

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class CommandError(Exception):
    """The command cannot be carried out; the text is for the person who gave it."""


class ControlConnection(asyncio.Protocol):
    """One client of the control socket. `commands` by name; each takes and gives a JSON object."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._buffer = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self._read_on()

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > LONGEST_LINE:
            self._transport.abort()
            return
        for line in lines:
            task = asyncio.ensure_future(self._carry_out(line))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if len(self._tasks) >= MOST_AT_ONCE:
            self._transport.pause_reading()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._read_on()

    def _read_on(self) -> None:
        if self._writable and len(self._tasks) < MOST_AT_ONCE and not self._transport.is_closing():
            self._transport.resume_reading()

    async def _carry_out(self, line: bytes) -> None:
        try:
            reply = await self._reply(line)
        except CommandError as error:
            reply = {"error": str(error)}
        except Exception:
            log.exception("internal error")
            reply = {"error": "internal error; see the log"}
        self._transport.write(json.dumps(reply).encode() + b"\n")

    async def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"not JSON: {error}") from None
        name = request.get("command") if isinstance(request, dict) else None
        if not isinstance(name, str) or name not in self._commands:
            raise CommandError("no such command; known are " + ", ".join(self._commands))
        return await self._commands[name](request)
