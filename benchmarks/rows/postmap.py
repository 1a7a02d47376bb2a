"""Real `postmap -q -`: hits with one client and with eight, and keys that nobody has ever asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.figures import TIMES, Figure, Result, Target, at_least, at_most, figure
from benchmarks.peers import Mailmaps
from benchmarks.programs import NO_COMPILER
from benchmarks.rounds import Measure, Measured, interleaved
from benchmarks.statements import counted
from benchmarks.suite import IS_ROOT, NO_ROOT, Suite

MICROSECONDS = 1e6

CLIENTS = 8

OURS = ("mailmaps tcp:", "mailmaps socketmap:")
"""The peers whose database logs what it is asked."""

Spec = tuple[str, str]
"""A map as postmap names it, and the folder of the main.cf it wants, if any."""


def one_client(suite: Suite) -> Result:
    """Hits, one client: the time of a lookup."""

    def keys(_: str, number: int) -> list[str]:
        return suite.dataset.known(suite.sizes.one_client, number)

    with _peers(suite, found=True) as (mailmaps, specs):
        specs["mailmaps same .cf"] = (mailmaps["same"].spec("tcp", "mailbox_transport_maps"), "")
        measured = measure(suite, specs, keys, clients=1, found=True)
    title = "hit, one postmap client"
    lines = [
        _times(title, measured, "mailmaps tcp:", "C floor", at_most(1.15)),
        _times(title, measured, "mailmaps tcp:", "pgsql:", at_most(0.6)),
        _times(title, measured, "mailmaps tcp:", "proxy:pgsql:"),
        _times(title, measured, "mailmaps tcp:", "pgsql: one indexed table"),
        _times(title, measured, "mailmaps socketmap:", "pgsql:"),
        _times(title, measured, "mailmaps same .cf", "pgsql:", note="cached after the first asking"),
    ]
    return Result(those(lines), measured.absolutes(title), _left_out(suite))


def eight_clients(suite: Suite) -> Result:
    """Hits, eight clients: lookups a second."""

    def keys(_: str, number: int) -> list[str]:
        return suite.dataset.known(suite.sizes.eight_clients, number)

    with _peers(suite, found=True) as (_, specs):
        measured = measure(suite, specs, keys, clients=CLIENTS, found=True)
    title = "hit, eight postmap clients"
    lines = [
        speed(title, measured, "mailmaps tcp:", "pgsql:", at_least(4)),
        speed(title, measured, "mailmaps tcp:", "C floor", at_least(0.75)),
        speed(title, measured, "mailmaps tcp:", "bare uvloop dict"),
        speed(title, measured, "mailmaps tcp:", "proxy:pgsql:"),
        speed(title, measured, "mailmaps tcp:", "pgsql: one indexed table"),
    ]
    return Result(those(lines), measured.absolutes(title), _left_out(suite))


def unknown_keys(suite: Suite) -> Result:
    """A dictionary attack: keys that exist nowhere, new in every slice, and the SQL it causes."""

    def keys(peer: str, number: int) -> list[str]:
        return suite.dataset.unknown(
            suite.sizes.eight_clients, f"{peer.split(':')[0].replace(' ', '')}{number}"
        )

    with counted(suite.cluster) as statements, _peers(suite, found=False) as (_, specs):
        before = statements.so_far()
        measured = measure(suite, specs, keys, clients=CLIENTS, found=False)
        caused = statements.so_far() - before
    title = "never-seen unknown keys, eight clients"
    asked = len(OURS) * (suite.sizes.rounds + 1) * suite.sizes.eight_clients
    lines = [
        speed(title, measured, "mailmaps tcp:", "pgsql:", at_least(4)),
        figure(
            f"{title}: SQL statements by mailmaps",
            "",
            float(caused.others),
            at_most(0),
            f"while {asked:,} keys were asked; besides {caused.heartbeats} of its heartbeat{caused.samples}",
        ),
        speed(title, measured, "mailmaps tcp:", "C floor"),
        speed(title, measured, "mailmaps tcp:", "proxy:pgsql:"),
        speed(title, measured, "mailmaps tcp:", "pgsql: one indexed table"),
    ]
    return Result(those(lines), measured.absolutes(title), _left_out(suite))


@contextmanager
def _peers(suite: Suite, found: bool) -> Iterator[tuple[dict[str, Mailmaps], dict[str, Spec]]]:
    """Every peer that postmap can ask, running."""
    files = suite.dataset.files
    with ExitStack() as stack:
        mailmaps = stack.enter_context(suite.mailmaps())
        same = stack.enter_context(
            suite.mailmaps(mirror=False, tables={"mailbox_transport_maps": [f"pgsql:{files['virtual']}"]})
        )
        specs = {
            "mailmaps tcp:": (mailmaps.spec("tcp"), ""),
            "mailmaps socketmap:": (mailmaps.spec("socketmap"), ""),
            "pgsql:": (f"pgsql:{files['virtual']}", ""),
            "pgsql: one indexed table": (f"pgsql:{files['indexed']}", ""),
            "bare uvloop dict": (f"tcp:127.0.0.1:{stack.enter_context(suite.bare())}", ""),
        }
        if suite.programs.built:
            reply = "200 user0@demo.example" if found else "500 not%20found"
            specs["C floor"] = (f"tcp:127.0.0.1:{stack.enter_context(suite.floor(reply))[0]}", "")
        if IS_ROOT:
            proxymap = stack.enter_context(suite.proxymap())
            specs["proxy:pgsql:"] = (f"proxy:pgsql:{files['virtual']}", str(proxymap.folder))
        yield {"": mailmaps, "same": same}, specs


def measure(
    suite: Suite,
    specs: dict[str, Spec],
    keys: Callable[[str, int], Sequence[str]],
    clients: int,
    found: bool,
) -> Measured:
    """The time of a lookup by so many postmaps; `keys` are told the peer and the round."""

    def of_one(name: str, spec: Spec) -> Measure:
        def once(number: int) -> float:
            asked = keys(name, number)
            return suite.clients.postmap(spec[0], asked, clients, found, spec[1]) * MICROSECONDS

        return once

    peers = {name: of_one(name, spec) for name, spec in specs.items()}
    return interleaved(peers, suite.sizes.rounds, "µs a lookup")


def _times(
    title: str, measured: Measured, one: str, other: str, target: Target | None = None, note: str = ""
) -> Figure | None:
    if other not in measured:
        return None
    return Figure(f"{title}: time of {one} / {other}", TIMES, measured.ratio(one, other), target, note)


def speed(
    title: str, measured: Measured, one: str, other: str, target: Target | None = None
) -> Figure | None:
    """None where one of them is left out."""
    if one not in measured or other not in measured:
        return None
    return Figure(f"{title}: speed of {one} / {other}", TIMES, measured.ratio(other, one), target)


def those(figures: Sequence[Figure | None]) -> list[Figure]:
    """Without what was left out."""
    return [one for one in figures if one is not None]


def _left_out(suite: Suite) -> list[str]:
    left_out = [] if suite.programs.built else [f"the C floor: {NO_COMPILER}"]
    return left_out + ([] if IS_ROOT else [f"proxy:pgsql: {NO_ROOT}"])
