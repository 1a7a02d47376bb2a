"""From the commit of a change to the first answer that knows it, while others write 100 changes a second.

The clock starts when PostgreSQL has told the writer that its transaction is committed. From then on one
connection asks mailmaps for the key every fifth of a millisecond, which is the error of the figure, until
the answer is the new one.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from benchmarks.dataset import Dataset
from benchmarks.figures import Absolute, Figure, Result, Spread, at_least, at_most, figure
from benchmarks.suite import Suite
from mailmaps.client import TcpTableClient, open_inet
from mailmaps.demo.data import BIG_DOMAIN
from mailmaps.maps.answer import Found

BACKGROUND = 110.0
"""Changes a second asked of the writer; it is late sometimes, and 100 is what has to be reached."""

POLL = 0.0002

PATIENCE = 5.0
"""Seconds until a change counts as unseen, with this as its time."""

MILLISECONDS = 1e3

TITLE = "commit to answer"


@dataclass(frozen=True, slots=True)
class Probe:
    """One change, and the value that `key` has from then on (empty: not found)."""

    kind: str
    statement: str
    values: tuple[str, ...]
    key: str
    becomes: str


def commit_to_answer(suite: Suite) -> Result:
    """The median, the 99th percentile and the worst."""
    dataset = suite.dataset
    with suite.mailmaps() as mailmaps, writing(dataset) as written:
        delays = asyncio.run(_measure(dataset, mailmaps.port(), suite.sizes.change_seconds))
    everything = sorted(delay for those in delays.values() for delay in those)
    unseen = sum(delay >= PATIENCE for delay in everything)
    by_kind = [
        Absolute(f"{TITLE}: {kind}", "ms", milliseconds(sorted(those))) for kind, those in delays.items()
    ]
    p99 = _percentile(everything, 0.99) * MILLISECONDS
    return Result(
        [
            figure(f"{TITLE}: median", "ms", _percentile(everything, 0.5) * MILLISECONDS),
            figure(
                f"{TITLE}: 99th percentile", "ms", p99, at_most(50), f"{len(everything):,} changes followed"
            ),
            figure(f"{TITLE}: worst", "ms", everything[-1] * MILLISECONDS),
            figure(f"{TITLE}: changes not seen within {PATIENCE:g} s", "", unseen, at_most(0)),
            Figure(f"{TITLE}: changes written meanwhile", "/s", written[0], at_least(100)),
        ],
        by_kind,
    )


@contextmanager
def writing(dataset: Dataset) -> Iterator[list[Spread]]:
    """Have others write all the time; at the end the list has how many changes a second there were."""
    words = [sys.executable, "-m", "benchmarks.writer", dataset.owner_dsn, str(dataset.accounts)]
    process = subprocess.Popen([*words, str(BACKGROUND)], stdout=subprocess.PIPE, text=True)
    rate: list[Spread] = []
    try:
        yield rate
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=PATIENCE + 5)
    made, took = said.split()
    rate.append(Spread.of([int(made) / float(took)]))


async def _measure(dataset: Dataset, port: int, seconds: float) -> dict[str, list[float]]:
    connection = await asyncpg.connect(dataset.owner_dsn)
    delays: dict[str, list[float]] = {}
    end = time.monotonic() + seconds
    with open_inet("127.0.0.1", port) as sock:
        client = TcpTableClient(sock)
        for probe in _probes(dataset):
            if time.monotonic() > end:
                break
            await connection.execute(probe.statement, *probe.values)
            delays.setdefault(probe.kind, []).append(_delay(client, probe))
    await connection.close()
    return delays


def _delay(client: TcpTableClient, probe: Probe) -> float:
    """Seconds until the answer is right. Nothing else runs in this process meanwhile."""
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < PATIENCE:
        answer = client.ask(probe.key)
        if (answer.value if isinstance(answer, Found) else "") == probe.becomes:
            return time.perf_counter() - began
        time.sleep(POLL)
    return took


def _probes(dataset: Dataset) -> Iterator[Probe]:
    """One account after the other gets an alias, forwards elsewhere, sleeps and wakes, and loses it again."""
    number = 0
    while True:
        user = f"user{number % (dataset.accounts // 2)}"
        email = f"{user}@{BIG_DOMAIN}"
        alias, forward = f"probe{number}@{BIG_DOMAIN}", f"forward{number}@{BIG_DOMAIN}"
        away, further = f"a{number}@elsewhere.example", f"b{number}@elsewhere.example"
        yield Probe("new alias", "INSERT INTO user_addresses VALUES ($1, $2)", (user, alias), alias, email)
        yield Probe("inactive account", _ACTIVE.format(0), (user,), alias, "")
        yield Probe("active account", _ACTIVE.format(1), (user,), alias, email)
        yield Probe("alias gone", "DELETE FROM user_addresses WHERE alias = $1", (alias,), alias, "")
        yield Probe(
            "new forward", "INSERT INTO mailmaps.forwards VALUES ($1, $2)", (forward, away), forward, away
        )
        yield Probe(
            "changed forward",
            "UPDATE mailmaps.forwards SET target = $2 WHERE address = $1",
            (forward, further),
            forward,
            further,
        )
        yield Probe(
            "forward gone", "DELETE FROM mailmaps.forwards WHERE address = $1", (forward,), forward, ""
        )
        number += 1


_ACTIVE = "UPDATE user_accounts SET active = '{}' WHERE username = $1"


def _percentile(ascending: list[float], part: float) -> float:
    return ascending[math.ceil(part * len(ascending)) - 1]


def milliseconds(ascending: list[float]) -> Spread:
    """The median of seconds, in milliseconds, with the shortest and the longest."""
    one, middle, last = (
        value * MILLISECONDS for value in (ascending[0], _percentile(ascending, 0.5), ascending[-1])
    )
    return Spread(middle, one, last)
