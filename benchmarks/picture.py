"""Draws throughput and 99th percentile over the number of connections: `python -m benchmarks.picture`.

Curves are the load generator's: the same C program, one request outstanding on each connection, asks mailmaps
by tcp_table(5) and PostgreSQL itself by the statement of the how-to's virtual.cf. The latter is what so many
Postfix processes with `pgsql:` ask, without their own work, and so flatters `pgsql:`. Crosses are that many
real `postmap -q -`, for both. PostgreSQL's max_connections is raised from 100, at which `pgsql:` ends.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.clients import Load
from benchmarks.programs import NO_COMPILER
from benchmarks.suite import QUICK, Sizes, Suite

FILE = Path(__file__).parent / "connections.png"

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

POSTMAPS = (1, 2, 4, 8, 16, 32)
"""More of them spend most of their time starting."""

KEYS = 5_000

UNKNOWN_A_SECOND = 250_000
"""Keys to have ready for a second of asking, so that none is asked twice."""

ROUNDS = 5

SECONDS = 1.0

POSTMAP_KEYS = 40_000
"""Keys of all postmaps together."""

HIT, UNKNOWN, PGSQL = "mailmaps, known", "mailmaps, unknown", "PostgreSQL, Postfix's statement"

COLOURS = {HIT: "tab:green", UNKNOWN: "tab:olive", PGSQL: "tab:red"}

Curve = Mapping[int, Load]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and short, for development")
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    sizes, rounds, seconds = (QUICK, 2, 0.2) if options.quick else (Sizes(), ROUNDS, SECONDS)
    with Suite(sizes) as suite:
        if not suite.programs.built:
            sys.exit(f"no picture: {NO_COMPILER}")
        with suite.mailmaps() as mailmaps:
            curves = _curves(suite, mailmaps.port(), rounds, seconds)
            crosses = _crosses(suite, mailmaps.spec(), rounds)
    draw(options.file, curves, crosses)
    print(f"written: {options.file}")


def _curves(suite: Suite, port: int, rounds: int, seconds: float) -> dict[str, Curve]:
    """The load generator's figures by number of connections; every round measures every point."""
    database, postgres = suite.dataset.database, suite.cluster.postgres.port
    clients = suite.clients

    def hit(count: int, number: int) -> Load:
        return clients.load(port, suite.dataset.known(KEYS, number), count, seconds, found=True)

    def unknown(count: int, number: int) -> Load:
        keys = suite.dataset.unknown(int(UNKNOWN_A_SECOND * seconds), f"{count}-{number}")
        return clients.load(port, keys, count, seconds, found=False)

    def pgsql(count: int, number: int) -> Load:
        keys = suite.dataset.known(KEYS, number)
        return clients.load_postgres(postgres, database, "virtual", keys, count, seconds)

    asked: dict[str, Callable[[int, int], Load]] = {HIT: hit, UNKNOWN: unknown, PGSQL: pgsql}
    loads: dict[str, dict[int, list[Load]]] = {name: {count: [] for count in COUNTS} for name in asked}
    for number in range(rounds):
        for count in COUNTS:
            suite.say(f"round {number + 1} of {rounds}: {count} connections")
            for name, ask in asked.items():
                loads[name][count].append(ask(count, number))
    return {
        name: {count: _median(measured) for count, measured in curve.items()} for name, curve in loads.items()
    }


def _crosses(suite: Suite, spec: str, rounds: int) -> dict[str, dict[int, float]]:
    """Lookups a second of so many postmaps."""
    specs = {HIT: spec, PGSQL: f"pgsql:{suite.dataset.files['virtual']}"}
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in POSTMAPS} for name in specs}
    for number in range(rounds):
        for count in POSTMAPS:
            suite.say(f"round {number + 1} of {rounds}: {count} postmaps")
            for name, one in specs.items():
                keys = suite.dataset.known(POSTMAP_KEYS, number)
                found[name][count].append(1 / suite.clients.postmap(one, keys, count, found=True))
    return {
        name: {count: statistics.median(speeds) for count, speeds in of.items()} for name, of in found.items()
    }


def _median(loads: list[Load]) -> Load:
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))


def draw(file: Path, curves: Mapping[str, Curve], crosses: Mapping[str, Mapping[int, float]]) -> None:
    """Write the picture, under 100 kB."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (speed, latency) = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for name, curve in curves.items():
        speed.plot(
            list(curve), [load.per_second for load in curve.values()], "o-", color=COLOURS[name], label=name
        )
        latency.plot(
            list(curve),
            [load.p99_us / 1000 for load in curve.values()],
            "o-",
            color=COLOURS[name],
            label=name,
        )
    for name, points in crosses.items():
        label = "pgsql: by postmap" if name == PGSQL else "mailmaps tcp: by postmap, known"
        speed.plot(
            list(points), list(points.values()), "x--", color=COLOURS[name], label=label, linewidth=0.7
        )
    for axes, title in ((speed, "lookups a second"), (latency, "99th percentile, ms")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.set_xlabel("connections, one request outstanding on each")
        axes.set_title(title)
        axes.grid(visible=True, which="both", alpha=0.3)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
