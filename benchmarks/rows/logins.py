"""Logins: each door beside Dovecot's own `passdb sql`, and what hashing does to lookups.

A Dovecot is asked by its auth-client socket, as its imap-login asks it, so that no IMAP process is in the
figures; those called IMAP have everything in them: a TCP connection with a TLS handshake, a process of
imap-login and one of imap (`service_count = 1`, Dovecot's default), LOGIN and LOGOUT.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from benchmarks.clients import Door, Load
from benchmarks.doors import CHEAP_SCHEME, Doors, doors
from benchmarks.dovecots import CHECKPASSWORD, CONSTANT, LUA, SQL, Dovecot, cannot_run
from benchmarks.figures import TIMES, Figure, Result, at_most
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import WARM_UP, Measure, Measured, interleaved
from benchmarks.suite import Suite
from mailmaps.auth import passwords

CLIENTS = 8

CONNECTIONS = 64
"""Of lookups, while passwords are hashed."""

SOME_KEYS = 5_000

PACE = 10_000
"""Lookups a second that leave room for hashing: as many as are replied to leave hardly any at nice 19, so
that all hashing threads have work then but not the cores for it. Both are measured against the target."""

A_THREAD = 2
"""Logins under way for each hashing thread: one is hashed, one waits, so that no thread is ever idle."""

PROBE = 2.0
"""Seconds; Dovecot tells who failed at its next half second."""

HINT = f"hashes are {CHEAP_SCHEME}, microseconds each; nothing is remembered"


def logins(suite: Suite) -> Result:
    """Everything about logins."""
    why = cannot_run() if suite.programs.built else NO_COMPILER
    if why:
        return Result(left_out=[f"logins: {why}"])
    result = Result()
    with doors(suite) as site:
        _probe(suite, site)
        for part in (_one_at_a_time, _eight_at_a_time, _sessions, _lookups_beside):
            result.add(part(suite, site))
    return result


def _probe(suite: Suite, site: Doors) -> None:
    """Every door refuses a wrong password (its speed would mean nothing otherwise), but for the constant."""
    for name, door in site.all.items():
        expected = "accepted" if name == f"Dovecot {CONSTANT}" else "rejected"
        suite.clients.logins(door, site.wrong, 1, PROBE, expected)


def _one_at_a_time(suite: Suite, site: Doors) -> Result:
    """The time of a login."""
    title = "login, one at a time"
    peers = {name: _time(_rate(suite, site, door, 1)) for name, door in site.all.items()}
    measured = interleaved(peers, suite.sizes.rounds, "ms a login")
    figures = [
        Figure(
            f"{title}: time of Dovecot {CHECKPASSWORD} / Dovecot {CONSTANT}",
            TIMES,
            measured.ratio(f"Dovecot {CHECKPASSWORD}", f"Dovecot {CONSTANT}"),
            at_most(1.3),
            "python3 -IS that says yes to everybody",
        ),
        *(
            Figure(
                f"{title}: time of {name} / Dovecot {SQL}",
                TIMES,
                measured.ratio(name, f"Dovecot {SQL}"),
                note=HINT,
            )
            for name in _compared(site.all)
        ),
    ]
    return Result(figures, measured.absolutes(title))


def _eight_at_a_time(suite: Suite, site: Doors) -> Result:
    """Logins a second."""
    title = "login, eight at a time"
    peers = {name: _rate(suite, site, door, CLIENTS) for name, door in site.all.items()}
    measured = interleaved(peers, suite.sizes.rounds, "logins/s")
    figures = [
        Figure(
            f"{title}: time of Dovecot {CHECKPASSWORD} / Dovecot {CONSTANT}",
            TIMES,
            measured.ratio(f"Dovecot {CONSTANT}", f"Dovecot {CHECKPASSWORD}"),
            at_most(1.3),
        ),
        *(
            Figure(f"{title}: speed of {name} / Dovecot {SQL}", TIMES, measured.ratio(name, f"Dovecot {SQL}"))
            for name in _compared(site.all)
        ),
    ]
    return Result(figures, measured.absolutes(title))


def _sessions(suite: Suite, site: Doors) -> Result:
    """Whole IMAP sessions."""
    result = Result()
    ways = {way: site.dovecots[way] for way in (CHECKPASSWORD, LUA, SQL)}
    for clients, said in ((1, "one"), (CLIENTS, "eight")):
        title = f"IMAP with TLS, LOGIN and LOGOUT, {said} at a time"
        peers = {f"Dovecot {way}": _session(suite, site, ways[way], clients) for way in ways}
        measured = interleaved(peers, suite.sizes.rounds, "sessions/s")
        result.figures += [
            Figure(
                f"{title}: speed of Dovecot {way} / Dovecot {SQL}",
                TIMES,
                measured.ratio(f"Dovecot {way}", f"Dovecot {SQL}"),
            )
            for way in ways
            if way != SQL
        ]
        result.absolutes += measured.absolutes(title)
    return result


def _lookups_beside(suite: Suite, site: Doors) -> Result:
    """Lookups with and without logins that keep every hashing thread at work."""
    title = f"hit, {CONNECTIONS} connections, every hashing thread at work"
    result = Result()
    for pace, said in ((0, ""), (PACE, f", {PACE:,} lookups/s")):
        p99, speed, hashed = _beside(suite, site, pace)
        result.figures.append(
            Figure(
                f"{title}{said}: 99th percentile / without logins",
                TIMES,
                p99.ratio("hashing", "idle"),
                at_most(2),
                f"{passwords.default_scheme()} in {os.cpu_count()} threads at nice 19",
            )
        )
        if not pace:
            figure = Figure(f"{title}: speed / without logins", TIMES, speed.ratio("hashing", "idle"))
            result.figures.append(figure)
            result.absolutes += speed.absolutes(title)
        result.absolutes += [*p99.absolutes(f"{title}{said}"), *hashed.absolutes(f"{title}{said}")]
    return result


def _beside(suite: Suite, site: Doors, pace: int) -> tuple[Measured, Measured, Measured]:
    """99th percentiles and speeds of lookups, and the logins meanwhile."""
    under_way = A_THREAD * (os.cpu_count() or 1)
    speeds: dict[str, list[float]] = {"idle": [], "hashing": []}
    logins: dict[str, list[float]] = {"logins": []}

    def look_up(state: str, number: int) -> float:
        keys = suite.dataset.known(min(SOME_KEYS, suite.dataset.addresses), number)
        port, seconds = site.mailmaps.port(), suite.sizes.seconds
        load = suite.clients.load(port, keys, CONNECTIONS, seconds, found=True, pace=pace)
        if number != WARM_UP:
            speeds[state].append(load.per_second)
        return load.p99_us

    def beside(number: int) -> float:
        with suite.clients.logging_in(site.sockets["auth socket"], site.dear, under_way) as measured:
            p99 = look_up("hashing", number)
        if number != WARM_UP:
            logins["logins"].append(measured[0].per_second)
        return p99

    peers: dict[str, Measure] = {"idle": lambda number: look_up("idle", number), "hashing": beside}
    p99 = interleaved(peers, suite.sizes.rounds, "µs, 99th percentile")
    return p99, Measured(speeds, "lookups/s"), Measured(logins, "logins/s")


def _compared(names: Mapping[str, Door]) -> list[str]:
    """Whom Dovecot's sql is set beside: who really looks."""
    return [name for name in names if name not in (f"Dovecot {SQL}", f"Dovecot {CONSTANT}")]


def _rate(suite: Suite, site: Doors, door: Door, clients: int) -> Measure:
    def once(number: int) -> float:
        load: Load = suite.clients.logins(door, site.logins(number), clients, suite.sizes.seconds)
        return load.per_second

    return once


def _time(rate: Measure) -> Measure:
    return lambda number: 1000 / rate(number)


def _session(suite: Suite, site: Doors, dovecot: Dovecot, clients: int) -> Measure:
    return lambda _: dovecot.sessions(site.sessions, clients, suite.sizes.seconds)
