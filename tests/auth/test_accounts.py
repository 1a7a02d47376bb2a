"""Which account a login means, and what it is given."""

from __future__ import annotations

import pytest
from tests.auth.source import row

from mailmaps.auth.accounts import RIGHTS, Places, account, choose, spellings
from mailmaps.auth.attempt import Account
from mailmaps.maps.answer import CannotSay

BOTH = ("username", "address")


@pytest.mark.parametrize(
    ("user", "realm", "own", "expected"),
    [
        ("jan", "", "", ("jan",)),
        ("", "lxtreme.nl", "lxtreme.nl", ()),
        ("jan", "lxtreme.nl", "lxtreme.nl", ("jan@lxtreme.nl", "jan")),
        ("jan", "LXtreme.NL", "lxtreme.nl", ("jan@LXtreme.NL", "jan")),
        ("jan", "other.example", "lxtreme.nl", ("jan@other.example",)),
        ("jan", "other.example", "", ("jan@other.example",)),
        ("jan@lxtreme.nl", "", "lxtreme.nl", ("jan@lxtreme.nl", "jan")),
        ("jan@lxtreme.nl", "", "", ("jan@lxtreme.nl",)),
        ("jan@other.example", "lxtreme.nl", "lxtreme.nl", ("jan@other.example",)),
        ("@lxtreme.nl", "", "lxtreme.nl", ("@lxtreme.nl",)),
    ],
)
def test_spellings(user: str, realm: str, own: str, expected: tuple[str, ...]) -> None:
    assert spellings(user, realm, own) == expected


def test_a_username_counts_before_an_address_and_the_exact_one_before_one_that_folds_alike() -> None:
    upper, lower = row("Jan"), row("jan")
    other = row("somebody", "jan", by="address")
    assert choose([other, upper, lower], ["jan"], BOTH) is lower
    assert choose([other, upper, lower], ["Jan"], BOTH) is upper
    assert choose([other, upper], ["JAN"], BOTH) is upper
    assert choose([other], ["JAN"], BOTH) is other
    with pytest.raises(CannotSay, match="several accounts"):
        choose([upper, lower], ["JAN"], BOTH)


def test_the_first_spelling_that_is_somebody() -> None:
    by_address, by_name = row("anna", "jan@lxtreme.nl", by="address"), row("jan")
    assert choose([by_name, by_address], ["jan@lxtreme.nl", "jan"], BOTH) is by_address
    assert choose([by_name], ["jan@lxtreme.nl", "jan"], BOTH) is by_name
    assert choose([by_name], ["nobody"], BOTH) is None


def test_who_delivers_means_the_address() -> None:
    by_address, by_name = row("anna", "jan@ex.org", by="address"), row("jan@ex.org")
    assert choose([by_name, by_address], ["jan@ex.org"], BOTH) is by_name
    assert choose([by_name, by_address], ["jan@ex.org"], BOTH[::-1]) is by_address
    assert choose([by_name], ["jan@ex.org"], BOTH[::-1]) is by_name


def test_only_the_names_that_count() -> None:
    by_address, by_name = row("anna", "jan", by="address"), row("jan")
    assert choose([by_address, by_name], ["jan"], ["address"]) is by_address
    assert choose([by_address], ["jan"], ["username"]) is None
    unsaid = row("jan", by="")
    assert choose([unsaid], ["jan"], ["address"]) is unsaid


def test_an_address_of_two_accounts_is_nobodys() -> None:
    rows = [row(name, "info@ex.org", by="address") for name in ("anna", "bob")]
    with pytest.raises(CannotSay, match="several accounts"):
        choose(rows, ["info@ex.org"], BOTH)


def test_rows_of_one_account_that_differ_are_nobodys() -> None:
    assert choose([row("anna"), row("anna")], ["anna"], BOTH) == row("anna")
    for other in (row("anna", active=False), row("anna", stored="x"), row("anna", denied=["imap"])):
        with pytest.raises(CannotSay, match="several rows that differ"):
            choose([row("anna"), other], ["anna"], BOTH)


def test_what_an_account_is_given() -> None:
    assert account(row(), Places("/var/local/mail/")) == Account(
        "jawi_lx",
        5001,
        5001,
        "/var/local/mail/lxtreme.nl/janwillem.janssen/home",
        "/var/local/mail/lxtreme.nl/janwillem.janssen",
        25,
    )
    homes = account(row(mailbox="/ex.org//jan/"), Places("/mail", "/homes"))
    assert (homes.home, homes.mail) == ("/homes/ex.org/jan", "/mail/ex.org/jan")
    assert account(row(quota=-1), Places()).quota == 0
    assert account(row(quota=None), Places()).quota is None
    bare = account(row(uid=None, gid=None, mailbox=None), Places("/mail"))
    assert bare == Account("jawi_lx", quota=25)


@pytest.mark.parametrize(
    "bad",
    [
        row(uid=0),
        row(uid=99),
        row(gid=0),
        row(gid=-1),
        row(uid=2**32 - 1),
        row(mailbox="../../etc"),
        row(mailbox=""),
        row(mailbox="a\nb"),
        row(username="a\tb"),
    ],
)
def test_nobody_is_given_what_virtual_would_not_deliver_to(bad: object) -> None:
    with pytest.raises(CannotSay):
        account(bad, Places("/mail", minimum_uid=100))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("service", "right"),
    [("imap", "imap"), ("IMAP", "imap"), ("pop3", "pop3"), ("smtp", "smtp"), ("submission", "smtp"),
     ("sieve", "sieve"), ("lmtp", "receive"), ("lda", "receive")],
)  # fmt: skip
def test_each_right_is_one_of_a_service(service: str, right: str) -> None:
    assert row().may(service)
    assert not row(denied=[right]).may(service)
    assert row(denied=[one for one in RIGHTS if one != right]).may(service)
    assert not row(active=False).may(service)


def test_what_needs_no_right_finds_inactive_accounts_but_lets_nobody_in() -> None:
    inactive = row(active=False)
    assert inactive.is_known_to("doveadm")
    assert not inactive.is_known_to("lmtp")
    assert not inactive.may("doveadm")
    assert "$" not in repr(inactive)
    assert "SSHA" not in repr(inactive)
