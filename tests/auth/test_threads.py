"""The pool of threads for what blocks."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from mailmaps.auth.threads import LOWEST_PRIORITY, Threads
from mailmaps.maps.answer import CannotSay


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_work_is_done_at_the_lowest_priority_and_the_loop_is_not() -> None:
    before = niceness()
    threads = Threads("work", 2, 10)
    assert await threads.run(niceness) == LOWEST_PRIORITY
    assert niceness() == before
    threads.close()


async def test_what_work_raises_is_raised() -> None:
    threads = Threads("work", 1, 10)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 7) == 7
    threads.close()


async def test_beyond_the_queue_nobody_waits_and_what_nobody_waits_for_is_not_begun() -> None:
    threads = Threads("work", 1, 2)
    go, done = threading.Event(), []
    running = asyncio.ensure_future(threads.run(lambda: go.wait(60)))
    queued = [asyncio.ensure_future(threads.run(lambda n=n: done.append(n))) for n in range(2)]  # type: ignore[misc]
    await asyncio.sleep(0)
    with pytest.raises(CannotSay, match="too many work wait"):
        await threads.run(lambda: None)
    queued[0].cancel()
    go.set()
    assert await running
    await queued[1]
    assert done == [1]
    assert threads.under_way == 0
    threads.close()


async def test_the_lower_rank_comes_first_and_finds_a_place() -> None:
    threads = Threads("work", 1, 7)
    go, done = threading.Event(), list[int]()
    running = asyncio.ensure_future(threads.run(lambda: go.wait(60)))
    await asyncio.sleep(0)
    waiting = []
    for rank, places in ((2, 3), (1, 2), (0, 2)):  # 4, 6 and 8 of all, with what is there already
        for _ in range(places):
            waiting.append(asyncio.ensure_future(threads.run(lambda rank=rank: done.append(rank), rank)))  # type: ignore[misc]
            await asyncio.sleep(0)
        with pytest.raises(CannotSay):
            await threads.run(lambda: None, rank)
    go.set()
    await running
    await asyncio.gather(*waiting)
    assert done == [0, 0, 1, 1, 2, 2, 2]
    threads.close()


async def test_work_that_hangs_keeps_its_place_and_not_the_others() -> None:
    threads = Threads("work", 2, 1)
    go = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run(lambda: go.wait(60))
    assert threads.under_way == 1
    assert await threads.run(lambda: 7) == 7
    go.set()
    while threads.under_way:
        await asyncio.sleep(0.01)
    threads.close()


async def test_no_more_run_at_a_time_than_there_are_threads() -> None:
    threads = Threads("work", 3, 100)
    lock, now, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1

    await asyncio.gather(*(threads.run(work) for _ in range(60)))
    assert most == 3
    threads.close()
