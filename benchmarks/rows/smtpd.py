"""Real smtpd(8): eight sessions that offer recipients, known and unknown."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks.dataset import Dataset
from benchmarks.figures import TIMES, Figure, Result, at_least
from benchmarks.peers import postfix
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import Measure, Measured, interleaved
from benchmarks.suite import IS_ROOT, NO_ROOT, Suite

SESSIONS = 8

RECIPIENTS = 50_000

FILES = {
    "transport_maps": "transport",
    "virtual_mailbox_domains": "transport",
    "virtual_alias_maps": "virtual",
    "virtual_mailbox_maps": "mailboxes",
}
"""What the how-to's main.cf names (its uid and gid maps are virtual(8)'s, whom no RCPT asks)."""

FLOOR = {
    "transport_maps": "200 virtual:",
    "virtual_mailbox_domains": "200 virtual:",
    "virtual_alias_maps": "200 user0@demo.example",
    "virtual_mailbox_maps": "200 demo.example/user0/",
}

TARGETS = {"known": (True, at_least(2)), "unknown": (False, at_least(2.5))}


def sessions(suite: Suite) -> Result:
    """RCPTs a second with each kind of map, one Postfix for each."""
    if not suite.programs.built or not IS_ROOT:
        return Result(left_out=[f"real smtpd: {NO_ROOT if suite.programs.built else NO_COMPILER}"])
    result = Result()
    with ExitStack() as stack:
        mailmaps = stack.enter_context(suite.mailmaps())
        ports = stack.enter_context(suite.floor(*FLOOR.values(), unknown="nobody"))
        floor = {table: f"tcp:127.0.0.1:{port}" for table, port in zip(FLOOR, ports, strict=True)}
        instances = {
            "mailmaps tcp:": {table: mailmaps.spec("tcp", table) for table in FILES},
            "mailmaps socketmap:": {table: mailmaps.spec("socketmap", table) for table in FILES},
            "pgsql:": _files("pgsql:", suite.dataset),
            "proxy:pgsql:": _files("proxy:pgsql:", suite.dataset),
            "C floor": floor,
        }
        running = {name: stack.enter_context(postfix(maps)).port for name, maps in instances.items()}
        for kind, (known, target) in TARGETS.items():
            peers = {name: _measure(suite, port, known) for name, port in running.items()}
            measured = interleaved(peers, suite.sizes.rounds, "RCPT/s")
            title = f"real smtpd, eight sessions, {kind} recipients"
            result.figures.append(
                Figure(
                    f"{title}: RCPT/s of mailmaps tcp: / pgsql:",
                    TIMES,
                    measured.ratio("mailmaps tcp:", "pgsql:"),
                    target,
                )
            )
            result.figures += _beside(title, measured)
            result.absolutes += measured.absolutes(title)
    return result


def _beside(title: str, measured: Measured) -> list[Figure]:
    """What has no target, the bare server first: it tells how much there was to win."""
    pairs = [
        ("C floor", "pgsql:"),
        ("mailmaps tcp:", "C floor"),
        ("mailmaps socketmap:", "pgsql:"),
        ("mailmaps tcp:", "proxy:pgsql:"),
    ]
    return [
        Figure(f"{title}: RCPT/s of {one} / {other}", TIMES, measured.ratio(one, other))
        for one, other in pairs
    ]


def _files(map_type: str, dataset: Dataset) -> Mapping[str, str]:
    return {table: f"{map_type}{dataset.files[file]}" for table, file in FILES.items()}


def _measure(suite: Suite, port: int, known: bool) -> Measure:
    def once(number: int) -> float:
        if known:
            recipients = suite.dataset.known(RECIPIENTS, number)
        else:
            recipients = suite.dataset.unknown(RECIPIENTS, f"{port}-{number}")
        return suite.clients.rcpt(port, recipients, SESSIONS, suite.sizes.seconds, known).per_second

    return once
