"""Reloads, one at a time: new tables are made beside the old, and used only when all of them work.

The rule it keeps: a storm of requests is two reloads, one that runs and one that will read whatever has been
written since it began; never are more than two sets of tables, with their connections, there at once. What
fails, or is given up, is closed and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mailmaps.config import SettingsError
from mailmaps.logs import events
from mailmaps.tableset import TableSet

log = events(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problems` kept the new from being used, all the same `warnings` what it does not change."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Reloader:
    """`make` reads everything anew; `change_over` puts a set in use and returns the one it replaces.

    `began` and `ended` are called for each reload that is not given up: one after the other.
    """

    def __init__(
        self,
        make: Callable[[], TableSet],
        change_over: Callable[[TableSet], tuple[TableSet, tuple[str, ...]]],
        began: Callable[[], None] = lambda: None,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._change_over = change_over
        self._began = began
        self._has_ended = ended
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Outcome] | None = None  # asked for, and not begun
        self._closing: asyncio.Task[None] | None = None  # of the set before the one in use
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self.counts = {"ok": 0, "kept_old": 0}  # for `mailmaps status`

    def ask(self) -> asyncio.Task[Outcome]:
        """Have a reload made; the same one for all who ask before it begins."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._in_turn())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._ended)
        return self._next

    async def stop(self) -> None:
        """Give up what is under way and close what it made."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._closing is not None:
            await self._closing

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error", during="reloading; the old stays", exc_info=error)

    async def _in_turn(self) -> Outcome:
        async with self._turn:
            if self._closing is not None:
                await self._closing
            self._next = None  # who asks from here on wants what we may have read already to be read again
            self._began()
            try:
                outcome = await self._reload()
            except Exception:
                self._has_ended(Outcome(("an internal error; see the log",)))
                raise
            self._has_ended(outcome)
        self.counts["kept_old" if outcome.problems else "ok"] += 1
        for problem in outcome.problems:
            log.error("not reloaded", reason=problem)
        for warning in outcome.warnings:
            log.warning("reloaded, with a warning", reason=warning)
        return outcome

    async def _reload(self) -> Outcome:
        try:
            fresh = self._make()
        except SettingsError as error:
            return Outcome(tuple(error.problems))
        try:
            if problems := await fresh.start():
                await fresh.close()
                return Outcome(tuple(problems))
        except BaseException:
            await fresh.close()
            raise
        old, warnings = self._change_over(fresh)
        self._closing = asyncio.ensure_future(_close_after_use(old))
        log.info("reloaded", tables=len(fresh.tables))
        return Outcome(warnings=warnings)


async def _close_after_use(old: TableSet) -> None:
    """Lookups that have begun end with what they began with, within their deadline."""
    await old.idle()
    await old.close()
