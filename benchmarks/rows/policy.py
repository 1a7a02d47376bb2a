"""Policy decisions: who may send as whom, and how much, beside a bare server and policyd-rate-limit."""

from __future__ import annotations

from benchmarks.clients import WrongAnswers
from benchmarks.dataset import POLICYD
from benchmarks.figures import TIMES, Figure, Result, Target, at_least
from benchmarks.peers import postfix
from benchmarks.policies import BARE, MEMORY, POSTGRESQL, SENDERS, SHARED, SQLITE, Policies, foreign, policies
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import WARM_UP, Measure, Measured, interleaved
from benchmarks.rows.smtpd import FILES, cannot_run
from benchmarks.suite import Suite

CONNECTIONS = (64, 8, 1)
"""The first has the targets, and slices twice as long."""

SOME_SENDERS = 5_000
"""Addresses a round, asked over and over, as each recipient of a mail asks for its sender."""

PROBES = 200
"""Mails that must have been counted, every one."""

RECIPIENTS = 2
"""Of each mail at DATA; policy.c has the same number."""

UNIT = "decisions/s"

SESSIONS = 8

RCPTS = 50_000

REFUSING = 0.5
"""Seconds in which a foreign sender is refused."""

WITH, WITHOUT = "with check_policy_service", "without"

SUBMISSION = {"smtpd_authorized_xclient_hosts": "127.0.0.0/8"}
"""Who is logged in comes by XCLIENT, so that no SASL server is in the figures."""

OF_BARE = at_least(0.6)
OF_POLICYD = at_least(5)

COMPARED: tuple[tuple[str, str, Target | None, str], ...] = (
    (SENDERS, BARE, OF_BARE, "one in 100 by a grant, one in 100 refused"),
    (SENDERS, SQLITE, OF_POLICYD, ""),
    (SENDERS, POSTGRESQL, OF_POLICYD, ""),
    (SHARED, SQLITE, OF_POLICYD, "SQLite is its default, and waits for the disk"),
    (SHARED, POSTGRESQL, OF_POLICYD, "both with synchronous_commit = off"),
    (MEMORY, SQLITE, None, "nothing is kept when it ends"),
    (MEMORY, POSTGRESQL, None, "nothing is kept when it ends"),
    (MEMORY, BARE, None, "which counts nothing"),
)
"""Each with its target at the most connections."""


def policy(suite: Suite) -> Result:
    """Everything about policy delegation."""
    if not suite.programs.built:
        return Result(left_out=[f"policy: {NO_COMPILER}"])
    with policies(suite) as site:
        result = Result(left_out=[f"policy: {why}" for why in site.left_out])
        for peer in site.counted:
            _probe(suite, site, peer)
        _settle(suite, site)
        result.add(_each_once(suite, site))
        for connections in CONNECTIONS:
            result.add(_again(suite, site, connections))
        result.add(_in_smtpd(suite, site))
    return result


def _probe(suite: Suite, site: Policies, peer: str) -> None:
    """A peer counts every mail of a login. Raises `WrongAnswers`: its speed would mean nothing."""
    before = site.counted[peer]()
    suite.clients.policy(site.ports[peer], site.probe, 1, suite.sizes.seconds * 30, "DATA", PROBES)
    counted = site.counted[peer]() - before
    expected = RECIPIENTS * (PROBES + 1)  # policy.c makes one before
    if counted != expected:
        raise WrongAnswers(f"{peer} has counted {counted} recipients, not {expected}")


def _settle(suite: Suite, site: Policies) -> None:
    """Let every peer that counts have mail of many logins, and PostgreSQL look at it, as autovacuum does
    within a minute: an empty table's statistics would decide until then how it is read.
    """
    for peer in site.counted:
        asked = site.owned(min(SOME_SENDERS, site.dataset.addresses), WARM_UP)
        suite.clients.policy(site.ports[peer], asked, CONNECTIONS[0], suite.sizes.seconds, "DATA")
    for database in (site.dataset.database, *([POLICYD] if POSTGRESQL in site.ports else [])):
        suite.cluster.fetch("ANALYZE", database=database)


def _each_once(suite: Suite, site: Policies) -> Result:
    """Every login and sender once in the whole run: no decision is one that was remembered."""
    title = f"policy, {CONNECTIONS[0]} connections, each login and sender once"
    shares = suite.sizes.rounds + 1
    most = site.dataset.addresses // shares - CONNECTIONS[0]

    def measure(peer: str) -> Measure:
        def once(number: int) -> float:
            asked, port = site.share(number - WARM_UP, shares), site.ports[peer]
            return suite.clients.policy(port, asked, CONNECTIONS[0], 60.0, "RCPT", most).per_second

        return once

    measured = interleaved({peer: measure(peer) for peer in (SENDERS, BARE)}, suite.sizes.rounds, UNIT)
    ratio = Figure(
        f"{title}: speed of {SENDERS} / {BARE}",
        TIMES,
        measured.ratio(SENDERS, BARE),
        OF_BARE,
        "looked up for the first time: nothing that is remembered helps",
    )
    return Result([ratio], measured.absolutes(title))


def _again(suite: Suite, site: Policies, connections: int) -> Result:
    """Logins and senders that come again, by every peer; speeds and slowest replies of the same slices."""
    title = f"policy, {connections} connection{'s' if connections > 1 else ''}"
    seconds = suite.sizes.seconds / (1 if connections == CONNECTIONS[0] else 2)
    slowest: dict[str, list[float]] = {peer: [] for peer in site.ports}

    def measure(peer: str) -> Measure:
        def once(number: int) -> float:
            count = min(SOME_SENDERS, site.dataset.addresses)
            counts = peer in site.counted
            asked = site.owned(count, number) if counts else site.mix(count, number)
            state = "DATA" if counts else "RCPT"
            load = suite.clients.policy(site.ports[peer], asked, connections, seconds, state)
            if number != WARM_UP:
                slowest[peer].append(load.p99_us)
            return load.per_second

        return once

    measured = interleaved({peer: measure(peer) for peer in site.ports}, suite.sizes.rounds, UNIT)
    p99 = Measured(slowest, "µs, 99th percentile")
    has_target = connections == CONNECTIONS[0]
    return Result(
        [
            *(
                Figure(
                    f"{title}: speed of {one} / {other}",
                    TIMES,
                    measured.ratio(one, other),
                    target if has_target else None,
                    note,
                )
                for one, other, target, note in COMPARED
                if other in measured and (has_target or target is not None)
            ),
            *(
                Figure(f"{title}: 99th percentile of {one} / {other}", TIMES, p99.ratio(one, other))
                for one, other, target, _ in COMPARED
                if other in measured and target is not None
            ),
        ],
        measured.absolutes(title) + p99.absolutes(title),
    )


def _in_smtpd(suite: Suite, site: Policies) -> Result:
    """What asking costs an smtpd(8): RCPTs of who is logged in, with check_policy_service and without."""
    if left_out := cannot_run(suite):
        return Result(left_out=[f"policy, real smtpd: {left_out}"])
    title = f"policy, real smtpd, {SESSIONS} sessions"
    (question,) = site.probe
    login, sender, _ = question.split("\t")
    maps = {table: site.mailmaps.spec("tcp", table) for table in FILES} | SUBMISSION
    asks = {"smtpd_sender_restrictions": f"check_policy_service inet:127.0.0.1:{site.ports[SENDERS]}"}
    with postfix({**maps, **asks}) as asking, postfix(maps) as silent:
        peers = {
            name: _rcpt(suite, running.port, login, sender)
            for name, running in ((WITH, asking), (WITHOUT, silent))
        }
        measured = interleaved(peers, suite.sizes.rounds, "RCPT/s")
        _, other = foreign(suite.dataset, 0)
        suite.clients.rcpt(asking.port, suite.dataset.known(1000, 0), 1, REFUSING, False, login, other)
    ratio = Figure(
        f"{title}: RCPT/s {WITH} / {WITHOUT}",
        TIMES,
        measured.ratio(WITH, WITHOUT),
        note="known recipients",
    )
    return Result([ratio], measured.absolutes(title))


def _rcpt(suite: Suite, port: int, login: str, sender: str) -> Measure:
    def once(number: int) -> float:
        recipients, seconds = suite.dataset.known(RCPTS, number), suite.sizes.seconds / 2
        return suite.clients.rcpt(port, recipients, SESSIONS, seconds, True, login, sender).per_second

    return once
