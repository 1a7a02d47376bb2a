"""One million addresses in all tables: until ready, on disk, in memory; and the files made of them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
from tests.system.daemon import TABLES

from benchmarks.dataset import Dataset
from benchmarks.figures import Absolute, Figure, Result, Spread, at_most, figure
from benchmarks.peers import ALIASES, START_LIMIT, Mailmaps, NotReady
from benchmarks.rows import files
from benchmarks.suite import Suite
from mailmaps.client import TcpTableClient, open_inet
from mailmaps.demo.data import BIG_DOMAIN
from mailmaps.maps.answer import Found, NotFound

TITLE = "{:,} addresses, all tables"

ROWS_A_CHANGE = 10
"""Rows changed by one transaction of the `changes`: a person changes one, a script some."""

RENAME = (
    "UPDATE user_addresses SET alias = reverse(split_part(alias, '@', 1)) || '@' "
    "|| split_part(alias, '@', 2) WHERE alias = ANY ($1)"
)

OF_DOMAINS = {"transport_maps", "virtual_mailbox_domains", "relay_domains"}

EMPTY = {"relay_domains", "relay_recipient_maps"}
"""Tables without a row here; they have to say so, too."""

POLL = 0.005

MEGABYTE = 1e6

BLOCK = 512
"""Bytes; the unit of st_blocks (stat(2)), whatever the file system's own is."""


def million(suite: Suite) -> Result:
    """Everything about the large dataset: what one daemon lives through, then the files."""
    dataset = suite.big_dataset
    result = _daemon(suite, dataset)
    result.add(files.making(suite, dataset, 1))
    return result


def _daemon(suite: Suite, dataset: Dataset) -> Result:
    """In the order in which it lives through it."""
    title = TITLE.format(dataset.addresses)
    mailmaps = Mailmaps(suite.folder, dataset)
    try:
        from_postgres = [_start_from_postgres(suite, mailmaps) for _ in range(suite.sizes.starts)]
        mailmaps.daemon.start()
        mailmaps.wait()
        return Result(
            [
                Figure(f"{title}: ready from PostgreSQL", "s", Spread.of(from_postgres), at_most(10)),
                *_size(title, dataset, mailmaps),
                *_after_changes(title, suite, dataset, mailmaps),
                Figure(
                    f"{title}: ready from disk, PostgreSQL stopped",
                    "s",
                    Spread.of(_starts_from_disk(suite, dataset, mailmaps)),
                    at_most(1),
                    "from exec to a right answer to a known and an unknown key of every table",
                ),
            ],
            _files(title, mailmaps),
        )
    finally:
        mailmaps.daemon.close()


def _start_from_postgres(suite: Suite, mailmaps: Mailmaps) -> float:
    """Seconds from exec with no file to every mirror proven."""
    suite.say("  starting from PostgreSQL")
    for file in mailmaps.mirror.iterdir():
        file.unlink()
    began = time.perf_counter()
    mailmaps.daemon.start()
    mailmaps.wait()
    took = time.perf_counter() - began
    mailmaps.daemon.stop()
    return took


def _size(title: str, dataset: Dataset, mailmaps: Mailmaps) -> list[Figure]:
    """Freshly loaded, and asked a little."""
    _ask_some(dataset, mailmaps)
    uss, rss = _memory(mailmaps)
    return [
        figure(
            f"{title}: disk an address, freshly loaded",
            "B",
            _disk(mailmaps) / dataset.addresses,
            at_most(350),
        ),
        figure(f"{title}: private memory (USS without mapped files)", "MB", uss / MEGABYTE, at_most(100)),
        figure(f"{title}: resident memory, mapped files and all", "MB", rss / MEGABYTE),
    ]


def _after_changes(title: str, suite: Suite, dataset: Dataset, mailmaps: Mailmaps) -> list[Figure]:
    suite.say(f"  changing {suite.sizes.changes:,} addresses")
    took = asyncio.run(_change(dataset, suite.sizes.changes, mailmaps))
    uss, _ = _memory(mailmaps)
    after = f"after {suite.sizes.changes:,} changes"
    return [
        figure(f"{title}: disk an address, {after}", "B", _disk(mailmaps) / dataset.addresses),
        figure(f"{title}: private memory {after}", "MB", uss / MEGABYTE, at_most(100)),
        figure(
            f"{title}: changes taken in",
            "/s",
            suite.sizes.changes / took,
            note=f"{ROWS_A_CHANGE} rows a transaction, written as fast as PostgreSQL takes them",
        ),
    ]


async def _change(dataset: Dataset, count: int, mailmaps: Mailmaps) -> float:
    """Give addresses all over the tables another name; seconds from the first until the last is known.

    Each takes a key out of five mirrors and puts another in.
    """
    connection = await asyncpg.connect(dataset.owner_dsn)
    step = max(1, dataset.accounts // count)
    aliases = [dataset.address(2 * number + 1) for number in range(0, step * count, step)]
    began = time.perf_counter()
    for first in range(0, count, ROWS_A_CHANGE):
        some = aliases[first : first + ROWS_A_CHANGE]
        await connection.execute(RENAME, some)
    last = f"last@{BIG_DOMAIN}"
    await connection.execute("INSERT INTO user_addresses VALUES ('user0', $1)", last)
    await connection.close()
    _wait_until(lambda: mailmaps.daemon.ask(ALIASES, last).startswith("200"), mailmaps)
    return time.perf_counter() - began


def _starts_from_disk(suite: Suite, dataset: Dataset, mailmaps: Mailmaps) -> list[float]:
    suite.say("  starting from disk")
    mailmaps.daemon.stop()
    suite.cluster.postgres.stop()
    try:
        return [_start_from_disk(dataset, mailmaps) for _ in range(suite.sizes.starts)]
    finally:
        suite.cluster.postgres.start()


def _start_from_disk(dataset: Dataset, mailmaps: Mailmaps) -> float:
    began = time.perf_counter()
    mailmaps.daemon.start()
    known, unknown = dataset.address(0), dataset.unknown(1, "disk")[0]
    for table in TABLES:
        right, wrong = (BIG_DOMAIN, "nowhere.example") if table in OF_DOMAINS else (known, unknown)
        _wait_for(mailmaps, table, wrong, NotFound)
        if table not in EMPTY:
            _wait_for(mailmaps, table, right, Found)
    took = time.perf_counter() - began
    mailmaps.daemon.stop()
    return took


def _wait_for(mailmaps: Mailmaps, table: str, key: str, kind: type[Found | NotFound]) -> None:
    def right() -> bool:
        with open_inet("127.0.0.1", mailmaps.port(table)) as sock:
            return isinstance(TcpTableClient(sock).ask(key), kind)

    _wait_until(right, mailmaps)


def _ask_some(dataset: Dataset, mailmaps: Mailmaps) -> None:
    """Let it answer, so that what answering takes is in its memory."""
    for table in TABLES:
        with open_inet("127.0.0.1", mailmaps.port(table)) as sock:
            client = TcpTableClient(sock)
            for key in dataset.known(5_000, 1):
                client.ask(key)


def _wait_until(right: Callable[[], bool], mailmaps: Mailmaps) -> None:
    end = time.monotonic() + START_LIMIT
    while not right():
        if time.monotonic() > end:
            raise NotReady(f"mailmaps does not get it right:\n{mailmaps.daemon.log()}")
        time.sleep(POLL)


def _disk(mailmaps: Mailmaps) -> int:
    """Bytes that the mirror's files take on the disk."""
    return sum(file.stat().st_blocks * BLOCK for file in mailmaps.mirror.rglob("*") if file.is_file())


def _files(title: str, mailmaps: Mailmaps) -> list[Absolute]:
    sizes = {
        file.name: file.stat().st_blocks * BLOCK / MEGABYTE for file in sorted(mailmaps.mirror.rglob("*"))
    }
    return [Absolute(f"{title}: {name}", "MB", Spread.of([size])) for name, size in sizes.items()]


_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")


def _memory(mailmaps: Mailmaps) -> tuple[int, int]:
    """Bytes: private memory without the mirror's mapped files, and all that is resident (proc(5), smaps)."""
    private = resident = 0
    mapped = ""
    for line in Path(f"/proc/{mailmaps.daemon.pid}/smaps").read_text().splitlines():
        if found := _MAPPING.match(line):
            mapped = found[1]
            continue
        name, _, rest = line.partition(":")
        if name == "Rss":
            resident += int(rest.split()[0]) * 1024
        elif name in ("Private_Clean", "Private_Dirty") and not mapped.startswith(str(mailmaps.mirror)):
            private += int(rest.split()[0]) * 1024
    return private, resident
