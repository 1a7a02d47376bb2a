"""`python -m benchmarks`: measure, print the table, write RESULTS.md. See README.md."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from benchmarks import machine, report
from benchmarks.figures import Result
from benchmarks.rows import ROWS
from benchmarks.suite import QUICK, Sizes, Suite

RESULTS = Path(__file__).parent / "RESULTS.md"


@click.command()
@click.option("--only", "names", multiple=True, type=click.Choice(list(ROWS)), help="This row only; repeat.")
@click.option("--quick", is_flag=True, help="Small and short, for development: no figure means anything.")
@click.option("--accounts", type=int, help="Accounts of two addresses each, for all rows but `million`.")
@click.option("--rounds", type=int, help="Interleaved rounds; seven or more for figures that are shown.")
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the report.")
def main(
    names: tuple[str, ...], quick: bool, accounts: int | None, rounds: int | None, results: Path | None
) -> None:
    """Measure mailmaps against its peers in one run."""
    if shutil.which("postmap") is None:
        raise click.ClickException("there is no postmap: run `make test-packages` as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and so everything that was started
    sizes = QUICK if quick else Sizes()
    given = {"accounts": accounts, "rounds": rounds}
    sizes = replace(sizes, **{name: value for name, value in given.items() if value is not None})
    about = machine.described()
    began = time.monotonic()
    result, commands, failed = measure(sizes, names or tuple(ROWS))
    about += [("Took", f"{(time.monotonic() - began) / 60:.0f} minutes, {sizes.rounds} rounds")]
    report.show(result, Console(width=None if sys.stdout.isatty() else 150))
    # Parts and trials do not replace the figures of a whole run.
    if results is None and not quick and not names:
        results = RESULTS
    if results is not None:
        ours = f"python -m benchmarks {shlex.join(sys.argv[1:])}".strip()
        report.write(results, result, about, [ours, *commands])
        print(f"written: {results}")
    sys.exit(1 if failed else 0)


def measure(sizes: Sizes, names: tuple[str, ...]) -> tuple[Result, list[str], bool]:
    """The figures of all rows together, the clients' commands, and whether a row failed, which is then left
    out."""
    everything = Result()
    failed = False
    with Suite(sizes) as suite:
        for name, row in ROWS.items():
            if name in names:
                suite.say(f"measuring: {name}")
                began = time.monotonic()
                try:
                    result = row(suite)
                except Exception as error:  # one row must not take the figures of the others with it
                    traceback.print_exc()
                    failed = True
                    result = Result(left_out=[f"{name} failed: {type(error).__name__}: {error}"])
                everything.add(result)
                suite.say(f"  {time.monotonic() - began:.0f} s")
        return everything, list(suite.clients.commands), failed


if __name__ == "__main__":
    main()
