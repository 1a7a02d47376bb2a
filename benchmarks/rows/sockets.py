"""Hits with 64 connections, one request outstanding on each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.figures import TIMES, Figure, Result, at_least
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import Measure, interleaved
from benchmarks.suite import Suite

CONNECTIONS = 64

SOME_KEYS = 5_000
"""Different keys a round, asked over and over, as the mail of a busy hour does. The other measurement asks
every address once, in random order, so that no answer is the same as one before."""


def sixty_four(suite: Suite) -> Result:
    """mailmaps beside the bare uvloop dict, the C floor and PostgreSQL itself."""
    if not suite.programs.built:
        return Result(left_out=[f"hit, {CONNECTIONS} connections: {NO_COMPILER}"])
    title = f"hit, {CONNECTIONS} connections"
    with ExitStack() as stack:
        ports = {
            "mailmaps tcp:": stack.enter_context(suite.mailmaps()).port(),
            "bare uvloop dict": stack.enter_context(suite.bare()),
            "C floor": stack.enter_context(suite.floor("200 user0@demo.example"))[0],
        }
        again = _peers(suite, ports, SOME_KEYS)
        again["PostgreSQL"] = _postgres(suite)
        repeated = interleaved(again, suite.sizes.rounds, "lookups/s")
        once = interleaved(_peers(suite, ports, 0), suite.sizes.rounds, "lookups/s")
    figures = [
        Figure(
            f"{title}: speed of mailmaps tcp: / bare uvloop dict",
            TIMES,
            repeated.ratio("mailmaps tcp:", "bare uvloop dict"),
            at_least(0.85),
            f"{SOME_KEYS:,} addresses, again and again",
        ),
        Figure(
            f"{title}: speed of mailmaps tcp: / bare uvloop dict, each address once",
            TIMES,
            once.ratio("mailmaps tcp:", "bare uvloop dict"),
            at_least(0.85),
            "all addresses at random: no reply is one that was kept",
        ),
        Figure(
            f"{title}: speed of mailmaps tcp: / C floor", TIMES, repeated.ratio("mailmaps tcp:", "C floor")
        ),
        Figure(
            f"{title}: speed of mailmaps tcp: / PostgreSQL asked for postfix_aliases",
            TIMES,
            repeated.ratio("mailmaps tcp:", "PostgreSQL"),
            note="the load generator speaks to PostgreSQL itself, no Postfix between",
        ),
    ]
    absolutes = repeated.absolutes(title) + once.absolutes(f"{title}, each address once")
    return Result(figures, absolutes)


def _peers(suite: Suite, ports: dict[str, int], count: int) -> dict[str, Measure]:
    """Ask `count` keys again and again for a while, or, with 0, every address once."""

    def measure(port: int) -> Measure:
        def once(number: int) -> float:
            keys = _keys(suite, count, number)
            seconds, most = (suite.sizes.seconds, 0) if count else (60.0, len(keys))
            return suite.clients.load(port, keys, CONNECTIONS, seconds, found=True, most=most).per_second

        return once

    return {name: measure(port) for name, port in ports.items()}


def _postgres(suite: Suite) -> Measure:
    def once(number: int) -> float:
        keys, seconds = _keys(suite, SOME_KEYS, number), suite.sizes.seconds
        port, database = suite.cluster.postgres.port, suite.dataset.database
        load = suite.clients.load_postgres(port, database, "virtual", keys, CONNECTIONS, seconds)
        return load.per_second

    return once


def _keys(suite: Suite, count: int, number: int) -> Sequence[str]:
    return suite.dataset.known(min(count or suite.dataset.addresses, suite.dataset.addresses), number)
