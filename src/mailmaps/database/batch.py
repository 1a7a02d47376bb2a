"""Questions that come together go out together: one statement for all that one turn of the loop asks.

A hundred keys in one statement cost PostgreSQL a fifth of a hundred statements. While as many statements
are under way as may be, what comes is gathered for the next. A statement that fails is asked again for each
question by itself, so that one bad key harms nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from mailmaps.database.connect import reason
from mailmaps.logs import events
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.sources import Rows

log = events(__name__)

# Statements that one view is asked at a time: while one is answered, the next is asked. More are smaller, and
# cost PostgreSQL more, and leave other tables fewer connections.
AT_ONCE = 2

# Keys in one statement; some more when the last question has several.
MOST_KEYS = 500

# What no other key would change: the statement took too long (query_canceled; in pieces it would take longer
# still), the view is missing (undefined_table, undefined_column, invalid_schema_name) or not for us.
_NO_KEYS_FAULT = {"57014", "42P01", "42703", "3F000", "42501"}

# Class "data exception", such as a character that the server's encoding does not have.
_KEYS_FAULT = "22"

_Waiting = tuple[Sequence[str], "asyncio.Future[Rows]"]


class Batch:
    """`fetch` asks for keys. At most `at_once` statements run, each for `deadline` seconds at most."""

    def __init__(
        self, name: str, fetch: Callable[[list[str]], Awaitable[Rows]], *, at_once: int, deadline: float
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._room = at_once
        self._deadline = deadline
        self._waiting: deque[_Waiting] = deque()
        self._is_sending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: set[str] = set()

    async def ask(self, keys: Sequence[str]) -> Rows:
        """The rows of these keys. Raises `CannotSay`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Rows] = loop.create_future()
        self._waiting.append((keys, future))
        if not self._is_sending and self._room:
            self._is_sending = True
            loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        self._is_sending = False
        while self._room and self._waiting:
            batch = self._next()
            self._room -= 1
            task = asyncio.ensure_future(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        count = 0
        while self._waiting and count < MOST_KEYS:
            keys, future = self._waiting.popleft()
            if not future.done():
                batch.append((keys, future))
                count += len(keys)
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room += 1
        self._send()
        if not task.cancelled() and (error := task.exception()):
            log.error("internal error", during="asking", source=self._name, exc_info=error)

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            await self._ask_together(batch)
        except TimeoutError:
            _fail(batch, CannotSay(f"no answer from the database within {self._deadline:g} s"))
        except CannotSay as error:
            _fail(batch, error)
        except asyncpg.PostgresError as error:
            _fail(batch, CannotSay(f"database: {reason(error)}"))
        finally:
            _fail(batch, CannotSay("internal error"))  # whatever else it was: nobody may wait for ever

    async def _ask_together(self, batch: list[_Waiting]) -> None:
        keys = list(dict.fromkeys(key for keys, _ in batch for key in keys))
        if not keys:
            return
        async with asyncio.timeout(self._deadline):
            try:
                rows = await self._fetch(keys)
            except asyncpg.PostgresError as error:
                if error.sqlstate in _NO_KEYS_FAULT or (
                    len(batch) == 1 and not error.sqlstate.startswith(_KEYS_FAULT)
                ):
                    raise
                if len(batch) == 1:
                    raise self._about_key(error) from error
                await self._ask_apart(batch)
                return
        for keys_of_one, future in batch:
            if not future.done():
                future.set_result({key: rows[key] for key in keys_of_one if key in rows})

    async def _ask_apart(self, batch: list[_Waiting]) -> None:
        for keys, future in batch:
            try:
                rows = await self._fetch(list(keys))
            except asyncpg.PostgresError as error:
                rows_or_why: Rows | CannotSay = self._about_key(error)
            else:
                rows_or_why = rows
            if future.done():
                continue
            if isinstance(rows_or_why, CannotSay):
                future.set_exception(rows_or_why)
            else:
                future.set_result(rows_or_why)

    def _about_key(self, error: asyncpg.PostgresError) -> CannotSay:
        """What to say of a question that fails by itself; logged once for each kind of error."""
        if error.sqlstate not in self._logged:
            self._logged.add(error.sqlstate)
            log.warning("cannot say for some keys", source=self._name, reason=reason(error))
        return CannotSay(f"database: {reason(error)}", about_key=True)


def _fail(batch: list[_Waiting], error: CannotSay) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
