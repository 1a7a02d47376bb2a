"""The sender check: enforcing, observing, failing, and mail of those who did not log in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from ipaddress import ip_network
from typing import Any

import pytest
from tests.policy.senders import ROWS, RULES, MemorySource, sender_table

from mailmaps.maps.answer import Found, Unavailable
from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy.grants import Grant, Grants
from mailmaps.policy.mail import Mail, read
from mailmaps.policy.observed import Observed
from mailmaps.policy.ownership import Switches, Verdict
from mailmaps.policy.sender_check import Manner, SenderCheck

TEXTS = {"refusal": "{login} not {sender}", "refusal_unauthenticated": "log in for {sender}"}


class Site:
    """A check over rows in memory."""

    def __init__(
        self, held: bool = True, switches: Switches | None = None, grants: Grants | None = None, **manner: Any
    ) -> None:
        self.source = MemorySource(ROWS, held=held)
        self.observed = Observed()
        self.foreign: list[tuple[str, str, str]] = []
        self.table = sender_table(self.source, switches or Switches(), grants)
        self.check = SenderCheck(
            self.table,
            RULES,
            Manner(**TEXTS | manner),
            self.observed,
            lambda *seen: self.foreign.append(seen),
        )

    def asks(
        self, sender: str, login: str, state: str = "RCPT", client: str = "192.0.2.1", instance: str = "i"
    ) -> Any:
        return self.check.begin(Mail(state, sender, login, client, instance, 1))

    @property
    def seen(self) -> list[tuple[str, str, str, int]]:
        events = self.observed.held(0.0).items()
        return [(event.login, event.sender, event.verdict, times.times) for event, times in events]


def refused(login: str, sender: str) -> Action:
    return Action(Word.NOT_YOURS, f"{login} not {sender}")


@pytest.mark.parametrize(
    ("sender", "login", "allowed"),
    [
        ("jan@a.example", "jan", True),
        ("Jan+Lists@A.EXAMPLE", "JAN", True),
        ("jan", "jan", True),  # myorigin
        ("jan@a.example.", "jan", True),
        ("jan%a.example@mx.a.example", "jan", True),
        ("a.example!jan", "jan", True),
        ("@relay.example:jan@a.example", "jan", True),
        ("team@a.example", "anna", True),
        ("anybody@b.example", "anna", True),
        ("anna@b.example", "jan", False),
        ("anybody@b.example", "jan", False),
        ("gone@a.example", "gone", False),
        ("nobody@a.example", "jan", False),
        ("x@elsewhere.example", "jan", False),
        ("jan@a.example\udcff", "jan", False),
        ("", "jan", True),
    ],
)
@pytest.mark.parametrize("held", [True, False])
async def test_enforcing(sender: str, login: str, allowed: bool, held: bool) -> None:
    site = Site(held)
    answer = site.asks(sender, login)
    action = await answer if isinstance(answer, Awaitable) else answer
    if allowed:
        assert action == DUNNO
        assert site.seen == []
    else:
        assert action.word is Word.NOT_YOURS
        assert action.text.startswith(f"{login} not ")
        assert [event[:1] + event[2:] for event in site.seen] == [(login, "refused", 1)]


def test_what_memory_knows_needs_no_event_loop() -> None:
    site = Site()
    assert site.asks("jan@a.example", "jan") == DUNNO
    assert site.asks("jan@a.example", "anna") == refused("anna", "jan@a.example")


def test_each_mail_is_noted_once() -> None:
    site = Site()
    for _ in range(3):
        assert site.asks("jan@a.example", "anna") == refused("anna", "jan@a.example")
    site.asks("jan@a.example", "anna", instance="another")
    assert site.seen == [("anna", "jan@a.example", "refused", 2)]
    assert site.foreign == [("anna", "jan@a.example", "192.0.2.1")] * 2


def test_observing_refuses_nobody() -> None:
    site = Site(mode="observe", unauthenticated="refuse")
    assert site.asks("jan@a.example", "anna") == DUNNO
    assert site.asks("jan@a.example", "") == DUNNO
    assert site.seen == [
        ("anna", "jan@a.example", "would be refused", 1),
        ("", "jan@a.example", "would be refused", 1),
    ]


async def test_observing_defers_nobody_either() -> None:
    site = Site(held=False, mode="observe")
    site.source.fault = "away"
    assert await site.asks("jan@a.example", "anna") == DUNNO
    assert site.seen == [("anna", "jan@a.example", "would be deferred", 1)]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("RCPT", Word.DEFER),
        ("MAIL", Word.DEFER),
        ("DATA", Word.CANNOT_SAY),
        ("END-OF-MESSAGE", Word.CANNOT_SAY),
    ],
)
@pytest.mark.parametrize("login", ["jan", ""])
async def test_a_failure_defers(state: str, word: Word, login: str) -> None:
    site = Site(held=False, unauthenticated="refuse")
    site.source.fault = "away"
    action = await site.asks("jan@a.example", login, state)
    assert action.word is word
    assert "away" in action.text


async def test_a_failure_lets_pass_only_where_the_settings_say_so() -> None:
    site = Site(held=False, on_failure="dunno", unauthenticated="refuse")
    site.source.fault = "away"
    assert await site.asks("jan@a.example", "anna") == DUNNO
    assert await site.asks("jan@a.example", "") == DUNNO
    assert site.seen == [("anna", "jan@a.example", "would be deferred", 1)]
    site.source.fault = None
    assert await site.asks("jan@a.example", "anna") == refused("anna", "jan@a.example")


@pytest.mark.parametrize("on_failure", ["defer", "dunno"])
async def test_an_address_that_is_never_done_with_is_nobodys(on_failure: str) -> None:
    site = Site(unauthenticated="refuse", on_failure=on_failure)
    for endless in ("anna@b.example" + "@mx.a.example" * 30, "anna%b.example" + "@mx.a.example" * 100):
        for login in ("anna", ""):
            assert site.asks(endless, login).word is Word.NOT_YOURS
        verdict = (await site.check.explain("anna", endless, "")).verdict
        assert isinstance(verdict, Verdict)
        assert not verdict.allowed


async def test_what_is_remembered_of_owners_ends_with_the_rows() -> None:
    """The table forgets when rows change, and when they cannot be believed any more."""
    site = Site()
    assert site.asks("jan@a.example", "jan") == DUNNO
    site.source.held, site.source.fault = False, "away"
    assert site.asks("jan@a.example", "jan") == DUNNO
    site.table.forget()
    assert (await site.asks("jan@a.example", "jan")).word is Word.DEFER


def test_no_table_is_a_failure() -> None:
    check = SenderCheck(None, RULES, Manner(), Observed())
    failed = check.begin(Mail("RCPT", "a@b.example", "jan", "", "", 0))
    assert isinstance(failed, Action)
    assert failed.word is Word.DEFER
    assert check.begin(Mail("RCPT", "", "jan", "", "", 0)) == DUNNO


def test_off_asks_nobody() -> None:
    check = SenderCheck(None, RULES, Manner(mode="off", unauthenticated="refuse"), Observed())
    assert check.begin(Mail("RCPT", "a@b.example", "jan", "", "", 0)) == DUNNO
    assert check.begin(Mail("RCPT", "a@b.example", "", "", "", 0)) == DUNNO


def test_the_null_sender() -> None:
    site = Site(switches=Switches(null_sender=False), unauthenticated="refuse")
    assert site.asks("", "jan") == refused("jan", "<>")
    assert site.asks("", "") == DUNNO  # bounces


@pytest.mark.parametrize(
    ("sender", "client", "refuses"),
    [
        ("jan@a.example", "192.0.2.1", True),
        ("jan+x@a.example", "unknown", True),
        ("gone@a.example", "192.0.2.1", True),
        ("anybody@b.example", "192.0.2.1", True),
        ("jan@a.example", "198.51.100.7", False),
        ("jan@a.example", "2001:db8::1", False),
        ("team@a.example", "192.0.2.1", False),
        ("list+bounce@lists.example", "192.0.2.1", False),
        ("nobody@a.example", "192.0.2.1", False),
        ("x@elsewhere.example", "192.0.2.1", False),
    ],
)
def test_who_did_not_log_in(sender: str, client: str, refuses: bool) -> None:
    site = Site(
        unauthenticated="refuse",
        unauthenticated_networks=[ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")],
        unauthenticated_senders=["Team@a.example", "@lists.example"],
    )
    action = site.asks(sender, "", client=client)
    assert action == (Action(Word.NOT_YOURS, f"log in for {sender}") if refuses else DUNNO)
    assert len(site.seen) == int(refuses)
    assert site.foreign == []


def test_a_grant_makes_an_address_elsewhere_no_address_of_ours() -> None:
    """Its owner's own mail comes to us from elsewhere, and while grants are not known everybody's does."""
    for known in (True, False):
        grants = Grants(3600.0)
        if known:
            grants.replace([Grant(1, "anna", "@partner.example"), Grant(2, "anna", "new@a.example")])
        site = Site(grants=grants, unauthenticated="refuse")
        for sender in ("x@partner.example", "new@a.example", "y@elsewhere.example"):
            assert site.asks(sender, "") == DUNNO
        assert site.asks("jan@a.example", "") != DUNNO


def test_who_did_not_log_in_is_observed_by_default() -> None:
    site = Site()
    assert site.asks("jan@a.example", "") == DUNNO
    assert site.seen == [("", "jan@a.example", "would be refused", 1)]
    allowing = Site(unauthenticated="allow")
    assert allowing.asks("jan@a.example", "") == DUNNO
    assert allowing.seen == []


async def test_many_addresses_of_a_catch_all_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.policy.observed.MOST", 10)
    site = Site(unauthenticated="refuse")
    for number in range(50):
        site.asks(f"u{number}@b.example", "", instance=str(number))
    assert len(site.seen) == 11
    assert sum(event[3] for event in site.seen) == 50


async def test_explain() -> None:
    site = Site()
    explained = await site.check.explain("jan", "jan%a.example@mx.a.example", "192.0.2.1")
    assert explained.resolved == "jan@a.example"
    assert explained.verdict == Verdict(True, "own (the row of jan@a.example)")
    assert explained.in_map == Found("jan")
    explained = await site.check.explain("", "jan@a.example", "192.0.2.1")
    assert isinstance(explained.verdict, Verdict)
    assert not explained.verdict.allowed
    site.source.held, site.source.fault = False, "away"
    explained = await site.check.explain("jan", "jan@a.example", "192.0.2.1")
    assert isinstance(explained.verdict, Unavailable)
    assert site.seen == []  # asking is no use


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({}, "request="),
        ({"request": "junk"}, "request="),
        ({"request": "smtpd_access_policy"}, "protocol_state"),
        ({"request": "smtpd_access_policy", "protocol_state": "rcpt"}, "protocol_state"),
        ({"request": "smtpd_access_policy", "protocol_state": "RCPT"}, "sender"),
        ({"request": "smtpd_access_policy", "protocol_state": "DATA", "sender": ""}, "recipient_count"),
        (
            {
                "request": "smtpd_access_policy",
                "protocol_state": "DATA",
                "sender": "",
                "recipient_count": "-1",
            },
            "count",
        ),
        (
            {
                "request": "smtpd_access_policy",
                "protocol_state": "DATA",
                "sender": "",
                "recipient_count": "٣",
            },
            "count",
        ),
        (
            {
                "request": "smtpd_access_policy",
                "protocol_state": "DATA",
                "sender": "",
                "recipient_count": "9" * 99,
            },
            "c",
        ),
    ],
)
def test_requests_that_make_no_sense(attributes: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read({name.encode(): value.encode() for name, value in attributes.items()})


def test_a_request_without_logins_is_one_of_nobody() -> None:
    mail = read({b"request": b"smtpd_access_policy", b"protocol_state": b"RCPT", b"sender": b"a@b"})
    assert mail == Mail("RCPT", "a@b", "", "unknown", "", 0)
    assert asyncio.isfuture(mail) is False
