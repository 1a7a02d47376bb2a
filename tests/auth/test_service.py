"""The login service: every result, and none for another."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.auth.source import HASH, SECRET, Accounts, row

from mailmaps.auth import passwords
from mailmaps.auth import service as service_module
from mailmaps.auth.accounts import Places, Row
from mailmaps.auth.attempt import (
    REJECTED,
    UNKNOWN,
    Accepted,
    Listed,
    Listing,
    Login,
    Lookup,
    Password,
    Result,
)
from mailmaps.auth.guesses import Guesses
from mailmaps.auth.remembered import Remembered
from mailmaps.auth.service import LoginService, Naming
from mailmaps.auth.threads import Threads
from mailmaps.auth.verifying import NOBODY, HashVerifier, PamVerifier, Verifier
from mailmaps.maps.answer import CannotSay, Unavailable
from mailmaps.maps.search import Rules

WRONG = b"wr0ng battery"


class Counting:
    """A verifier that counts what it was asked."""

    def __init__(self, inner: Verifier) -> None:
        self.inner = inner
        self.asked: list[Row | None] = []

    async def is_right(self, login: Login, row: Row | None, rank: int) -> bool:
        self.asked.append(row)
        return await self.inner.is_right(login, row, rank)

    def close(self) -> None:
        self.inner.close()


class Site:
    """A service over some rows, with everything a test wants to look at."""

    def __init__(
        self,
        *rows: Row,
        remember: float = 0,
        verifier: Verifier | None = None,
    ) -> None:
        self.accounts = Accounts(*(rows or (row(), row(login="j@lxtreme.nl", by="address"))))
        hashing = HashVerifier(
            self.accounts, Threads("passwords", 2, 50), default_scheme="CRYPT", allow_plain=False
        )
        self.verifier = Counting(verifier or hashing)
        self.guesses = Guesses()
        self.remembered = Remembered(remember)
        self.remembered.hears(True)
        self.service = LoginService(
            self.accounts,
            self.verifier,
            self.guesses,
            self.remembered,
            naming=Naming(realm="lxtreme.nl"),
            places=Places("/mail"),
            rules=Rules(recipient_delimiter="+"),
        )

    async def login(
        self, user: str, password: bytes = SECRET, service: str = "imap", client: str = "", realm: str = ""
    ) -> Result:
        return await self.service.answer(Login(user, Password(password), service, client, realm), "test")

    async def lookup(self, user: str, service: str = "lmtp") -> Result:
        return await self.service.answer(Lookup(user, service), "test")


def username(result: Result) -> str:
    assert isinstance(result, Accepted), result
    return result.account.username


@pytest.mark.parametrize(
    ("user", "realm"),
    [
        ("jawi_lx", ""),
        ("JAWI_LX", ""),
        ("j@lxtreme.nl", ""),
        ("J@LXtreme.nl", ""),
        ("jawi_lx@lxtreme.nl", ""),
        ("jawi_lx", "lxtreme.nl"),
        ("j", "lxtreme.nl"),
    ],
)
async def test_the_right_password(user: str, realm: str) -> None:
    assert username(await Site().login(user, realm=realm)) == "jawi_lx"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("jawi_lx", WRONG),
        ("nobody", SECRET),
        ("jawi_lx", b""),
        ("jawi_lx", SECRET + b"\0"),
        ("jawi_lx", SECRET * 100),
        ("", SECRET),
        ("jawi_lx\0", SECRET),
        ("jawi_lx\udcff", SECRET),
        ("j" * 10_000, SECRET),
        ("jawi_lx@other.example", SECRET),
        ("jawi_lx+ext@lxtreme.nl", SECRET),
    ],
)
async def test_rejected(user: str, password: bytes) -> None:
    site = Site()
    assert await site.login(user, password) == REJECTED
    assert len(site.verifier.asked) == 1  # whoever it is, a hash is worked out


@pytest.mark.parametrize(
    "bad",
    [row(active=False), row(denied=["imap"]), row(stored=""), row(stored="!" + HASH), row(stored="*")],
)
async def test_an_account_that_may_not(bad: Row) -> None:
    site = Site(bad)
    assert await site.login("jawi_lx") == REJECTED
    assert len(site.verifier.asked) == 1


async def test_a_right_is_one_of_its_service_only() -> None:
    site = Site(row(denied=["smtp"]))
    assert username(await site.login("jawi_lx", service="imap")) == "jawi_lx"
    assert await site.login("jawi_lx", service="smtp") == REJECTED


@pytest.mark.parametrize(
    "stored", ["{NO-SUCH-SCHEME}abc", "{PLAIN}corr3ct horse", "my_crypted_pw", "$6$salt$cut off"]
)
async def test_a_hash_that_cannot_be_checked_is_no_wrong_password(
    stored: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = await Site(row(stored=stored)).login("jawi_lx")
    assert isinstance(result, Unavailable)
    assert "jawi_lx" in caplog.text
    assert stored not in caplog.text + result.reason


async def test_a_database_that_is_away_is_cannot_say_for_everybody() -> None:
    site = Site()
    site.accounts.away = "database: no connection"
    for question in (
        Login("jawi_lx", Password(SECRET)),
        Login("", Password(b"")),
        Lookup("nobody"),
        Listing(),
    ):
        result = await site.service.answer(question, "test")
        assert isinstance(result, Unavailable), question


async def test_what_takes_too_long_is_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "LIMIT", 0.05)
    site = Site()
    site.accounts.gate.clear()
    assert isinstance(await site.login("jawi_lx"), Unavailable)
    assert isinstance(await site.lookup("jawi_lx"), Unavailable)
    site.accounts.gate.set()
    monkeypatch.undo()
    assert username(await site.login("jawi_lx")) == "jawi_lx"


async def test_what_is_broken_is_cannot_say(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.accounts.rows = None  # type: ignore[assignment]
    result = await site.login("jawi_lx", WRONG)
    assert result == Unavailable("internal error")
    assert "battery" not in caplog.text


async def test_a_full_queue_is_cannot_say() -> None:
    accounts = Accounts(row())
    verifier = HashVerifier(accounts, Threads("passwords", 1, 1), default_scheme="CRYPT", allow_plain=False)
    site = Site(row(stored=passwords.make(SECRET, "SHA512-CRYPT")), verifier=verifier)
    results = await asyncio.gather(
        *(site.login("jawi_lx", b"%d" % n, client=f"192.0.2.{n}") for n in range(9))
    )
    assert results.count(REJECTED) >= 2
    assert any(isinstance(one, Unavailable) and "too many" in one.reason for one in results)


async def test_ten_connections_of_a_phone_are_one_check() -> None:
    site = Site(remember=10)
    results = await asyncio.gather(*(site.login("jawi_lx", client="192.0.2.1") for _ in range(10)))
    assert [username(one) for one in results] == ["jawi_lx"] * 10
    assert len(site.verifier.asked) == len(site.accounts.asked) == 1
    assert username(await site.login("jawi_lx")) == "jawi_lx"
    assert len(site.verifier.asked) == 1
    assert await site.login("jawi_lx", WRONG) == REJECTED
    site.remembered.forget()
    assert username(await site.login("jawi_lx")) == "jawi_lx"
    assert len(site.verifier.asked) == 3


async def test_rights_are_looked_at_with_a_remembered_password_too() -> None:
    site = Site(row(denied=["smtp"]), remember=10)
    assert username(await site.login("jawi_lx", service="imap")) == "jawi_lx"
    assert await site.login("jawi_lx", service="smtp") == REJECTED


async def test_what_was_changed_while_it_was_checked_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(remember=10)
    is_right = site.verifier.inner.is_right

    async def changed_meanwhile(login: Login, row: Row | None, rank: int) -> bool:
        result = await is_right(login, row, rank)
        site.remembered.forget()
        return result

    monkeypatch.setattr(site.verifier.inner, "is_right", changed_meanwhile)
    for number in (1, 2):
        assert username(await site.login("jawi_lx")) == "jawi_lx"
        assert len(site.verifier.asked) == number


async def test_an_account_that_changed_while_a_guesser_waited_is_looked_up_anew() -> None:
    site = Site()

    async def sleep(_: float) -> None:
        site.accounts.rows = []
        site.remembered.forget()

    site.guesses._sleep = sleep
    for number in range(4):
        assert await site.login("jawi_lx", b"%d" % number, client="198.51.100.7") == REJECTED
    assert await site.login("jawi_lx", client="198.51.100.7") == REJECTED  # gone by then


async def test_one_who_hangs_up_does_not_end_it_for_the_others() -> None:
    site = Site()
    site.accounts.gate.clear()
    first, second = (asyncio.ensure_future(site.login("jawi_lx")) for _ in range(2))
    while not site.accounts.asked:
        await asyncio.sleep(0)
    first.cancel()
    site.accounts.gate.set()
    assert username(await second) == "jawi_lx"


async def test_guesses_wait() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    site = Site()
    site.guesses._sleep = sleep
    for number in range(8):
        assert await site.login("jawi_lx", b"%d" % number, client="198.51.100.7") == REJECTED
    assert waited == [0.5, 1, 2, 4]
    assert username(await site.login("jawi_lx", client="203.0.113.9")) == "jawi_lx"
    assert waited == [0.5, 1, 2, 4]


async def test_sixty_people_behind_one_address_log_in_at_once() -> None:
    site = Site(*(row(f"user{number}") for number in range(60)))
    results = await asyncio.gather(
        *(site.login(f"user{number}", client="198.51.100.7") for number in range(60))
    )
    assert [username(one) for one in results] == [f"user{number}" for number in range(60)]


async def test_lookups() -> None:
    gone = row("gone", active=False)
    site = Site(row(), row(login="j@lxtreme.nl", by="address"), gone)
    assert username(await site.lookup("jawi_lx", "doveadm")) == "jawi_lx"
    assert username(await site.lookup("J@lxtreme.nl")) == "jawi_lx"
    assert username(await site.lookup("j+Lists@lxtreme.nl")) == "jawi_lx"
    assert await site.lookup("nobody@lxtreme.nl") == UNKNOWN
    assert await site.lookup("gone") == UNKNOWN
    assert username(await site.lookup("gone", "doveadm")) == "gone"
    assert username(await site.lookup("jawi_lx@lxtreme.nl", "doveadm")) == "jawi_lx"
    assert await site.lookup("jawi_lx@lxtreme.nl") == UNKNOWN  # the realm is for logins; smtpd says 550
    assert site.verifier.asked == []


@pytest.mark.parametrize(
    "asked", ['"q q"@lxtreme.nl', "q q@lxtreme.nl", "Q Q@LXtreme.nl", "q q+ext@lxtreme.nl"]
)
async def test_an_address_that_needs_quotes_is_found_in_either_form(asked: str) -> None:
    """Dovecot's LMTP takes the quotes away."""
    site = Site(row("quentin", '"q q"@lxtreme.nl', by="address"))
    assert username(await site.lookup(asked)) == "quentin"
    if "+" not in asked:
        assert username(await site.login(asked)) == "quentin"


async def test_who_delivers_gets_whose_mailbox_it_is() -> None:
    """As virtual_mailbox_maps has it: by address, whatever one may log in with."""
    site = Site(
        row("info@lxtreme.nl"),
        row("anna", "info@lxtreme.nl", by="address"),
        row("w+x", "w+x@lxtreme.nl", by="address"),
    )
    site.service._naming = Naming(["username"])
    assert username(await site.lookup("info@lxtreme.nl", "lmtp")) == "anna"
    assert username(await site.lookup("w+x@lxtreme.nl", "lmtp")) == "w+x"
    assert username(await site.lookup("info@lxtreme.nl", "doveadm")) == "info@lxtreme.nl"
    assert username(await site.login("info@lxtreme.nl")) == "info@lxtreme.nl"
    assert await site.login("w+x@lxtreme.nl") == REJECTED


async def test_many_names_of_one_account_are_one_account_to_a_guesser() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    names = [f"alias{number}@lxtreme.nl" for number in range(6)]
    site = Site(row(), *(row(login=name, by="address") for name in names))
    site.guesses._sleep = sleep
    for name in names:
        assert await site.login(name, b"guess " + name.encode(), client="198.51.100.7") == REJECTED
    assert waited == [0.5, 1]


@pytest.mark.parametrize("stored", ["", "!", "*", "!" + HASH, "{CRYPT}*", "x"])
async def test_a_locked_account_costs_what_everybody_costs(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def verify(password: bytes, stored: str, **_: object) -> bool:
        hashed.append(stored)
        return True

    monkeypatch.setattr("mailmaps.auth.verifying.passwords.verify", verify)
    site = Site(row("locked", stored=stored), row())
    assert await site.login("locked") == REJECTED
    assert hashed == [HASH]


async def test_a_list() -> None:
    assert await Site().service.answer(Listing(), "test") == Listed(("jawi_lx",))


async def test_an_account_that_virtual_would_not_deliver_to_is_cannot_say() -> None:
    site = Site(row(uid=0))
    assert isinstance(await site.lookup("jawi_lx"), Unavailable)
    assert isinstance(await site.login("jawi_lx"), Unavailable)


async def test_pam_gets_the_username_or_what_stands_before_its_realm() -> None:
    asked: list[tuple[str, bytes]] = []

    def ask(user: str, password: bytes) -> bool:
        asked.append((user, password))
        return password == SECRET

    for strip, expected in ((False, "jan@lxtreme.nl"), (True, "jan")):
        asked.clear()
        pam = PamVerifier(ask, Threads("pam", 1, 10), strip_realm=strip)
        site = Site(row("jan@lxtreme.nl"), verifier=pam)
        assert username(await site.login("JAN@lxtreme.nl")) == "jan@lxtreme.nl"
        assert asked == [(expected, SECRET)]
        assert await site.login("nobody", SECRET) == REJECTED
        assert asked[1:] == [(NOBODY, SECRET)]  # it takes as long as for somebody


async def test_pam_that_cannot_say() -> None:
    def ask(user: str, password: bytes) -> bool:
        raise CannotSay("PAM: module is unknown (28)")

    site = Site(verifier=PamVerifier(ask, Threads("pam", 1, 10), strip_realm=False))
    assert isinstance(await site.login("jawi_lx"), Unavailable)


async def test_no_password_and_no_typed_name_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site = Site()
    await site.login("my secret, typed in the wrong field", WRONG)
    await site.login("jawi_lx")
    assert "jawi_lx" in caplog.text
    for secret in ("wrong field", WRONG.decode(), SECRET.decode(), HASH):
        assert secret not in caplog.text
