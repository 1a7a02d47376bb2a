"""Guesses are slowed, and the right user is not locked out: with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from ipaddress import ip_network

import pytest

from mailmaps.auth.guesses import (
    FIRST_DELAY,
    FREE_ACCOUNT,
    FREE_CLIENT,
    FREE_PAIR,
    HALF_LIFE,
    LONGEST_DELAY,
    MOST,
    MOST_WAITING,
    MOST_WAITING_UNKNOWN,
    Guesses,
    Rank,
)
from mailmaps.maps.answer import CannotSay

HERE = "198.51.100.7"
THERE = "203.0.113.9"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guesses(clock: Clock) -> Guesses:
    return Guesses([ip_network("192.0.2.0/24")], clock=clock, sleep=clock.sleep)


async def wrong(guesses: Guesses, user: str, client: str, times: int = 1, first: int = 0) -> float:
    """Guess other passwords; the delay before the last."""
    delay = 0.0
    for number in range(first, first + times):
        delay = await delay_of(guesses, user, client, wrong=f"{user}{client}{number}".encode())
    return delay


async def delay_of(
    guesses: Guesses, user: str, client: str, wrong: bytes = b"", right: bool = False
) -> float:
    """The delay of a login, which is then told what it was."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    guesses._sleep = sleep
    async with guesses.turn(user, client) as guess:
        if wrong:
            guess.was_wrong(wrong)
        if right:
            guess.was_right()
    return sum(slept)


async def test_some_wrong_guesses_cost_nothing_then_more_and_more(guesses: Guesses) -> None:
    assert await wrong(guesses, "anna", HERE, FREE_PAIR) == 0
    assert await wrong(guesses, "anna", HERE, first=10) == FIRST_DELAY
    assert await wrong(guesses, "anna", HERE, first=11) == 2 * FIRST_DELAY
    assert await wrong(guesses, "anna", HERE, 10, first=20) == LONGEST_DELAY


async def test_the_case_of_a_name_is_no_way_around(guesses: Guesses) -> None:
    await wrong(guesses, "anna", HERE, FREE_PAIR)
    assert await delay_of(guesses, "ANNA", HERE) > 0


async def test_the_right_user_elsewhere_is_not_slowed_by_one_guesser(guesses: Guesses) -> None:
    await wrong(guesses, "anna", HERE, FREE_ACCOUNT - 1)
    assert await delay_of(guesses, "anna", THERE) == 0


async def test_a_crowd_of_guessers_slows_strangers_and_not_who_was_in_before(guesses: Guesses) -> None:
    await delay_of(guesses, "anna", THERE, right=True)
    for number in range(2 * FREE_ACCOUNT):
        await wrong(guesses, "anna", f"198.51.100.{number}")
    assert await delay_of(guesses, "anna", "203.0.113.77") == LONGEST_DELAY
    assert await delay_of(guesses, "anna", THERE) == 0


async def test_a_client_that_tries_many_names(guesses: Guesses) -> None:
    for number in range(FREE_CLIENT):
        assert await wrong(guesses, f"user{number}", HERE) == 0
    assert await delay_of(guesses, "another", HERE) > 0
    assert await delay_of(guesses, "another", THERE) == 0


@pytest.mark.parametrize("client", ["192.0.2.7", "127.0.0.1", "::1", "::ffff:127.0.0.1", "", "no address"])
async def test_a_client_that_is_many_people_is_no_client(guesses: Guesses, client: str) -> None:
    for number in range(2 * FREE_CLIENT):
        await wrong(guesses, f"user{number}", client)
    assert await delay_of(guesses, "another", client) == 0
    await wrong(guesses, "anna", client, FREE_PAIR)
    assert await delay_of(guesses, "anna", client) > 0


async def test_one_network_of_ipv6_is_one_client(guesses: Guesses) -> None:
    for number in range(FREE_CLIENT):
        await wrong(guesses, f"user{number}", f"2001:db8::{number:x}")
    assert await delay_of(guesses, "another", "2001:db8::ffff") > 0
    assert await delay_of(guesses, "another", "2001:db8:0:1::1") == 0


async def test_the_old_password_of_a_phone_is_no_guess(guesses: Guesses) -> None:
    for _ in range(50):
        assert await delay_of(guesses, "anna", HERE, wrong=b"the same") == 0


async def test_the_right_password_forgives(guesses: Guesses) -> None:
    await wrong(guesses, "anna", HERE, 2 * FREE_PAIR)
    assert await delay_of(guesses, "anna", HERE, right=True) > 0
    assert await delay_of(guesses, "anna", HERE) == 0


async def test_guesses_are_forgotten_with_time(guesses: Guesses, clock: Clock) -> None:
    await wrong(guesses, "anna", HERE, 2 * FREE_PAIR)
    clock.now += HALF_LIFE
    assert await delay_of(guesses, "anna", HERE) == FIRST_DELAY  # half of them are FREE_PAIR
    clock.now += 20 * HALF_LIFE
    assert await delay_of(guesses, "anna", HERE) == 0


async def run_at_once(guesses: Guesses, logins: Sequence[tuple[str, str, bytes]]) -> list[float | None]:
    """Logins that come together, each with a wrong password or (empty) the right one.

    When each was looked at, in seconds after; None: it was refused. Time passes when nothing else does.
    """
    waited: ContextVar[float] = ContextVar("waited", default=0.0)
    sleepers: list[asyncio.Future[None]] = []

    async def sleep(seconds: float) -> None:
        waited.set(waited.get() + seconds)
        sleepers.append(asyncio.get_running_loop().create_future())
        await sleepers[-1]

    async def log_in(user: str, client: str, digest: bytes) -> float | None:
        try:
            async with guesses.turn(user, client) as guess:
                await asyncio.sleep(0)
                guess.was_wrong(digest) if digest else guess.was_right()
        except CannotSay:
            return None
        return waited.get()

    guesses._sleep = sleep
    tasks = [asyncio.ensure_future(log_in(*login)) for login in logins]
    while not all(task.done() for task in tasks):
        for _ in range(5 * len(tasks)):
            await asyncio.sleep(0)
        for sleeper in sleepers:
            sleeper.set_result(None)
        sleepers.clear()
    return [task.result() for task in tasks]


async def test_a_thousand_guesses_at_once_are_no_way_around(guesses: Guesses) -> None:
    found = await run_at_once(guesses, [("anna", HERE, b"%d" % number) for number in range(1000)])
    assert found[:FREE_PAIR] == [0.0] * FREE_PAIR
    assert sum(one is not None for one in found) == FREE_PAIR + MOST_WAITING
    assert all(one is None or one >= FIRST_DELAY for one in found[FREE_PAIR:])
    [stranger] = await run_at_once(guesses, [("anna", THERE, b"")])
    assert stranger == FIRST_DELAY * 2 ** (FREE_PAIR + MOST_WAITING - FREE_ACCOUNT)
    assert await run_at_once(guesses, [("anna", THERE, b"")]) == [0.0]


async def test_a_thousand_names_at_once_neither(guesses: Guesses) -> None:
    found = await run_at_once(guesses, [(f"user{number}", HERE, b"x") for number in range(1000)])
    assert sum(one == 0.0 for one in found) == FREE_CLIENT
    assert sum(one is not None for one in found) == FREE_CLIENT + MOST_WAITING


async def test_many_people_behind_one_address_wait_for_nothing(guesses: Guesses) -> None:
    found = await run_at_once(guesses, [(f"user{number}", HERE, b"") for number in range(500)])
    assert found == [0.0] * 500


async def test_without_a_client_the_account_has_a_gate_of_its_own(guesses: Guesses) -> None:
    found = await run_at_once(guesses, [("anna", "", b"%d" % number) for number in range(1000)])
    assert sum(one is not None for one in found) == FREE_PAIR + MOST_WAITING_UNKNOWN
    assert await delay_of(guesses, "bob", "") == 0
    assert await delay_of(guesses, "anna", HERE) <= LONGEST_DELAY


@pytest.mark.parametrize(
    ("client", "rank"),
    [(HERE, Rank.KNOWN), ("2001:db8::1", Rank.KNOWN), ("192.0.2.7", Rank.SHARED), ("127.0.0.1", Rank.SHARED),
     ("", Rank.UNKNOWN)],
)  # fmt: skip
async def test_whose_address_is_known_comes_first(guesses: Guesses, client: str, rank: Rank) -> None:
    async with guesses.turn("anna", client) as guess:
        assert guess.rank == rank


async def test_memory_is_bounded_and_who_has_guessed_most_stays(guesses: Guesses) -> None:
    await wrong(guesses, "victim", "2001:db8:ffff::1", 9)
    for number in range(2 * MOST):
        await wrong(guesses, f"user{number}", f"2001:db8:{number >> 12:x}:{number & 0xFFF:x}::1")
    for kind in (guesses._pairs, guesses._clients, guesses._accounts):
        assert len(kind) == MOST
    assert await delay_of(guesses, "victim", "2001:db8:ffff::1") == LONGEST_DELAY


async def test_only_wrong_guesses_leave_a_trace(guesses: Guesses) -> None:
    await run_at_once(guesses, [(f"user{number}", HERE, b"") for number in range(100)])
    assert not guesses._pairs
    assert not guesses._clients
    for number in range(FREE_CLIENT):
        await wrong(guesses, f"user{number}", THERE)
    known = len(guesses._pairs)
    found = await run_at_once(guesses, [(f"name{number}", THERE, b"x") for number in range(1000)])
    assert sum(one is None for one in found) == 1000 - MOST_WAITING
    assert len(guesses._pairs) == known + MOST_WAITING


async def test_guesses_that_are_forgotten_leave_none(guesses: Guesses, clock: Clock) -> None:
    await wrong(guesses, "anna", HERE)
    clock.now += 20 * HALF_LIFE
    assert await delay_of(guesses, "anna", HERE) == 0
    assert not guesses._pairs
