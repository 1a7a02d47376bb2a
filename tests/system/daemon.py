"""The real daemon, started as a postmaster starts it: `mailmaps serve --config FILE`.

Contract: `Daemon` writes a mailmaps.toml of its own with a free port for every table and for socketmap,
starts the process, waits until every endpoint takes a connection, and keeps what it said. `stop` is
SIGTERM and gives the exit code; `kill` is SIGKILL; both may be followed by `start` on the same ports.
After `close` nothing of it is left.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.system.ports import steady_ports
from tests.system.processes import eventually

TABLES = (
    "transport_maps",
    "virtual_mailbox_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "smtpd_sender_login_maps",
    "relay_domains",
    "relay_recipient_maps",
)

START_LIMIT = 30.0
STOP_LIMIT = 10.0
"""Seconds; the daemon promises to stop within 5."""

Value = str | bool | int | float | Sequence[str]


class Daemon:
    """One mailmaps: `with Daemon(settings) as daemon`, or `start` and `close`."""

    def __init__(
        self,
        settings: Mapping[str, Mapping[str, Value] | Value],
        sources: Mapping[str, str] | None = None,
        tables: Mapping[str, Sequence[str]] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """`settings` are sections of mailmaps.toml; `sources` names another source for some tables.

        With `tables` only these exist, each with the sources given. `wrapper` is a command that executes the
        command behind it.
        """
        self._wrapper = wrapper
        self.folder = Path(tempfile.mkdtemp(prefix="mailmaps-daemon-", dir="/tmp"))
        if tables is None:
            tables = {table: [(sources or {}).get(table, "builtin")] for table in TABLES}
        else:
            settings = {"builtin_tables": False, **settings}
        ports = steady_ports(len(tables) + 3)
        self.ports = dict(zip((*tables, "socketmap", "policy", "metrics"), ports, strict=True))
        self.config = self.folder / "mailmaps.toml"
        self.output = self.folder / "output"
        self.mirrors = self.folder / "mirrors"
        self.config.write_text(self._toml(settings, tables))
        self.config.chmod(0o600)  # it may hold a password
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def map(self, map_type: str, table: str) -> str:
        """How main.cf names a table here; `map_type` is tcp or socketmap."""
        if map_type == "tcp":
            return f"tcp:127.0.0.1:{self.ports[table]}"
        return f"socketmap:inet:127.0.0.1:{self.ports['socketmap']}:{table}"

    def start(self) -> None:
        """Start and wait until every endpoint takes a connection. Raises `RuntimeError` with its log."""
        assert self._process is None, "it runs already"
        words = [*self._wrapper, sys.executable, "-m", "mailmaps", "serve", "--config", str(self.config)]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        if not eventually(self._listens_or_died, START_LIMIT) or self._process.poll() is not None:
            raise RuntimeError(f"mailmaps did not start (exit code {self._process.poll()})\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM; the exit code. Raises `RuntimeError` with its log when it does not end in time."""
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"mailmaps did not stop within {STOP_LIMIT} s\n{self.log()}") from None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        process.kill()
        process.wait()

    def close(self) -> None:
        """End it whatever its state, and remove its folder."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, table: str, key: str) -> str:
        """The line that a tcp_table client gets for a key of plain ASCII without blanks and `%`."""
        with socket.create_connection(("127.0.0.1", self.ports[table]), timeout=START_LIMIT) as client:
            client.sendall(f"get {key}\n".encode("ascii"))
            with client.makefile("r", encoding="ascii", newline="\n") as replies:
                return replies.readline().removesuffix("\n")

    def explain(self, table: str, key: str) -> dict[str, Any]:
        """How it answers a key, as its control socket tells."""
        return self.command("explain", table=table, key=key)

    def status(self) -> dict[str, Any]:
        """What `mailmaps status` shows."""
        return self.command("status")

    def command(self, name: str, /, **words: str) -> dict[str, Any]:
        """What its control socket replies to a command."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(START_LIMIT)
            client.connect(str(self.folder / "control.sock"))
            client.sendall(json.dumps({"command": name, **words}).encode() + b"\n")
            with client.makefile() as replies:
                told: dict[str, Any] = json.loads(replies.readline())
                return told

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of mailmaps with the same configuration, say `query TABLE KEY`."""
        command = [sys.executable, "-m", "mailmaps", words[0], "--config", str(self.config), *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def run_group(self, group: str, *words: str) -> subprocess.CompletedProcess[str]:
        """The same for a command of a group, say `limits show NAME`."""
        where = ["--config", str(self.config)]
        command = [sys.executable, "-m", "mailmaps", group, words[0], *where, *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def log(self) -> str:
        """All that it wrote to standard output and standard error."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def _listens_or_died(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        return all(_listens(port) for port in self.ports.values()) and self._is_controlled()

    def _is_controlled(self) -> bool:
        """Whether the control socket, which is bound last, takes a connection."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(str(self.folder / "control.sock"))
        except OSError:
            return False
        return True

    def _toml(
        self, settings: Mapping[str, Mapping[str, Value] | Value], tables: Mapping[str, Sequence[str]]
    ) -> str:
        top = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
        sections = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
        sections["socketmap"] = {"inet": f"127.0.0.1:{self.ports['socketmap']}"}
        sections["policy"] = {"inet": f"127.0.0.1:{self.ports['policy']}", **sections.get("policy", {})}
        sections["metrics"] = {"inet": f"127.0.0.1:{self.ports['metrics']}"}
        sections["control"] = {"unix": str(self.folder / "control.sock")}
        sections["mirror"] = {"directory": str(self.mirrors), **sections.get("mirror", {})}
        for table, items in tables.items():
            sections[f"tables.{table}"] = {"tcp": f"127.0.0.1:{self.ports[table]}", "sources": items}
        text = _lines(top)
        return text + "".join(f"\n[{name}]\n{_lines(values)}" for name, values in sections.items())


def _lines(values: Mapping[str, Value]) -> str:
    """TOML's strings, booleans, numbers and arrays are JSON's, as far as settings go."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
