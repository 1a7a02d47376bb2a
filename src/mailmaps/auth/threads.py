"""A few threads for what blocks: hashing a password, asking PAM.

The rule it keeps: at most `threads` at a time and `queue` waiting, whoever comes then gets "cannot say" at
once; the lower rank first; what nobody waits for any more is not begun. The threads run at nice 19: at normal
priority hashing raises the 99th percentile of lookups eightfold, so 1.6 times (design notes, tried). They are
daemon threads, since a hanging PAM module must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from itertools import count
from queue import PriorityQueue
from typing import Any, TypeVar

from mailmaps.maps.answer import CannotSay

LOWEST_PRIORITY = 19

# The share of all places that work of a rank may take, so that there is always one for the ranks before it.
SHARES = (1.0, 0.75, 0.5)

T = TypeVar("T")


class Threads:
    """`threads` of them, begun at the first work; `what` is for messages."""

    def __init__(self, what: str, threads: int, queue: int) -> None:
        self._what = what
        self._number = threads
        self._most = threads + queue
        self._jobs: PriorityQueue[tuple[int, int, _Job | None]] = PriorityQueue()
        self._numbers = count()
        self._started: list[threading.Thread] = []
        self.under_way = 0  # running or waiting to; also those that nobody waits for any more

    async def run(self, work: Callable[[], T], rank: int = 0) -> T:
        """Have `work` done and return what it returns, or raise what it raises. Raises `CannotSay`.

        `rank` is an index of `SHARES`.
        """
        if self.under_way >= self._most * SHARES[rank]:
            raise CannotSay(f"too many {self._what} wait")
        if not self._started:
            self._start()
        job = _Job(work, asyncio.get_running_loop(), self._ended)
        self.under_way += 1
        self._jobs.put((rank, next(self._numbers), job))
        result: T = await job.future
        return result

    def close(self) -> None:
        """Let the threads end after what they do now."""
        for _ in self._started:
            self._jobs.put((len(SHARES), next(self._numbers), None))

    def _ended(self) -> None:
        self.under_way -= 1

    def _start(self) -> None:
        for number in range(self._number):
            thread = threading.Thread(target=self._work, name=f"{self._what} {number}", daemon=True)
            self._started.append(thread)
            thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while (job := self._jobs.get()[2]) is not None:
            job.run()


class _Job:
    """One piece of work and the future of its result, which belongs to the loop."""

    def __init__(
        self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, ended: Callable[[], None]
    ) -> None:
        self._work = work
        self._loop = loop
        self._ended = ended
        self.future: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        """In a thread."""
        result, error = None, None
        if not self.future.cancelled():
            try:
                result = self._work()
            except Exception as raised:
                error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for anything any more
            self._loop.call_soon_threadsafe(self._tell, result, error)

    def _tell(self, result: object, error: Exception | None) -> None:
        self._ended()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
