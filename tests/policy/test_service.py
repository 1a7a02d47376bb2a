"""The policy service: which check is asked when, and what a failure of each means."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.policy.senders import ROWS, RULES, MemorySource, sender_table

from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy.limit_book import LimitBook
from mailmaps.policy.limits import Limits
from mailmaps.policy.observed import Observed
from mailmaps.policy.ownership import Switches
from mailmaps.policy.sender_check import Manner, SenderCheck
from mailmaps.policy.service import PolicyService
from mailmaps.protocols.policy import PolicyRequest


def request(
    state: str = "RCPT", sender: str = "jan@a.example", login: str = "jan", **more: str
) -> PolicyRequest:
    attributes = {
        "request": "smtpd_access_policy",
        "protocol_state": state,
        "sender": sender,
        "sasl_username": login,
        "recipient_count": "3",
    }
    return PolicyRequest({name.encode(): value.encode() for name, value in (attributes | more).items()})


class Site:
    """The service over rows in memory."""

    def __init__(self, held: bool = True, limit: int = 5, may_fail: bool = False, **manner: Any) -> None:
        self.source = MemorySource(ROWS, held=held)
        table = sender_table(self.source, Switches())
        self.senders = SenderCheck(table, RULES, Manner(**manner), Observed())
        numbers = (0, 0, limit, 0)
        self.limits = Limits(LimitBook({"login": numbers, "domain": (0, 0, 0, 0)}), None)
        self.service = PolicyService(self.senders, self.limits, limits_may_fail=may_fail)

    async def ask(self, asked: PolicyRequest) -> Action:
        answer = self.service.begin(asked)
        return await answer if isinstance(answer, asyncio.Future) else answer


@pytest.mark.parametrize("held", [True, False])
async def test_limits_are_counted_where_recipients_are_known(held: bool) -> None:
    site = Site(held)
    for state in ("CONNECT", "EHLO", "HELO", "VRFY", "ETRN", "MAIL", "RCPT"):
        assert await site.ask(request(state)) == DUNNO
    assert await site.ask(request("DATA")) == DUNNO
    assert (await site.ask(request("END-OF-MESSAGE"))).word is Word.LATER
    assert site.service.counts == {Word.DUNNO: 8, Word.LATER: 1}


@pytest.mark.parametrize("held", [True, False])
async def test_who_may_not_send_as_this_is_not_counted(held: bool) -> None:
    site = Site(held)
    for _ in range(3):
        assert (await site.ask(request("DATA", "anna@b.example"))).word is Word.NOT_YOURS
    assert site.limits.sums_here() == {}


@pytest.mark.parametrize(
    "asked",
    [
        PolicyRequest({}),
        PolicyRequest(
            {b"request": b"smtpd_access_policy", b"protocol_state": b"RCPT", b"sender": b""}, "twice"
        ),
        request("NEW-STATE"),
        request("DATA", recipient_count="many"),
    ],
)
async def test_what_is_not_understood_is_deferred(asked: PolicyRequest) -> None:
    for site in (Site(), Site(mode="off"), Site(on_failure="dunno")):
        assert (await site.ask(asked)).word in (Word.DEFER, Word.CANNOT_SAY)


async def test_what_is_not_understood_passes_where_nothing_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(mode="observe")
    service = PolicyService(site.senders, site.limits, observes=lambda: True)
    assert service.begin(request("NEW-STATE")) == DUNNO
    assert "not understood" in caplog.text


@pytest.mark.parametrize("held", [True, False])
async def test_a_fault_of_ours_defers(
    held: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    for name in ("plainly_owns", "decide"):
        monkeypatch.setattr(f"mailmaps.policy.ownership.Ownership.{name}", fail)
    assert (await Site(held).ask(request())).word is Word.DEFER
    assert (await Site(held, on_failure="dunno").ask(request())) == DUNNO
    assert (await Site(held, mode="observe").ask(request())) == DUNNO
    assert "internal error" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("mailmaps.policy.limits.Limits.begin", fail)
    caplog.set_level(logging.CRITICAL)
    assert (await Site(held).ask(request("DATA"))).word is Word.CANNOT_SAY
    assert (await Site(held, may_fail=True).ask(request("DATA"))) == DUNNO


async def test_a_cancelled_question_is_a_failure() -> None:
    site = Site(held=False)
    never = asyncio.get_running_loop().create_future()

    async def hang(_: object) -> dict[str, tuple[str, ...]]:
        await never
        return {}

    site.source.fetch = hang  # type: ignore[method-assign, assignment]
    answer = site.service.begin(request())
    assert isinstance(answer, asyncio.Future)
    await asyncio.sleep(0)
    assert not answer.done()
    never.cancel()
    assert (await answer).word is Word.DEFER
