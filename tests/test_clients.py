"""The end of all connections: who has asked first, who has only just come a little later, the rest is cut."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from mailmaps import clients
from mailmaps.clients import Clients

FIRST_QUESTION = 0.2  # seconds


class Connection:
    """Goes when it is drained, or only when it is cut."""

    def __init__(self, all_of: Clients, *, stays: bool = False) -> None:
        self.all_of = all_of
        self.stays = stays
        self.came = monotonic()
        self.drained = self.was_cut = 0.0
        all_of.add(self, "test")

    def drain(self) -> None:
        self.drained = self.drained or monotonic()
        if not self.stays:
            self.all_of.gone(self)

    def cut(self) -> None:
        self.was_cut = monotonic()
        self.all_of.gone(self)


@pytest.fixture
def open_now(monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setattr(clients, "FIRST_QUESTION", FIRST_QUESTION)
    return Clients()


async def test_who_has_only_just_come_is_heard(open_now: Clients) -> None:
    old = Connection(open_now)
    await asyncio.sleep(FIRST_QUESTION)
    young = Connection(open_now)
    await open_now.close(10.0)
    assert young.drained >= young.came + FIRST_QUESTION
    assert old.drained < young.drained
    assert old.was_cut == young.was_cut == 0.0
    assert len(open_now) == 0


async def test_who_does_not_finish_is_cut(open_now: Clients, caplog: pytest.LogCaptureFixture) -> None:
    going, staying = Connection(open_now), Connection(open_now, stays=True)
    await open_now.close(2 * FIRST_QUESTION)
    assert staying.drained
    assert staying.was_cut
    assert going.was_cut == 0.0
    assert "connections=1" in caplog.text


async def test_nobody_is_waited_for_where_nobody_is(open_now: Clients) -> None:
    async with asyncio.timeout(5.0):
        await open_now.close(1000.0)
