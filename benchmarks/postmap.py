"""How long `postmap -q -` takes on tcp:, socketmap: and pgsql:, as ratios measured in one run.

    .venv/bin/python benchmarks/postmap.py [--accounts 100000] [--keys 20000] [--rounds 7]

Builds the demo's data in a folder of its own, asks the how-to's aliases (view postfix_aliases) with a
real postmap, interleaved, and prints the medians and their ratio to pgsql:. "same .cf" is mailmaps with the
very file that `pgsql:` has, and without a search, since postmap makes none either. "known" keys are all
different and asked once each, so mailmaps answers them from the database at first and from its cache in
later rounds; "unknown" keys are new in every run, as in a dictionary attack, and always asked of
PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mailmaps.client import TcpTableClient, open_inet
from mailmaps.config import Settings
from mailmaps.config.settings import split_inet
from mailmaps.demo.data import BIG_DOMAIN
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.demo.site import Site
from mailmaps.maps.answer import Found

TABLE = "virtual_alias_maps"
SHIFT = 4300
CF_ENDPOINT = "127.0.0.1:21399"
LIMIT = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            site = Site(folder, postgres, options.accounts, SHIFT)
            settings = asyncio.run(site.prepare())
            file = cf_file(folder, postgres, options.accounts)
            add_table(site.config, file)
            maps = {
                "pgsql": f"pgsql:{file}",
                "same .cf": f"tcp:{CF_ENDPOINT}",
                "tcp": f"tcp:{settings.tables[TABLE].tcp}",
                "socketmap": f"socketmap:inet:{settings.socketmap.inet}:{TABLE}",
            }
            measure(site, settings, maps, options)


def measure(site: Site, settings: Settings, maps: dict[str, str], options: argparse.Namespace) -> None:
    words = [sys.executable, "-m", "mailmaps", "serve", "--config", str(site.config)]
    daemon = subprocess.Popen(words)
    try:
        wait_until_it_answers(settings)
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(options.rounds):
            for kind in ("known", "unknown"):
                for name, spec in maps.items():
                    keys = make_keys(kind, f"{name}{number}", options)
                    times.setdefault((kind, name), []).append(run_postmap(spec, keys) / options.keys)
        show(times, options)
    finally:
        daemon.terminate()
        daemon.wait()


def make_keys(kind: str, run: str, options: argparse.Namespace) -> bytes:
    if kind == "known":
        chosen = random.Random(1).sample(range(options.accounts), min(options.keys, options.accounts))
        names = [f"first.last{n}" for n in chosen]
    else:
        names = [f"nobody-{run}-{n}" for n in range(options.keys)]
    return "".join(f"{name}@{BIG_DOMAIN}\n" for name in names).encode()


def run_postmap(spec: str, keys: bytes) -> float:
    began = time.perf_counter()
    # postmap exits 1 when the last key is not found
    subprocess.run(
        ["postmap", "-q", "-", spec], input=keys, stdout=subprocess.DEVNULL, check=False, timeout=LIMIT
    )
    return time.perf_counter() - began


def show(times: dict[tuple[str, str], list[float]], options: argparse.Namespace) -> None:
    print(f"{options.accounts} accounts, {options.keys} keys, median of {options.rounds} interleaved rounds")
    print(f"{'keys':8} {'map':10} {'µs a lookup':>12} {'of pgsql':>9}")
    for (kind, name), measured in times.items():
        median = statistics.median(measured)
        ratio = median / statistics.median(times[kind, "pgsql"])
        print(f"{kind:8} {name:10} {median * 1e6:12.1f} {ratio:9.2f}")


def wait_until_it_answers(settings: Settings) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            with open_inet(*split_inet(settings.tables[TABLE].tcp)) as sock:
                if isinstance(TcpTableClient(sock).ask(f"user0@{BIG_DOMAIN}"), Found):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the daemon did not answer")


def add_table(config: Path, file: Path) -> None:
    """mailbox_transport_maps is asked for the whole key only, as postmap asks."""
    with config.open("a") as out:
        out.write(
            f'\n[tables.same]\nparameter = "mailbox_transport_maps"\nsources = ["pgsql:{file}"]\n'
            f'tcp = "{CF_ENDPOINT}"\n'
        )


def cf_file(folder: Path, postgres: EmbeddedPostgres, accounts: int) -> Path:
    """The how-to's virtual.cf."""
    path = folder / "virtual.cf"
    path.write_text(
        f"hosts = inet:127.0.0.1:{postgres.port}\nuser = mailreader\n"
        f"password = {(folder / 'mailreader.password').read_text().strip()}\ndbname = mail_{accounts}\n"
        "table = postfix_aliases\nselect_field = address\nwhere_field = alias\n"
    )
    return path


if __name__ == "__main__":
    main()
