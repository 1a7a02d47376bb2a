"""What is remembered of right passwords, and for how long."""

from __future__ import annotations

import pytest
from tests.auth.source import row

from mailmaps.auth.attempt import Login, Password
from mailmaps.auth.remembered import DEAF_TTL, MOST, Remembered


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def login(user: str = "anna", password: bytes = b"pw", realm: str = "") -> Login:
    return Login(user, Password(password), realm=realm)


def test_it_is_remembered_for_its_time() -> None:
    clock = Clock()
    memory = Remembered(10, clock)
    memory.hears(True)
    digest = memory.digest(login())
    found = row()
    memory.put(digest, found, memory.epoch)
    clock.now = 9.9
    assert memory.get(digest) is found
    clock.now = 10
    assert memory.get(digest) is None


def test_a_change_drops_all_and_what_was_found_before_it_is_not_kept() -> None:
    memory = Remembered(10, Clock())
    memory.hears(True)
    digest = memory.digest(login())
    epoch = memory.epoch
    memory.put(digest, row(), epoch)
    memory.forget()
    assert memory.get(digest) is None
    memory.put(digest, row(), epoch)
    assert memory.get(digest) is None
    memory.put(digest, row(), memory.epoch)
    assert memory.get(digest) is not None


def test_while_changes_are_not_heard_of() -> None:
    clock = Clock()
    memory = Remembered(600, clock)
    digest = memory.digest(login())
    memory.put(digest, row(), memory.epoch)
    clock.now = DEAF_TTL
    assert memory.get(digest) is None


def test_nothing_is_remembered_if_nobody_wants_it() -> None:
    memory = Remembered(0, Clock())
    memory.hears(True)
    digest = memory.digest(login())
    memory.put(digest, row(), memory.epoch)
    assert memory.get(digest) is None


@pytest.mark.parametrize(
    "other",
    [
        login("ann", b"apw"),
        login("anna", b"pw2"),
        login("anna", b""),
        login("Anna"),
        login("anna", b"pw", "realm"),
        login("an", b"pw", "na"),
    ],
)
def test_a_digest_is_that_of_one_login_and_of_one_process(other: Login) -> None:
    memory = Remembered(10)
    assert memory.digest(login()) == memory.digest(login())
    assert memory.digest(login()) != memory.digest(other)
    assert memory.digest(login()) != Remembered(10).digest(login())
    assert b"pw" not in memory.digest(login())


def test_memory_is_bounded() -> None:
    memory = Remembered(10, Clock())
    for number in range(MOST + 100):
        memory.put(number.to_bytes(4, "big"), row(), memory.epoch)
    assert len(memory._rows) == MOST
