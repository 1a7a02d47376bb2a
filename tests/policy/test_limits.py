"""Sending limits: in memory, with a database (a stub here, tests/database has the real one), and when it
fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

import pytest

from mailmaps.maps.answer import CannotSay
from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy.counting import Counted, Entry
from mailmaps.policy.limit_book import LimitBook, Override
from mailmaps.policy.limits import Limits, Over
from mailmaps.policy.mail import Mail
from mailmaps.policy.sums import Sums

NONE = (0, 0, 0, 0)


def book(
    login: tuple[int, int, int, int] = NONE, domain: tuple[int, int, int, int] = NONE, **more: Any
) -> LimitBook:
    return LimitBook({"login": login, "domain": domain}, **more)


def mail(recipients: int = 1, login: str = "jan", instance: str = "", sender: str = "jan@a.example") -> Mail:
    return Mail("DATA", sender, login, "192.0.2.1", instance, recipients)


class Shared:
    """Counts in memory as the database does, under its batch numbers; `fault` is what asking ends in.

    `hangs`: it counts and never answers.
    """

    away: str | None = None

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], Sums] = {}
        self.batches: dict[UUID, int] = {}
        self.sizes: list[int] = []
        self.fault: Exception | None = None
        self.loses_answers = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def count(self, counter: UUID, batch: int, entries: Sequence[Entry]) -> list[list[Counted]]:
        if self.fault is not None:
            raise self.fault
        await self.gate.wait()
        self.sizes.append(len(entries))
        is_new = batch > self.batches.get(counter, 0)
        if is_new:
            found = [self._count(entry) for entry in entries]
        else:
            found = [[Counted(None, self._of(part)) for part in entry.parts] for entry in entries]
        self.batches[counter] = max(batch, self.batches.get(counter, 0))
        if self.loses_answers:
            raise CannotSay("the connection broke")
        return found

    def _of(self, part: Any) -> Sums:
        return self.sums.get((part.scope, part.name), Sums())

    def _passes(self, entry: Entry) -> bool:
        if entry.since is not None:
            return True
        return all(
            part.allowed.broken_by(self._of(part).plus(entry.messages, entry.recipients)) is None
            for part in entry.parts
        )

    def _count(self, entry: Entry) -> list[Counted]:
        passes = self._passes(entry)
        for part in entry.parts if passes else ():
            self.sums[part.scope, part.name] = self._of(part).plus(entry.messages, entry.recipients)
        return [Counted(passes, self._of(part)) for part in entry.parts]

    @property
    def recipients(self) -> int:
        return self.sums.get(("login", "jan"), Sums()).recipients_day


@asynccontextmanager
async def counting(
    shared: Shared,
    limits_of: LimitBook,
    action: Literal["defer", "reject", "hold", "observe"] = "defer",
) -> AsyncIterator[Limits]:
    limits = Limits(limits_of, shared, action=action)
    limits.start()
    try:
        yield limits
    finally:
        await limits.close()


async def decide(limits: Limits, one: Mail) -> Action:
    answer = limits.begin(one)
    return await answer if isinstance(answer, asyncio.Future) else answer


def test_one_mail_with_fifty_recipients_counts_fifty() -> None:
    limits = Limits(book((0, 0, 100, 0)), None)
    assert limits.begin(mail(50)) == DUNNO
    assert limits.begin(mail(50)) == DUNNO
    over = limits.begin(mail(1))
    assert isinstance(over, Action)
    assert over.word is Word.LATER
    assert over.text == "jan: 100 recipients an hour"


@pytest.mark.parametrize(
    ("login", "domain", "name", "unit", "window"),
    [
        ((2, 0, 0, 0), NONE, "jan@a.example", "messages", "an hour"),
        ((0, 2, 0, 0), NONE, "jan@a.example", "messages", "a day"),
        ((0, 0, 0, 2), NONE, "jan@a.example", "recipients", "a day"),
        (NONE, (2, 0, 0, 0), "a.example", "messages", "an hour"),
        ((9, 9, 9, 9), (0, 0, 2, 0), "a.example", "recipients", "an hour"),
    ],
)
def test_every_limit(
    login: tuple[int, int, int, int], domain: tuple[int, int, int, int], name: str, unit: str, window: str
) -> None:
    told: list[Over] = []
    limits = Limits(book(login, domain), None, told=told.append)
    answers = [limits.begin(mail(login="Jan@A.example")) for _ in range(3)]
    assert answers[:2] == [DUNNO, DUNNO]
    assert [(one.name, one.breach) for one in told] == [(name, (2, unit, window))]


def test_a_login_without_a_domain_counts_for_that_of_its_sender() -> None:
    limits = Limits(book(domain=(1, 0, 0, 0)), None)
    assert limits.begin(mail()) == DUNNO
    assert limits.begin(mail(login="piet")) != DUNNO
    assert limits.begin(mail(sender="jan@b.example")) == DUNNO
    assert limits.begin(mail(sender="")) == DUNNO


def test_a_mail_that_is_asked_for_again_counts_once() -> None:
    limits = Limits(book((1, 0, 0, 0)), None)
    assert [limits.begin(mail(instance="i")) for _ in range(3)] == [DUNNO] * 3
    over = limits.begin(mail(instance="j"))
    assert over != DUNNO
    assert limits.begin(mail(instance="j")) == over
    assert limits.begin(mail(instance="i")) == DUNNO


def test_a_mail_that_comes_again_with_more_recipients_counts_what_is_new() -> None:
    """Something after us refused it, and the client adds recipients to the same transaction."""
    limits = Limits(book((1, 0, 50, 0)), None)
    assert limits.begin(mail(1, instance="i")) == DUNNO
    assert limits.begin(mail(49, instance="i")) == DUNNO
    assert limits.begin(mail(49, instance="i")) == DUNNO
    assert limits.sums_here()["login", "jan"] == Sums(1, 1, 49, 49)
    assert limits.begin(mail(51, instance="i")) != DUNNO
    assert limits.sums_here()["login", "jan"] == Sums(1, 1, 49, 49)


def test_who_did_not_log_in_is_not_counted() -> None:
    limits = Limits(book((1, 0, 0, 0), (1, 0, 0, 0)), None)
    assert [limits.begin(mail(login="")) for _ in range(3)] == [DUNNO] * 3


@pytest.mark.parametrize(
    ("action", "word", "counted"),
    [
        ("defer", Word.LATER, 1),
        ("reject", Word.REJECT, 1),
        ("hold", Word.HOLD, 2),
        ("observe", Word.DUNNO, 2),
    ],
)
async def test_actions(
    action: Literal["defer", "reject", "hold", "observe"], word: Word, counted: int
) -> None:
    alone = Limits(book((1, 0, 0, 0)), None, action=action)
    alone.begin(mail())
    answer = alone.begin(mail())
    assert isinstance(answer, Action)
    assert answer.word is word
    assert alone.sums_here()["login", "jan"].messages_day == counted
    shared = Shared()
    async with counting(shared, book((1, 0, 0, 0)), action) as limits:
        await decide(limits, mail())
        assert (await decide(limits, mail())).word is word
        assert limits.sums_here()["login", "jan"].messages_day == counted
    assert shared.sums["login", "jan"].messages_day == counted  # what is held is sent when it is released


def test_nothing_is_refused_for_good_while_other_limits_may_be_set() -> None:
    unknown = book((1, 0, 0, 0), has_overrides=True)
    limits = Limits(unknown, None, action="reject")
    limits.begin(mail())
    assert limits.begin(mail()) == Action(Word.LATER, "jan: 1 messages an hour")
    unknown.replace([])
    assert limits.begin(mail()) == Action(Word.REJECT, "jan: 1 messages an hour")


def test_overrides_and_exempt_logins() -> None:
    limits_of = book((1, 0, 0, 0), (2, 0, 0, 0), exempt=["Shop"])
    limits_of.replace([
        Override("login", "Jan", (5, None, None, None)),
        Override("login", "free", (None, None, None, None), exempt=True),
        Override("login", "past", (9, None, None, None), until=1.0),
        Override("domain", "big.example", (0, None, None, None)),
    ])  # fmt: skip
    limits = Limits(limits_of, None)

    def passed(login: str, sender: str) -> int:
        return [limits.begin(mail(login=login, sender=sender)) for _ in range(20)].count(DUNNO)

    assert passed("jan", "jan@big.example") == 5
    assert passed("past", "past@big.example") == 1
    assert passed("jan2", "x@big.example") == 1
    assert passed("shop", "x@a.example") == 20
    assert passed("free", "x@a.example") == 20
    assert passed("piet", "x@a.example") == 1
    assert not book().limits_anybody


async def test_the_database_decides_in_batches() -> None:
    shared = Shared()
    async with counting(shared, book((0, 0, 100, 0))) as limits:
        answers = await asyncio.gather(*(decide(limits, mail(3)) for _ in range(64)))
    assert answers.count(DUNNO) == 33
    assert shared.recipients == 99
    assert len(shared.sizes) < 10


async def test_the_same_mail_asked_for_while_it_is_decided_counts_once() -> None:
    shared = Shared()
    shared.gate.clear()
    async with counting(shared, book((0, 0, 100, 0))) as limits:
        asked = [asyncio.ensure_future(decide(limits, mail(3, instance="i"))) for _ in range(3)]
        await asyncio.sleep(0)
        shared.gate.set()
        assert await asyncio.gather(*asked) == [DUNNO] * 3
    assert shared.recipients == 3


async def test_two_hosts_never_pass_the_limit() -> None:
    shared = Shared()
    async with counting(shared, book((0, 0, 100, 0))) as one, counting(shared, book((0, 0, 100, 0))) as two:
        asked = [decide(limits, mail(3)) for _ in range(50) for limits in (one, two)]
        answers = await asyncio.gather(*asked)
    assert answers.count(DUNNO) == 33
    assert shared.recipients == 99


async def test_memory_goes_on_while_the_database_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmaps.policy.counting.FIRST_PAUSE", 0.01)
    shared = Shared()
    async with counting(shared, book((0, 0, 10, 0))) as limits:
        assert await decide(limits, mail(4)) == DUNNO
        shared.sums["login", "jan"] = Sums(2, 2, 6, 6)  # another host sent two
        assert await decide(limits, mail(1)) == DUNNO
        shared.fault = CannotSay("away")
        answers = [await decide(limits, mail()) for _ in range(6)]
        assert answers.count(DUNNO) == 3  # 4 and 2 and 1 are known
        assert limits.state["trouble"] == "away"
        shared.fault = None
        for _ in range(500):
            if shared.recipients == 10:
                break
            await asyncio.sleep(0.01)
        assert limits.state["counted in"] == "database"
        assert (await decide(limits, mail())).word is Word.LATER
    assert shared.recipients == 10
    assert [record.message for record in caplog.records if "counted in" in record.message] == [
        "sending limits: counted in memory only reason=away",
        "sending limits: counted in the database again",
    ]


async def test_a_batch_whose_answer_was_lost_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.policy.counting.FIRST_PAUSE", 0.01)
    shared = Shared()
    async with counting(shared, book((0, 0, 100, 0))) as limits:
        shared.loses_answers = True
        assert await decide(limits, mail(7)) == DUNNO  # memory decides
        shared.loses_answers = False
        assert await decide(limits, mail(5)) == DUNNO
    assert shared.recipients == 12


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.policy.counting.DEADLINE", 0.05)
    shared = Shared()
    shared.gate.clear()
    async with counting(shared, book((0, 0, 3, 0))) as limits:
        answers = await asyncio.gather(*(decide(limits, mail()) for _ in range(5)))
        assert answers.count(DUNNO) == 3


async def test_a_fault_of_ours_leaves_nobody_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmaps.policy.counting.FIRST_PAUSE", 0.01)
    shared = Shared()
    shared.fault = RuntimeError("ours")
    async with counting(shared, book((0, 0, 3, 0))) as limits:
        assert await decide(limits, mail()) == DUNNO
        shared.fault = None
        assert await decide(limits, mail()) == DUNNO
    assert "internal error" in caplog.text
    assert shared.recipients == 2


@pytest.mark.parametrize("odd", ["a\udcff", "a\0b", "x" * 3000, "ΐ" * 500])
async def test_odd_names_are_counted_under_another(odd: str) -> None:
    shared = Shared()
    async with counting(shared, book((0, 0, 5, 0), (0, 0, 99, 0))) as limits:
        for name in (odd, odd + "@a.example", "a@" + odd):
            assert await decide(limits, mail(5, login=name)) == DUNNO
            assert await decide(limits, mail(1, login=name)) != DUNNO
    for _, name in shared.sums:
        assert name == "a.example" or (len(name) < 255 and name.isprintable())


async def test_what_the_database_refuses_keeps_nothing_else_from_being_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Shared()
    shared.gate.clear()
    count = shared.count

    async def refuse(counter: UUID, batch: int, entries: Sequence[Entry]) -> list[list[Counted]]:
        if any(part.name == "odd" for entry in entries for part in entry.parts):
            await shared.gate.wait()
            raise CannotSay("not such a value", about_key=True)
        return await count(counter, batch, entries)

    monkeypatch.setattr(shared, "count", refuse)
    async with counting(shared, book((0, 0, 6, 0))) as limits:
        asked = [
            asyncio.ensure_future(decide(limits, mail(3, login))) for login in ("odd", "jan", "odd", "jan")
        ]
        await asyncio.sleep(0)
        shared.gate.set()
        assert await asyncio.gather(*asked) == [DUNNO] * 4
        assert limits.state["trouble"] is None
        assert (await decide(limits, mail(3, "odd"))) != DUNNO
        assert (await decide(limits, mail(3))) != DUNNO
    assert shared.recipients == 6
    assert "not counted in the database name=odd" in caplog.text


async def test_stopping_answers_everybody() -> None:
    shared = Shared()
    shared.gate.clear()
    async with counting(shared, book((0, 0, 100, 0))) as limits:
        waiting = [limits.begin(mail()) for _ in range(3)]
        await asyncio.sleep(0.01)
        shared.gate.set()
    assert [one.result() if isinstance(one, asyncio.Future) else one for one in waiting] == [DUNNO] * 3


async def test_a_reload_forgets_nothing() -> None:
    first = Limits(book((0, 0, 10, 0)), None)
    first.begin(mail(8, instance="i"))
    second = Limits(book((0, 0, 10, 0)), None, before=first)
    assert second.begin(mail(8, instance="i")) == DUNNO
    assert second.begin(mail(3)) != DUNNO
    second.forget("login", "jan")
    assert second.begin(mail(3)) == DUNNO


async def test_what_is_not_counted_when_it_ends_is_left_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared()
    shared.fault = CannotSay("away")
    limits_of = book((0, 0, 100, 0))
    first = Limits(limits_of, shared)
    first.start()
    assert await decide(first, mail(5)) == DUNNO
    second = Limits(limits_of, shared, before=first)
    await first.close()
    shared.fault = None
    second.start()
    assert await decide(second, mail(1)) == DUNNO
    await second.close()
    assert shared.recipients == 6


def test_the_domain_that_a_mail_counts_for_is_said_by_who_knows() -> None:
    limits = Limits(book(domain=(1, 0, 0, 0)), None, domain_of=lambda mail: "a.example")
    assert limits.begin(mail(sender="jan@a.example")) == DUNNO
    assert limits.begin(mail(sender="jan%a.example@mx.a.example")) != DUNNO
