"""Many threads at once, and an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailmaps.auth.passwords import SCHEMES, make, verify
from mailmaps.auth.passwords.crypt3 import crypt

# Each takes some 0.2 to 0.5 s of a core. With the lock held, the other thread would run perhaps ten times
# meanwhile; without it, hundreds of times on an idle machine.
SLOW = {
    "sha512_crypt": "$6$rounds=2000000$salt$" + "a" * 86,
    "sha1_crypt": "$sha1$800000$mailmaps$" + "a" * 28,
    "bcrypt": "$2y$12$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW",
    "yescrypt": "$y$jDT$mailmaps$" + "a" * 43,
    "argon2": "$argon2id$v=19$m=65536,t=6,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "pbkdf2": "$1$salt$2000000$" + "a" * 40,
    "scram": "1000000,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
}
LEAST_TICKS = 20


@pytest.mark.parametrize("stored", SLOW.values(), ids=SLOW)
def test_the_interpreter_lock_is_free_meanwhile(stored: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # the thread is there
        running = pool.submit(verify, b"right", stored)
        ticks = 0
        while not running.done():
            time.sleep(0.001)
            ticks += 1
        assert running.result() is False
    assert ticks >= LEAST_TICKS


def test_right_results_from_many_threads() -> None:
    made = [(f"{scheme}-{number}".encode()[-8:], scheme) for scheme in SCHEMES for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda pair: make(*pair), made))
        assert len(set(stored)) == len(stored)
        tries = [
            (password, text, password == made[index][0])
            for index, text in enumerate(stored)
            for password in (made[index][0], made[index - 1][0][::-1])
        ] * 3
        fits = list(pool.map(lambda one: verify(one[0], one[1]), tries))
    assert fits == [expected for _, _, expected in tries]


def test_libcrypt_gives_back_its_memory() -> None:
    """Each call allocates 32 KiB: 20,000 of them would be 640 MB."""
    before = _resident()
    for _ in range(20_000):
        assert crypt(b"right", b"ab") is not None
        assert crypt(b"right", b"nonsense, of course!"[:1]) is None
    assert _resident() - before < 100 << 20


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 # no path of ours
        return int(file.read().split()[1]) * 4096


async def test_the_event_loop_goes_on() -> None:
    ticks = 0
    task = asyncio.create_task(asyncio.to_thread(verify, b"right", SLOW["sha512_crypt"]))
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert await task is False
    assert ticks >= LEAST_TICKS
