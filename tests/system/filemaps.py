"""`mailmaps filemaps` as a postmaster runs it: once, or as a service that follows.

Contract: `FileMaps` has a mailmaps.toml and a folder of its own below /tmp; `once` and `start`...`stop` may
be called in any order; `kill` is SIGKILL. After `close` nothing of it is left.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.system.processes import eventually

START_LIMIT = 30.0
STOP_LIMIT = 15.0

Value = str | bool | int | float


class FileMaps:
    """The files of one database, of `kind` lmdb or cdb."""

    def __init__(
        self,
        dsn: str,
        *,
        kind: str = "lmdb",
        filemaps: Mapping[str, Value] | None = None,
        more: str = "",
        postfix: Mapping[str, Value] | None = None,
    ) -> None:
        """`filemaps` and `postfix` are settings of these sections; `more` is text of mailmaps.toml."""
        self.folder = Path(tempfile.mkdtemp(prefix="mailmaps-filemaps-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.dsn = dsn
        self.files = self.folder / "files"
        self.kind = kind
        self.config = self.folder / "mailmaps.toml"
        self.output = self.folder / "output"
        sections: dict[str, Mapping[str, Value]] = {
            "database": {"dsn": dsn},
            "filemaps": {"directory": str(self.files), "type": kind, **(filemaps or {})},
            "postfix": {"recipient_delimiter": "+", "virtual_minimum_uid": 5000, **(postfix or {})},
            "log": {"level": "debug"},
        }
        lines = [more]
        for name, settings in sections.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)  # it holds a password
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0  # before it was started last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def once(self, *options: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run it once; the exit code must be `code`, unless that is None."""
        words = [*self._words(), *options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    def start(self) -> None:
        """Follow from now on, and wait until all files are there."""
        assert self._process is None, "it runs already"
        self._said = len(self.log())
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._words(), "--follow"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        if not eventually(self._is_there_or_died, START_LIMIT) or self._process.poll() is not None:
            raise RuntimeError(f"it did not start\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What it has said while it followed."""
        return self.output.read_text() if self.output.exists() else ""

    def map(self, table: str) -> str:
        """How main.cf names a table here."""
        return f"{self.kind}:{self.files / table}"

    def ask(self, table: str, key: str) -> str | None:
        """What Postfix finds; an empty value is "cannot say now"."""
        words = ["postmap", "-q", key, self.map(table)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "fatal" not in done.stderr, done.stderr
        return done.stdout.removesuffix("\n") if done.returncode == 0 else None

    def rows(self, table: str) -> dict[str, str]:
        """All rows, as Postfix lists them."""
        done = subprocess.run(
            ["postmap", "-s", self.map(table)], capture_output=True, text=True, timeout=60, check=True
        )
        return dict(line.split("\t", 1) for line in done.stdout.splitlines())

    def _words(self) -> list[str]:
        return [sys.executable, "-m", "mailmaps", "filemaps", "--config", str(self.config)]

    def _is_there_or_died(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None or "is current" in self.log()[self._said :]

    def _end(self, signum: signal.Signals) -> int:
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        process.send_signal(signum)
        try:
            return process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"it did not stop\n{self.log()}") from None


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
