"""Writes changes at an even pace, each in a transaction of its own: what goes on while others are measured.

    python -m benchmarks.writer DSN ACCOUNTS A_SECOND

Adds an alias, moves it to another account, removes it, switches an account off and on again, over and over
through the last half of the accounts. On SIGTERM it finishes with the account, so that all is as it was, and
prints how many changes it made and in how many seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import time
from collections.abc import Iterator

import asyncpg

from mailmaps.demo.data import BIG_DOMAIN

PR_SET_PDEATHSIG = 1

AN_ACCOUNT = 5

Change = tuple[str, tuple[str, ...]]


def changes(accounts: int) -> Iterator[Change]:
    """Statements without end, `AN_ACCOUNT` an account."""
    number = 0
    while True:
        user = f"user{accounts // 2 + number % (accounts - accounts // 2)}"
        other = f"user{accounts // 2}"
        alias = f"written{number}@{BIG_DOMAIN}"
        yield "INSERT INTO user_addresses (username, alias) VALUES ($1, $2)", (user, alias)
        yield "UPDATE user_addresses SET username = $1 WHERE alias = $2", (other, alias)
        yield "DELETE FROM user_addresses WHERE alias = $1", (alias,)
        yield "UPDATE user_accounts SET active = '0' WHERE username = $1", (user,)
        yield "UPDATE user_accounts SET active = '1' WHERE username = $1", (user,)
        number += 1


async def write(dsn: str, accounts: int, a_second: float) -> tuple[int, float]:
    """Write until SIGTERM, and the last account's changes to their end; the changes made and the seconds."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    connection = await asyncpg.connect(dsn)
    began = time.monotonic()
    made = 0
    for statement, values in changes(accounts):
        if ended.is_set() and made % AN_ACCOUNT == 0:
            break
        await connection.execute(statement, *values)
        made += 1
        await asyncio.sleep(max(0.0, began + made / a_second - time.monotonic()))
    took = time.monotonic() - began
    await connection.close()
    return made, took


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    made, took = asyncio.run(write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    print(made, took, flush=True)
