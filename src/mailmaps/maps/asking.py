"""Questions that are on their way to the sources, and who waits for them.

However many ask the same, the sources are asked once; who hangs up takes nothing away from the others. No
question takes longer than the deadline. All have the same one, so the oldest is the next to end, and one
timer watches over thousands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from mailmaps.maps.answer import CannotSay
from mailmaps.maps.cache import Candidates, Row

# What a question ends with: `CannotSay`, or an error of ours.
Outcome = Row | BaseException


class _Question:
    __slots__ = ("task", "tell", "until")

    def __init__(self, task: asyncio.Task[Row], until: float) -> None:
        self.task = task
        self.until = until
        self.tell: list[Callable[[Outcome], None]] = []


class Asking:
    """`search` finds a row and raises `CannotSay`; it is cancelled after `deadline` seconds."""

    def __init__(self, search: Callable[[Candidates], Coroutine[Any, Any, Row]], deadline: float) -> None:
        self._search = search
        self._deadline = deadline
        self._to_join: dict[Candidates, _Question] = {}
        self._oldest_first: deque[_Question] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, candidates: Candidates, tell: Callable[[Outcome], None]) -> None:
        """Have `tell` called, once and never before this returns, with what the sources say."""
        question = self._to_join.get(candidates)
        if question is None:
            question = self._begin(candidates)
        question.tell.append(tell)

    def part(self) -> None:
        """Whoever asks from now on is not told what those before are."""
        self._to_join.clear()

    async def idle(self) -> None:
        """Wait until every question that is under way now has ended."""
        if tasks := [question.task for question in self._oldest_first if not question.task.done()]:
            await asyncio.wait(tasks)

    def _begin(self, candidates: Candidates) -> _Question:
        loop = asyncio.get_running_loop()
        question = _Question(loop.create_task(self._search(candidates)), loop.time() + self._deadline)
        question.task.add_done_callback(partial(self._ended, candidates, question))
        self._to_join[candidates] = question
        while self._oldest_first and self._oldest_first[0].task.done():
            self._oldest_first.popleft()
        self._oldest_first.append(question)
        if self._timer is None:
            self._timer = loop.call_at(question.until, self._end_overdue)
        return question

    def _end_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        while self._oldest_first:
            oldest = self._oldest_first[0]
            if not oldest.task.done() and oldest.until > now:
                self._timer = loop.call_at(oldest.until, self._end_overdue)
                break
            oldest.task.cancel()
            self._oldest_first.popleft()

    def _ended(self, candidates: Candidates, question: _Question, task: asyncio.Task[Row]) -> None:
        if self._to_join.get(candidates) is question:
            del self._to_join[candidates]
        outcome: Outcome
        if task.cancelled():
            outcome = CannotSay(f"no answer from the database within {self._deadline:g} s")
        else:
            outcome = task.exception() or task.result()
        for tell in question.tell:
            tell(outcome)
