"""Misses: mailmaps without mirror and without cache, so that every key is asked of PostgreSQL."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.figures import TIMES, Figure, Result, at_least
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import Measure, interleaved
from benchmarks.suite import Suite

CONNECTIONS = 64
CLIENTS = 8

NO_CACHE = {"cache": {"ttl": 0, "negative_ttl": 0}}


def without_mirror(suite: Suite) -> Result:
    """64 connections to mailmaps against eight postmaps with `pgsql:`."""
    if not suite.programs.built:
        return Result(left_out=[f"misses without mirror: {NO_COMPILER}"])
    file = suite.dataset.files["virtual"]
    with ExitStack() as stack:
        builtin = stack.enter_context(suite.mailmaps(mirror=False, settings=NO_CACHE))
        same = stack.enter_context(
            suite.mailmaps(
                mirror=False, settings=NO_CACHE, tables={"mailbox_transport_maps": [f"pgsql:{file}"]}
            )
        )
        peers = {
            "mailmaps": _ours(suite, builtin.port()),
            "mailmaps same .cf": _ours(suite, same.port("mailbox_transport_maps")),
            "pgsql:": _theirs(suite, f"pgsql:{file}"),
            "pgsql: one indexed table": _theirs(suite, f"pgsql:{suite.dataset.files['indexed']}"),
        }
        measured = interleaved(peers, suite.sizes.rounds, "lookups/s")
    title = f"misses without mirror, {CONNECTIONS} connections"
    figures = [
        Figure(
            f"{title}: speed of mailmaps / pgsql: with eight clients",
            TIMES,
            measured.ratio("mailmaps", "pgsql:"),
            at_least(2),
        ),
        Figure(
            f"{title}: speed of mailmaps with the same .cf / pgsql: with eight clients",
            TIMES,
            measured.ratio("mailmaps same .cf", "pgsql:"),
        ),
        Figure(
            f"{title}: speed of mailmaps / pgsql: on one indexed table",
            TIMES,
            measured.ratio("mailmaps", "pgsql: one indexed table"),
        ),
    ]
    return Result(figures, measured.absolutes(title))


def _ours(suite: Suite, port: int) -> Measure:
    def once(number: int) -> float:
        keys = suite.dataset.known(suite.sizes.eight_clients, number)
        return suite.clients.load(port, keys, CONNECTIONS, suite.sizes.seconds, found=True).per_second

    return once


def _theirs(suite: Suite, spec: str) -> Measure:
    def once(number: int) -> float:
        keys = suite.dataset.known(suite.sizes.eight_clients, number)
        return 1 / suite.clients.postmap(spec, keys, CLIENTS, found=True)

    return once
