"""Guesses are slowed, and the right user is not locked out: with a clock of the test's own."""

from __future__ import annotations

from contextlib import ExitStack
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
)
from mailmaps.maps.answer import CannotSay

HERE = "198.51.100.7"
THERE = "203.0.113.9"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guesses(clock: Clock) -> Guesses:
    return Guesses([ip_network("192.0.2.0/24")], clock)


def wrong(guesses: Guesses, user: str, client: str, times: int = 1, first: int = 0) -> float:
    """Guess other passwords; the delay before the last."""
    delay = 0.0
    for number in range(first, first + times):
        with guesses.guess(user, client) as guess:
            delay = guess.delay
            guess.was_wrong(f"{user}{client}{number}".encode())
    return delay


def right(guesses: Guesses, user: str, client: str) -> float:
    with guesses.guess(user, client) as guess:
        guess.was_right()
        return guess.delay


def delay_of(guesses: Guesses, user: str, client: str) -> float:
    with guesses.guess(user, client) as guess:
        return guess.delay


def test_some_wrong_guesses_cost_nothing_then_more_and_more() -> None:
    guesses = Guesses(clock=Clock())
    assert wrong(guesses, "anna", HERE, FREE_PAIR) == 0
    assert wrong(guesses, "anna", HERE, first=10) == FIRST_DELAY
    assert wrong(guesses, "anna", HERE, first=11) == 2 * FIRST_DELAY
    assert wrong(guesses, "anna", HERE, 10, first=20) == LONGEST_DELAY


def test_the_case_of_a_name_is_no_way_around(guesses: Guesses) -> None:
    wrong(guesses, "anna", HERE, FREE_PAIR)
    assert delay_of(guesses, "ANNA", HERE) > 0


def test_the_right_user_elsewhere_is_not_slowed_by_one_guesser(guesses: Guesses) -> None:
    wrong(guesses, "anna", HERE, FREE_ACCOUNT - 1)
    assert delay_of(guesses, "anna", THERE) == 0


def test_a_crowd_of_guessers_slows_strangers_and_not_who_was_in_before(guesses: Guesses) -> None:
    right(guesses, "anna", THERE)
    for number in range(2 * FREE_ACCOUNT):
        wrong(guesses, "anna", f"198.51.100.{number}")
    assert delay_of(guesses, "anna", "203.0.113.77") == LONGEST_DELAY
    assert delay_of(guesses, "anna", THERE) == 0


def test_a_client_that_tries_many_names(guesses: Guesses) -> None:
    for number in range(FREE_CLIENT):
        assert wrong(guesses, f"user{number}", HERE) == 0
    assert delay_of(guesses, "another", HERE) > 0
    assert delay_of(guesses, "another", THERE) == 0


@pytest.mark.parametrize("client", ["192.0.2.7", "127.0.0.1", "::1", "::ffff:127.0.0.1", "", "no address"])
def test_a_client_that_is_many_people_is_no_client(guesses: Guesses, client: str) -> None:
    for number in range(2 * FREE_CLIENT):
        wrong(guesses, f"user{number}", client)
    assert delay_of(guesses, "another", client) == 0
    wrong(guesses, "anna", client, FREE_PAIR)
    assert delay_of(guesses, "anna", client) > 0


def test_one_network_of_ipv6_is_one_client(guesses: Guesses) -> None:
    for number in range(FREE_CLIENT):
        wrong(guesses, f"user{number}", f"2001:db8::{number:x}")
    assert delay_of(guesses, "another", "2001:db8::ffff") > 0
    assert delay_of(guesses, "another", "2001:db8:0:1::1") == 0


def test_the_old_password_of_a_phone_is_no_guess(guesses: Guesses) -> None:
    for _ in range(50):
        with guesses.guess("anna", HERE) as guess:
            assert guess.delay == 0
            guess.was_wrong(b"the same")


def test_the_right_password_forgives(guesses: Guesses) -> None:
    wrong(guesses, "anna", HERE, 2 * FREE_PAIR)
    assert right(guesses, "anna", HERE) > 0
    assert delay_of(guesses, "anna", HERE) == 0


def test_guesses_are_forgotten_with_time(guesses: Guesses, clock: Clock) -> None:
    wrong(guesses, "anna", HERE, 2 * FREE_PAIR)
    clock.now += HALF_LIFE
    assert delay_of(guesses, "anna", HERE) == FIRST_DELAY  # half of them are FREE_PAIR
    clock.now += 20 * HALF_LIFE
    assert delay_of(guesses, "anna", HERE) == 0


def test_a_thousand_guesses_at_once_are_no_way_around(guesses: Guesses) -> None:
    with ExitStack() as under_way:
        delays = [
            under_way.enter_context(guesses.guess("anna", HERE)).delay
            for _ in range(FREE_PAIR + MOST_WAITING)
        ]
        with pytest.raises(CannotSay), guesses.guess("anna", HERE):
            pass
        assert delays[:FREE_PAIR] == [0.0] * FREE_PAIR
        assert delay_of(guesses, "anna", THERE) <= LONGEST_DELAY  # the right user is let in
    assert delay_of(guesses, "anna", HERE) == 0


def test_without_a_client_the_account_has_a_gate_of_its_own(guesses: Guesses) -> None:
    with ExitStack() as under_way:
        for _ in range(FREE_PAIR + MOST_WAITING_UNKNOWN):
            under_way.enter_context(guesses.guess("anna", ""))
        with pytest.raises(CannotSay), guesses.guess("anna", ""):
            pass
        assert delay_of(guesses, "anna", HERE) <= LONGEST_DELAY
        assert delay_of(guesses, "bob", "") == 0


def test_memory_is_bounded(guesses: Guesses) -> None:
    for number in range(2 * MOST):
        wrong(guesses, f"user{number}", f"2001:db8:{number >> 12:x}:{number & 0xFFF:x}::1")
    for kind in (guesses._pairs, guesses._clients, guesses._accounts):
        assert len(kind) == MOST
