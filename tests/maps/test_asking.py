"""Questions under way: joined, ended in time, and told to everybody who waits."""

from __future__ import annotations

import asyncio
from functools import partial

from mailmaps.maps.answer import CannotSay
from mailmaps.maps.asking import Asking, Outcome
from mailmaps.maps.cache import NO_ROW, Candidates, Row


class Searcher:
    """Every search waits for its own gate."""

    def __init__(self) -> None:
        self.asked: list[Candidates] = []
        self.ended: list[Candidates] = []
        self.gates: dict[Candidates, asyncio.Future[Row]] = {}

    async def search(self, candidates: Candidates) -> Row:
        self.asked.append(candidates)
        self.gates[candidates] = asyncio.get_running_loop().create_future()
        try:
            return await self.gates[candidates]
        finally:
            self.ended.append(candidates)


def key(number: int) -> Candidates:
    return (f"k{number}",)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_ask_the_same_are_told_the_same() -> None:
    searcher, told = Searcher(), list[Outcome]()
    asking = Asking(searcher.search, 30.0)
    asking.ask(key(1), told.append)
    await turn()
    asking.ask(key(1), told.append)
    asking.part()
    asking.ask(key(1), told.append)
    await turn()
    assert searcher.asked == [key(1), key(1)], "who comes after a change is not told what was before it"
    assert not told
    searcher.gates[key(1)].set_result(NO_ROW)
    await turn()
    assert told == [NO_ROW]


async def test_a_fault_is_told_and_the_next_asks_again() -> None:
    searcher, told = Searcher(), list[Outcome]()
    asking = Asking(searcher.search, 30.0)
    for number, error in enumerate((CannotSay("away"), ZeroDivisionError())):
        asking.ask(key(number), told.append)
        await turn()
        searcher.gates[key(number)].set_exception(error)
        await turn()
        assert told[-1] is error
    asking.ask(key(0), told.append)
    await turn()
    assert searcher.asked == [key(0), key(1), key(0)]
    searcher.gates[key(0)].set_result(NO_ROW)
    await asking.idle()


async def test_no_question_outlives_the_deadline_however_many_there_are() -> None:
    searcher, told = Searcher(), dict[int, Outcome]()
    asking = Asking(searcher.search, 0.1)

    def ask(number: int) -> None:
        asking.ask(key(number), partial(told.__setitem__, number))

    for number in range(0, 60, 2):  # the later ones begin when the timer has fired before
        ask(number)
        ask(number + 1)
        await asyncio.sleep(0.01)
        searcher.gates[key(number)].set_result(NO_ROW)
    async with asyncio.timeout(5):
        await asking.idle()
        await turn()
    assert [told[number] for number in range(0, 60, 2)] == [NO_ROW] * 30
    late = [told[number] for number in range(1, 60, 2)]
    assert {str(outcome) for outcome in late} == {"no answer from the database within 0.1 s"}
    assert len(searcher.ended) == 60
    ask(100)
    async with asyncio.timeout(5):
        await asking.idle()
    await turn()
    assert isinstance(told[100], CannotSay)


async def test_nothing_is_kept_of_what_has_ended() -> None:
    searcher, told = Searcher(), list[Outcome]()
    asking = Asking(searcher.search, 30.0)
    for number in range(1000):
        asking.ask(key(number), told.append)
        await turn()
        searcher.gates.pop(key(number)).set_result(NO_ROW)
        await turn()
    assert len(told) == 1000
    assert len(asking._oldest_first) == 1
