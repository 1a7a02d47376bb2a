"""Real smtpd(8): eight sessions that offer recipients, known and unknown."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks.dataset import Dataset
from benchmarks.figures import TIMES, Figure, Result, Target, at_least
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

TITLE = "real smtpd, eight sessions"

TARGETS = {"known": at_least(2), "unknown": at_least(2.5)}

# Table by table, what main.cf says.
Maps = Mapping[str, str]


def sessions(suite: Suite) -> Result:
    """RCPTs a second with each kind of map."""
    if left_out := cannot_run(suite):
        return Result(left_out=[f"real smtpd: {left_out}"])
    result = Result()
    with suite.mailmaps() as mailmaps, suite.floor(*FLOOR.values(), unknown="nobody") as ports:
        instances = {
            "mailmaps tcp:": {table: mailmaps.spec("tcp", table) for table in FILES},
            "mailmaps socketmap:": {table: mailmaps.spec("socketmap", table) for table in FILES},
            "pgsql:": queries("pgsql:", suite.dataset),
            "proxy:pgsql:": queries("proxy:pgsql:", suite.dataset),
            "C floor": {table: f"tcp:127.0.0.1:{port}" for table, port in zip(FLOOR, ports, strict=True)},
        }
        for kind, measured in measure(suite, instances).items():
            title = f"{TITLE}, {kind} recipients"
            result.figures.append(more(title, measured, "mailmaps tcp:", "pgsql:", TARGETS[kind]))
            result.figures += _beside(title, measured)
            result.absolutes += measured.absolutes(title)
    return result


def cannot_run(suite: Suite) -> str:
    """Why no smtpd can be measured here; empty if it can."""
    if not suite.programs.built:
        return NO_COMPILER
    return "" if IS_ROOT else NO_ROOT


def measure(suite: Suite, instances: Mapping[str, Maps]) -> dict[str, Measured]:
    """RCPTs a second of known and of unknown recipients, with one Postfix for each peer's maps."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(postfix(maps)).port for name, maps in instances.items()}
        return {
            kind: interleaved(
                {name: _of_one(suite, port, kind == "known") for name, port in running.items()},
                suite.sizes.rounds,
                "RCPT/s",
            )
            for kind in TARGETS
        }


def more(title: str, measured: Measured, one: str, other: str, target: Target | None = None) -> Figure:
    """How many times as many."""
    return Figure(f"{title}: RCPT/s of {one} / {other}", TIMES, measured.ratio(one, other), target)


def queries(map_type: str, dataset: Dataset) -> Maps:
    """The how-to's `.cf` files."""
    return {table: f"{map_type}{dataset.files[file]}" for table, file in FILES.items()}


def _beside(title: str, measured: Measured) -> list[Figure]:
    """What has no target, the bare server first: it tells how much there was to win."""
    return [
        more(title, measured, "C floor", "pgsql:"),
        more(title, measured, "mailmaps tcp:", "C floor"),
        more(title, measured, "mailmaps socketmap:", "pgsql:"),
        more(title, measured, "mailmaps tcp:", "proxy:pgsql:"),
    ]


def _of_one(suite: Suite, port: int, known: bool) -> Measure:
    def once(number: int) -> float:
        if known:
            recipients = suite.dataset.known(RECIPIENTS, number)
        else:
            recipients = suite.dataset.unknown(RECIPIENTS, f"{port}-{number}")
        return suite.clients.rcpt(port, recipients, SESSIONS, suite.sizes.seconds, known).per_second

    return once
