"""`mailmaps demo` as a person runs it: start, try, Ctrl-C, start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.postfix import eventually

from mailmaps.client import TcpTableClient
from mailmaps.demo.data import EXAMPLES, LOGIN, LOGIN_PASSWORD
from mailmaps.maps.answer import NOT_FOUND, Found

LIMIT = 60.0
SHIFT = 4200  # a person may have the demo running on the default ports
ALIASES = ("127.0.0.1", 17013 + SHIFT)

PORTS = ("--port-shift", str(SHIFT))


class RunningDemo:
    """The command with its own directory, ended by SIGINT."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.output = directory.parent / "output"
        self._words = [
            sys.executable,
            "-m",
            "mailmaps",
            "demo",
            "--directory",
            str(directory),
            *PORTS,
            *options,
        ]
        self.start()

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self._words, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        assert eventually(self._ready, LIMIT), self.output.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        try:
            socket.create_connection(ALIASES, timeout=1).close()
        except OSError:
            return False
        return "Ctrl-C ends it" in self.output.read_text()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[RunningDemo]:
    running = RunningDemo(tmp_path / "demo")
    yield running
    if running.process.poll() is None:
        running.stop()


def processes_below(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(directory) in words:
            found.append(words)
    return found


def log_in(directory: Path, password: str) -> str:
    """What `mailmaps login` prints."""
    config = str(directory / "mailmaps.toml")
    words = [sys.executable, "-m", "mailmaps", "login", "--config", config, f"{LOGIN}@second.example"]
    done = subprocess.run(
        words, input=f"{password}\n", capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return done.stdout + done.stderr


def test_the_demo_answers_ends_without_a_trace_and_starts_again(demo: RunningDemo, tmp_path: Path) -> None:
    expected = {
        "j.w.janssen+Lists@lxtreme.nl": Found("janwillem.janssen+Lists@lxtreme.nl"),
        "team@lxtreme.nl": Found("anna@second.example,janwillem.janssen@lxtreme.nl"),
        "press@lxtreme.nl": Found("agency@outside.example"),
        "anybody@second.example": Found("anna@second.example"),
        "gone@second.example": NOT_FOUND,
        "info@lxtreme.example": Found("info@lxtreme.nl"),
    }
    assert list(expected) == [key for key, _ in EXAMPLES]
    for _ in range(2):
        with socket.create_connection(ALIASES, timeout=LIMIT) as sock:
            client = TcpTableClient(sock)
            assert {key: client.ask(key) for key in expected} == expected
        assert log_in(tmp_path / "demo", LOGIN_PASSWORD).startswith("accepted\n  user=anna\n  uid=5003\n")
        assert log_in(tmp_path / "demo", "another") == "rejected\n"
        assert demo.stop() == 0
        assert processes_below(tmp_path) == []
        demo.start()


def test_a_port_in_use_is_named_and_nothing_is_left(demo: RunningDemo, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mailmaps", "demo", "--directory", str(tmp_path / "second"), *PORTS]
    second = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert second.returncode == 69
    assert "cannot listen on 127.0.0.1 port 21211: the port is in use" in second.stderr
    assert processes_below(tmp_path / "second") == []


def test_a_folder_too_deep_for_a_socket_is_named(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    words = [sys.executable, "-m", "mailmaps", "demo", "--directory", str(deep), *PORTS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 69
    assert "control.unix: a socket's path has at most 107 bytes" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_below(deep) == []


def test_any_number_of_accounts(tmp_path: Path) -> None:
    running = RunningDemo(tmp_path / "demo", "--accounts", "12000")
    try:
        with socket.create_connection(ALIASES, timeout=LIMIT) as sock:
            client = TcpTableClient(sock)
            assert client.ask("first.last11999@demo.example") == Found("user11999@demo.example")
            assert client.ask("user12000@demo.example") == NOT_FOUND
    finally:
        assert running.stop() == 0
