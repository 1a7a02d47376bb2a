"""What the rows of one run share: sizes, folder, cluster, datasets, programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.postfix import PrivatePostfix

from benchmarks.clients import Clients
from benchmarks.dataset import Cluster, Dataset
from benchmarks.peers import Mailmaps, bare, floor, postfix
from benchmarks.programs import Programs


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; `seconds` is one slice of a load generator.

    `files` are keys that one postmap asks a file for in a slice: so many that its start counts for little.
    """

    accounts: int = 100_000
    big_accounts: int = 500_000
    rounds: int = 9
    one_client: int = 20_000
    eight_clients: int = 96_000
    files: int = 500_000
    seconds: float = 2.0
    change_seconds: float = 25.0
    starts: int = 7
    changes: int = 100_000
    new_mailboxes: int = 100


QUICK = Sizes(2_000, 10_000, 3, 3_000, 8_000, 40_000, 0.5, 4.0, 2, 2_000, 20)
"""For development: every part runs, no figure means anything."""

IS_ROOT = os.geteuid() == 0

NO_ROOT = "it wants root: Postfix's master(8), and with it proxymap(8) and smtpd(8), cannot run"


class Suite:
    """One run; `with Suite(sizes) as suite`."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._stack = ExitStack()

    def __enter__(self) -> Suite:
        name = self._stack.enter_context(TemporaryDirectory(prefix="mailmaps-bench-", dir="/tmp"))
        self.folder = Path(name)
        self.folder.chmod(0o755)  # PostgreSQL and Postfix run as users of their own
        self.programs = Programs(self.folder)
        self.clients = Clients(self.folder, self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def cluster(self) -> Cluster:
        """The PostgreSQL of this run, started when the first row wants it."""
        self.say("starting PostgreSQL")
        return self._stack.enter_context(Cluster(self.folder))

    @cached_property
    def dataset(self) -> Dataset:
        """The site that most rows ask."""
        return self._load(self.sizes.accounts)

    @cached_property
    def big_dataset(self) -> Dataset:
        """The large one."""
        return self._load(self.sizes.big_accounts)

    def mailmaps(self, **options: object) -> Mailmaps:
        """mailmaps on the usual dataset; see `Mailmaps` for the options."""
        return Mailmaps(self.folder, self.dataset, **options)  # type: ignore[arg-type]

    @contextmanager
    def bare(self) -> Iterator[int]:
        with bare(self.folder, self.dataset) as port:
            yield port

    @contextmanager
    def floor(self, *replies: str, unknown: str = "") -> Iterator[list[int]]:
        with floor(self.programs.path("floor"), *replies, unknown=unknown) as ports:
            yield ports

    @contextmanager
    def proxymap(self) -> Iterator[PrivatePostfix]:
        """A Postfix whose proxymap(8) serves the virtual.cf of the usual dataset."""
        with postfix({"virtual_alias_maps": f"proxy:pgsql:{self.dataset.files['virtual']}"}) as running:
            yield running

    def say(self, text: str) -> None:
        """Tell the person who waits what goes on."""
        print(text, file=sys.stderr, flush=True)

    def _load(self, accounts: int) -> Dataset:
        cluster = self.cluster
        self.say(f"loading {2 * accounts:,} addresses")
        return cluster.load(accounts)
