"""The servers that are measured, each a process of its own that ends with the `with` statement."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system import postfix as private_postfix
from tests.system.daemon import Daemon, Value
from tests.system.filemaps import FileMaps
from tests.system.postfix import PrivatePostfix

from benchmarks.dataset import Dataset
from mailmaps.demo.site import DELIMITER

START_LIMIT = 120.0
"""Seconds for a server to be ready; the largest loads five million rows."""

POLL = 0.01

RUN_LIMIT = 600.0
"""Seconds for a command that ends by itself."""

# A Postfix of the tests ends itself after 15 minutes, should nobody else; a row takes that on a slow machine.
private_postfix.LIFE_LIMIT = 3600

ALIASES = "virtual_alias_maps"

Sections = Mapping[str, Mapping[str, Value]]


class NotReady(RuntimeError):
    """A server did not get ready; the text has its log."""


@contextmanager
def floor(program: Path, *replies: str, unknown: str = "") -> Iterator[list[int]]:
    """The C server; one port a reply. Keys that begin with `unknown`, if given, are not found."""
    words = [str(program), *(["-u", unknown] if unknown else []), *replies]
    with _serving(words, len(replies)) as ports:
        yield ports


@contextmanager
def bare(folder: Path, dataset: Dataset) -> Iterator[int]:
    """The bare uvloop protocol around a dict of every address."""
    addresses = (dataset.address(number) for number in range(dataset.addresses))
    with _around("bare", folder, (f"{address}\t{dataset.owner(address)}" for address in addresses)) as port:
        yield port


@contextmanager
def bare_policy(folder: Path, pairs: Iterable[tuple[str, str]]) -> Iterator[int]:
    """The bare uvloop policy server around these logins and their senders."""
    with _around("bare_policy", folder, (f"{login}\t{sender}" for login, sender in pairs)) as port:
        yield port


@contextmanager
def _around(module: str, folder: Path, lines: Iterable[str]) -> Iterator[int]:
    with tempfile.NamedTemporaryFile("w", dir=folder) as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        with _serving([sys.executable, "-m", f"benchmarks.{module}", file.name], 1) as ports:
            yield ports[0]


@contextmanager
def _serving(words: list[str], port_count: int) -> Iterator[list[int]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield [int(process.stdout.readline()) for _ in range(port_count)]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Mailmaps:
    """mailmaps on a dataset, with a folder of its own for the mirror."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        *,
        mirror: bool = True,
        settings: Sections | None = None,
        tables: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.mirror = Path(tempfile.mkdtemp(prefix="mirror-", dir=folder))
        sections: dict[str, Mapping[str, Value]] = {
            "database": {"dsn": dataset.dsn, "password_file": str(dataset.password_file)},
            "mirror": {"enabled": mirror, "directory": str(self.mirror)},
            "postfix": {"recipient_delimiter": DELIMITER},
        }
        for name, values in (settings or {}).items():
            sections[name] = {**sections.get(name, {}), **values}
        self.daemon = Daemon(sections, tables=tables)
        self._is_mirrored = mirror
        self._known = dataset.address(0)

    def __enter__(self) -> Mailmaps:
        try:
            self.daemon.start()
            self.wait()
        except BaseException:
            self.daemon.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()

    def port(self, table: str = ALIASES) -> int:
        return self.daemon.ports[table]

    def spec(self, map_type: str = "tcp", table: str = ALIASES) -> str:
        return self.daemon.map(map_type, table)

    def wait(self) -> None:
        """Wait until every mirror is proven to be current, or, without mirrors, until a key is answered.

        Raises `NotReady`.
        """
        end = time.monotonic() + START_LIMIT
        while not self._is_ready():
            if time.monotonic() > end or not Path(f"/proc/{self.daemon.pid}/fd").exists():
                raise NotReady(f"mailmaps is not ready: {self._mirrors()}\n{self.daemon.log()}")
            time.sleep(POLL)

    def _is_ready(self) -> bool:
        if self._is_mirrored:
            mirrors = self._mirrors()
            return bool(mirrors) and all(mirror["proven"] for mirror in mirrors.values())
        table = ALIASES if ALIASES in self.daemon.ports else next(iter(self.daemon.ports))
        return self.daemon.ask(table, self._known).startswith("200")

    def _mirrors(self) -> dict[str, dict[str, Any]]:
        """What `mailmaps status` tells of each mirror; nothing as long as it does not answer."""
        try:
            told: dict[str, dict[str, Any]] = self.daemon.status()["mirrors"]
        except (OSError, ValueError):  # it does not listen there yet, or has just gone
            return {}
        return told


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command: seconds, and the most bytes of memory it had, its own and with mapped files."""

    seconds: float
    private: int
    resident: int


class Files(FileMaps):
    """`mailmaps filemaps` on a dataset, with a folder of its own for the files."""

    def __init__(self, dataset: Dataset, kind: str = "lmdb") -> None:
        password = dataset.password_file.read_text().strip()
        dsn = dataset.dsn.replace("@", f":{password}@", 1)
        super().__init__(dsn, kind=kind, postfix={"recipient_delimiter": DELIMITER})

    def run(self) -> Run:
        """Run it once. Raises `NotReady`.

        getrusage(2) would not do: ru_maxrss of a child begins with what its parent had.
        """
        with self.output.open("ab") as output:
            began = time.perf_counter()
            process = subprocess.Popen(self._words(), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            private = resident = 0
            try:
                while process.poll() is None and time.perf_counter() - began < RUN_LIMIT:
                    status = _status(process.pid)
                    private = max(private, status.get("RssAnon", 0))
                    resident = max(resident, status.get("VmHWM", 0))
                    time.sleep(POLL)
                took = time.perf_counter() - began
            finally:
                process.kill()  # if it has not ended
                process.wait()
        if process.returncode:
            raise NotReady(f"mailmaps filemaps: exit code {process.returncode}\n{self.log()}")
        return Run(took, private, resident)


def _status(pid: int) -> dict[str, int]:
    """Sizes in bytes, as proc(5) has them in status; none of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines if line.endswith(" kB"))
    return {name.removesuffix(":"): int(size) * 1024 for name, size, _ in words}


@contextmanager
def postfix(maps: Mapping[str, str]) -> Iterator[PrivatePostfix]:
    """A Postfix with these maps that gives nobody a reason to slow down."""
    settings = {
        "recipient_delimiter": DELIMITER,
        "virtual_alias_domains": "",
        "virtual_mailbox_base": "/nonexistent",
        "virtual_uid_maps": "static:5000",
        "virtual_gid_maps": "static:5000",
        "smtpd_recipient_limit": "100000",
        "smtpd_junk_command_limit": "10000000",
        "smtpd_soft_error_limit": "10000000",
        "smtpd_hard_error_limit": "10000000",
        **maps,
    }
    with PrivatePostfix(settings) as running:
        yield running
