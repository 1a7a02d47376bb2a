"""What the notices say: whom it is about, which commands help, and nothing that a client could use."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailmaps.notices.notice import (
    Action,
    Notice,
    database_away,
    database_back,
    foreign_senders,
    limit_reached,
)
from mailmaps.notices.notice import test as a_test
from mailmaps.policy.texts import shown

ACTIONS: tuple[Action, ...] = ("defer", "reject", "hold", "observe")


def commands(notice: Notice) -> list[list[str]]:
    return [shlex.split(line) for line in notice.lines if line.startswith("  mailmaps ")]


def a_limit(name: str = "jan", action: Action = "defer", user: str = "") -> Notice:
    return limit_reached("login", name, 500, "recipients", "an hour", action, user)


def test_a_limit_names_itself_and_the_commands() -> None:
    notice = a_limit()
    assert (notice.kind, notice.about) == ("limit", "login jan")
    assert notice.title == "Sending limit reached: jan (500 recipients an hour)"
    assert notice.lines[0] == "The login jan has reached its limit of 500 recipients an hour."
    assert commands(notice) == [
        ["mailmaps", "limits", "show", "jan"],
        ["mailmaps", "limits", "release", "jan"],
        "mailmaps limits set --recipients-hour 1000 --for 7d --reason newsletter jan".split(),
    ]


def test_a_login_and_a_domain_of_one_name_are_two_subjects() -> None:
    domain = limit_reached("domain", "ex.org", 5, "messages", "a day", "reject")
    assert domain.about != a_limit("ex.org").about
    assert "The domain ex.org has reached its limit of 5 messages a day." in domain.lines
    assert "only what was sent in the last day counts" in domain.lines[2]
    assert commands(domain) == [
        ["mailmaps", "limits", "show", "--domain", "ex.org"],
        ["mailmaps", "limits", "release", "--domain", "ex.org"],
        "mailmaps limits set --messages-day 10 --for 7d --reason newsletter --domain ex.org".split(),
    ]


@pytest.mark.parametrize("action", ACTIONS)
def test_what_follows_is_said(action: Action) -> None:
    follows = {"defer": "put off", "reject": "refused for good", "hold": "hold queue", "observe": "held up"}
    assert follows[action] in a_limit(action=action).lines[2]


def test_the_user_reads_no_command() -> None:
    notice = a_limit(user="jan@ex.org")
    assert notice.also_to == "jan@ex.org"
    text = " ".join((notice.also_title, *notice.also_lines))
    assert "500 recipients an hour" in text
    assert "password" in text
    assert "mailmaps" not in text


def test_a_user_to_whom_nothing_happens_is_told_nothing() -> None:
    notice = a_limit(action="observe", user="jan@ex.org")
    assert (notice.also_to, notice.also_title, notice.also_lines) == ("", "", ())


def test_foreign_senders_are_shown_with_examples() -> None:
    notice = foreign_senders("jan", 12, [("ceo@ex.org", "192.0.2.1"), ("boss@ex.org", "2001:db8::1")])
    assert (notice.kind, notice.about) == ("senders", "jan")
    assert notice.title == "jan sends as others (12 times within an hour)"
    assert "  from <ceo@ex.org>, client 192.0.2.1" in notice.lines
    assert commands(notice) == [
        ["mailmaps", "senders", "observed", "--since", "1h"],
        ["mailmaps", "senders", "explain", "jan", "boss@ex.org"],
    ]
    assert commands(foreign_senders("jan", 1, []))[1][-1] == "ADDRESS"


def test_a_database_is_away_and_back() -> None:
    away, back = database_away("mail", 5.2, "connection refused"), database_back("mail", 400)
    assert (away.kind, away.about, back.kind, back.about) == ("database", "mail", "back", "mail")
    assert away.title == "The database mail has been away for 5 minutes"
    assert back.title == "The database mail is back after 6 h 40 min"
    assert "  why: connection refused" in away.lines
    assert commands(away) == [["mailmaps", "status"], ["mailmaps", "check"]]
    assert database_back("mail", 0.2).title.endswith("1 minute")


def test_the_test_says_that_it_is_one() -> None:
    assert a_test().kind == "test"
    assert a_test().lines[0].startswith("This is a test")


@settings(deadline=None)
@example(name="--", other="mailmaps ")
@example(name="-", other="-")
@given(name=st.text(max_size=150), other=st.text(max_size=150))
def test_whatever_a_client_says_is_one_printable_line_and_one_word(name: str, other: str) -> None:
    for notice in (
        a_limit(name, user=other),
        foreign_senders(name, 3, [(other, name)]),
        database_away("mail", 5, other),
    ):
        for line in (notice.title, *notice.lines, notice.also_title, *notice.also_lines):
            assert line.isprintable()
        for words in commands(notice):
            options_end = any(word.startswith("-") for word in (shown(name), shown(other)))
            assert len(words) in (2, 4, 5, 10) or (options_end and len(words) in (5, 6, 11))


@pytest.mark.parametrize("login", ["$(reboot)", "jan; reboot", "`reboot`", "ja'n", "-x", "a b", "é|reboot"])
def test_a_login_is_one_word_of_the_shell(login: str) -> None:
    show, explain = commands(a_limit(login))[0], commands(foreign_senders(login, 3, [("a@b", "::1")]))[1]
    assert [word for word in show if word != "--"] == ["mailmaps", "limits", "show", login]
    assert [word for word in explain if word != "--"][-2:] == [login, "a@b"]
    assert ("--" in show) == login.startswith("-")
