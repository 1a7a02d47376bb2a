"""Hears of every change in the database, and proves that it does.

LISTEN is silent when nothing comes, whether nothing changed or nothing gets through (a half-open TCP
connection, PgBouncer in transaction mode). So our own NOTIFY goes out every `HEARTBEAT` seconds over the
same connection, and has to come back. Notifications arrive in the order of their commits, so whoever has
read again what was notified before a beat is current as of the moment the beat was sent.

The channel is `mailmaps`, the payload a JSON object (docs/schema.md):

    {"of": GROUP, "keys": [KEY, ...]}    {"of": GROUP}    {"relation": "SCHEMA.TABLE"}    {"beat": WORD}
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, Protocol

from mailmaps.config.load import SettingsError
from mailmaps.database.connect import BREAKS, ConnectError, Refused, reason

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

from mailmaps.logs import events

log = events(__name__)

CHANNEL = "mailmaps"

# Seconds between our own notifications, and in which one must be back.
HEARTBEAT = 2.0
BEAT_LIMIT = 2.0

# Seconds for `look`, and for `catch_up`, whatever they do.
WORK_LIMIT = 30.0

# Seconds for which one beat proves something: until the next should have been back, and some for the loop.
PROOF = HEARTBEAT + BEAT_LIMIT + 0.5

# Seconds between attempts to listen: doubled up to the longest, with up to half as jitter.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0

# Seconds between complaints about what others notify on our channel.
COMPLAINT = 60.0

# Seconds a listening connection must have lasted for the next pause to be short again.
LASTED = 10.0


class Follower(Protocol):
    """Who acts on changes. The calls come in the order in which things happened in the database."""

    def listening(self) -> None:
        """From here on every change is told; what was read before may have changed."""

    def keys_changed(self, group: str, keys: Sequence[str]) -> None:
        """Rows with these keys, in the views of a group."""

    def group_changed(self, group: str) -> None:
        """Any row in the views of a group."""

    def relation_changed(self, relation: str) -> None:
        """Some row of a table (schema.name)."""

    async def look(self, connection: Connection) -> None:
        """Once a beat: see whether all that should be notified still is."""

    async def catch_up(self, connection: Connection) -> None:
        """Read again what was told before this call, not what comes in the meantime.

        This and `look` raise what asyncpg does for a connection of no use.
        """

    def current_as_of(self, moment: float) -> None:
        """Everything committed before `moment` (of the loop's clock) has been told, or caught up with."""

    def deaf(self) -> None:
        """Nothing is told any more, until `listening`."""

    def unreachable(self) -> None:
        """Nor can anybody connect: the server is away, or hangs."""


class Changes:
    """Listens on a connection of its own, for ever; `start` and `close`."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], follower: Follower, name: str | None = None
    ) -> None:
        """`name` says whom the changes are for, in the log."""
        self._connect = connect
        self._name = name
        self._follower = follower
        self._wake = asyncio.Event()
        self._beat = ""
        self._beat_sent = 0.0
        self._next_beat = 0.0
        self._complain_at = 0.0
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._beat_left = 0.0  # time.monotonic(), which is finer than uvloop's clock
        self._took: float | None = None  # seconds for the last beat that came back
        self.trouble: str | None = None

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`. `lag`: seconds a beat took, or takes already; None: none ever came back."""
        lag = self._took
        if self._beat and self._task is not None:
            lag = max(lag or 0.0, monotonic() - self._beat_left)
        return {"trouble": self.trouble, "lag": lag}

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._keep_listening())

    async def tried(self) -> None:
        """Wait until we listen, or have failed to once."""
        await self._tried.wait()

    def wake(self) -> None:
        """Have `catch_up` called soon."""
        self._wake.set()

    def hurry(self) -> None:
        """The same, with a beat and a `look` before it."""
        self._next_beat = 0.0
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_listening(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            began = loop.time()
            why = await self._listen_until_it_fails()
            if self.trouble is None:
                log.error("changes are not heard of", by=self._name, reason=why)
                self._follower.deaf()
            self.trouble = why
            self._tried.set()
            if loop.time() - began > LASTED:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(1.0, 1.5))  # noqa: S311  # jitter, no secret
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _listen_until_it_fails(self) -> str:
        """Connect and follow; returns why that ended."""
        try:
            connection = await self._connect()
        except (ConnectError, SettingsError) as error:
            if isinstance(error, ConnectError) and error.unreachable:
                self._follower.unreachable()
            return str(error)
        except Exception:  # we must live, or nobody would ever listen again
            log.exception("internal error", during="connecting to listen", by=self._name)
            return "internal error"
        try:
            await self._follow(connection)
        except (Refused, TimeoutError, *BREAKS) as error:
            return reason(error)
        except _Deaf as error:
            return str(error)
        except Exception:
            log.exception("internal error", during="following the changes", by=self._name)
            return "internal error"
        finally:
            connection.terminate()

    async def _follow(self, connection: Connection) -> NoReturn:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(BEAT_LIMIT):
            await connection.add_listener(CHANNEL, self._notified)
        await self._check_direct(connection)
        await self._first_beat(connection)
        while True:
            if not self._beat and loop.time() >= self._next_beat:
                await self._send_beat(connection)
                async with asyncio.timeout(WORK_LIMIT):
                    await self._follower.look(connection)
            self._wake.clear()
            is_back = not self._beat  # what is told from here on was notified after it
            async with asyncio.timeout(WORK_LIMIT):
                await self._follower.catch_up(connection)
            if is_back:
                self._follower.current_as_of(self._beat_sent)
                self._tried.set()
            elif self._beat and loop.time() > self._beat_sent + BEAT_LIMIT:
                raise _Deaf(_NOT_BACK)
            await self._woken(self._beat_sent + BEAT_LIMIT if self._beat else self._next_beat)

    async def _check_direct(self, connection: Connection) -> None:
        """A pooler gives LISTEN and our beat to one server process and drops what others notify.

        The process id that it tells at the beginning is one that it has made up.
        """
        async with asyncio.timeout(BEAT_LIMIT):
            told = await connection.fetchval("SELECT pg_backend_pid()")
        if told != connection.get_server_pid():
            raise _Deaf("a pooler is in between, which drops notifications: set database.listen_dsn")

    async def _first_beat(self, connection: Connection) -> None:
        """Nobody follows until notifications are known to come through."""
        await self._send_beat(connection)
        while self._beat:
            self._wake.clear()
            await self._woken(self._beat_sent + BEAT_LIMIT)
            if self._beat and asyncio.get_running_loop().time() > self._beat_sent + BEAT_LIMIT:
                raise _Deaf(_NOT_BACK)
        if self.trouble is not None:
            log.warning("changes are heard of again", by=self._name)
            self.trouble = None
        self._follower.listening()
        self._next_beat = 0.0

    async def _woken(self, moment: float) -> None:
        """Wait until there is something to do, at most until `moment` of the loop's clock."""
        try:
            async with asyncio.timeout_at(moment):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _send_beat(self, connection: Connection) -> None:
        self._beat = secrets.token_hex(8)
        self._beat_sent = asyncio.get_running_loop().time()
        self._beat_left = monotonic()
        self._next_beat = self._beat_sent + HEARTBEAT
        async with asyncio.timeout(BEAT_LIMIT):
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, json.dumps({"beat": self._beat}))

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            told = json.loads(str(payload))
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):  # anybody may NOTIFY; ours are objects, whatever comes to be in them
            self._complain(payload)
            return
        try:
            self._tell(told)
        except (KeyError, TypeError, ValueError):  # whatever it meant, reading everything again is right
            self._complain(payload)
            self._follower.listening()
        self._wake.set()

    def _complain(self, payload: object) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINT
            log.warning("a notification is none of ours", channel=CHANNEL, payload=payload)

    def _tell(self, told: dict[str, object]) -> None:
        if "beat" in told:
            if told["beat"] == self._beat:
                self._beat = ""
                self._took = monotonic() - self._beat_left
        elif "relation" in told:
            self._follower.relation_changed(str(told["relation"]))
        elif "keys" in told:
            keys = told["keys"]
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise TypeError("keys is a list of texts")
            self._follower.keys_changed(str(told["of"]), keys)
        else:
            self._follower.group_changed(str(told["of"]))


class _Deaf(Exception):
    """Notifications do not come through."""


_NOT_BACK = (
    f"our own notification did not come back within {BEAT_LIMIT:g} s "
    "(through PgBouncer in transaction mode none does: set database.listen_dsn)"
)
