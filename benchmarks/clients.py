"""The clients: real `postmap -q -`, and the generators of load written in C.

Each gives what it measured and complains (`WrongAnswers`) when the answers were not those expected: a server
that fails is fast, too.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.dataset import POSTFIX_READER, postfix_statement

TIME_LIMIT = 300.0
"""Seconds for one slice of measuring; each is made for a few."""


class WrongAnswers(RuntimeError):
    """A peer did not answer what it should have; its speed would mean nothing."""


class Load(NamedTuple):
    """What load.c, rcpt.c, logins.c or policy.c measured."""

    per_second: float
    p50_us: float
    p99_us: float


class Door(NamedTuple):
    """A unix socket that one logs in at, and how it is spoken to: a DOOR of logins.c."""

    protocol: str
    path: Path


class Clients:
    """Clients whose files of keys lie in `folder`; `programs` are where load and rcpt are."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self.commands: dict[str, None] = {}  # what was run, in order, without private paths and ports

    def postmap(self, spec: str, keys: Sequence[str], clients: int, found: bool, config: str = "") -> float:
        """Seconds a key that so many `postmap -q -` take, the keys shared out among them."""
        share = len(keys) // clients
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            for number in range(clients):
                self._write(folder / f"keys{number}", keys[number * share : (number + 1) * share])
            began = time.perf_counter()
            running = [self._start(spec, folder, number, config) for number in range(clients)]
            for process in running:
                process.wait(TIME_LIMIT)
            took = time.perf_counter() - began
            self._check(spec, folder, clients, share if found else 0)
        return took / (share * clients)

    def load(
        self,
        port: int,
        keys: Sequence[str],
        connections: int,
        seconds: float,
        found: bool,
        most: int = 0,
        pace: int = 0,
    ) -> Load:
        """Ask a tcp_table(5) server. With `most`, no more than so many requests are made.

        `pace` is how many a second, whether replies come or not; 0 is as many as are replied to.
        """
        words = ["-p", str(port), "-c", str(connections), "-s", str(seconds)]
        words += ["-n", str(most)] if most else []
        words += ["-r", str(pace)] if pace else []
        return self._run("load", keys, words, "found" if found else "not_found")

    def load_postgres(
        self, port: int, database: str, file: str, keys: Sequence[str], connections: int, seconds: float
    ) -> Load:
        """Ask PostgreSQL itself what Postfix would ask for a `.cf` file of the dataset."""
        words = ["-p", str(port), "-c", str(connections), "-s", str(seconds)]
        login = ["-u", POSTFIX_READER, "-d", database, "-q", postfix_statement(file)]
        return self._run("load", keys, [*words, *login], "found")

    def rcpt(
        self,
        port: int,
        recipients: Sequence[str],
        sessions: int,
        seconds: float,
        known: bool,
        login: str = "",
        sender: str = "",
    ) -> Load:
        """Offer recipients to an smtpd(8), as a `login` that sends as `sender`, or else as a stranger."""
        words = ["-p", str(port), "-c", str(sessions), "-s", str(seconds)]
        words += ["-l", login, "-f", sender] if login else []
        return self._run("rcpt", recipients, words, "accepted" if known else "refused")

    def logins(
        self,
        door: Door,
        logins: Sequence[str],
        connections: int,
        seconds: float,
        result: str = "accepted",
    ) -> Load:
        """Log in, one login outstanding on each connection; `logins` are the lines of logins.c."""
        return self._run("logins", logins, [*_door_words(door, connections), "-s", str(seconds)], result)

    def policy(
        self,
        port: int,
        questions: Sequence[str],
        connections: int,
        seconds: float,
        state: str,
        most: int = 0,
    ) -> Load:
        """Ask a policy service at that protocol_state; `questions` are the lines of policy.c, which makes one
        request on each connection before it counts. With `most`, no more than so many requests after these.
        """
        words = ["-p", str(port), "-c", str(connections), "-s", str(seconds), "-t", state]
        words += ["-n", str(most)] if most else []
        return self._run("policy", questions, words, "expected")

    @contextmanager
    def logging_in(self, door: Door, logins: Sequence[str], connections: int) -> Iterator[list[Load]]:
        """The same as long as the `with` statement lasts; the list has what was measured, after it."""
        words = [*_door_words(door, connections), "-s", str(TIME_LIMIT)]
        measured: list[Load] = []
        with self._started("logins", logins, words) as process:
            try:
                yield measured
            finally:
                process.terminate()
                said, complaint = process.communicate(timeout=TIME_LIMIT)
        measured.append(_load("logins", words, "accepted", process.returncode, said, complaint))

    def _run(self, program: str, keys: Sequence[str], words: list[str], all_are: str) -> Load:
        with self._started(program, keys, words) as process:
            said, complaint = process.communicate(timeout=TIME_LIMIT)
        load = _load(program, words, all_are, process.returncode, said, complaint)
        if not load.per_second:
            raise WrongAnswers(f"{program} {' '.join(words)}: no answer in all that time")
        return load

    @contextmanager
    def _started(
        self, program: str, keys: Sequence[str], words: list[str]
    ) -> Iterator[subprocess.Popen[str]]:
        """A generator of load, ended at the latest with the `with` statement."""
        with tempfile.NamedTemporaryFile("w", dir=self._folder) as file:
            file.write("".join(f"{key}\n" for key in keys))
            file.flush()
            command = [str(self._programs / program), *words, "-k", file.name]
            self._note([program, *words, "-k", "KEYS"])
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                try:
                    yield process
                finally:
                    process.kill()  # if it has not ended

    def _start(self, spec: str, folder: Path, number: int, config: str) -> subprocess.Popen[bytes]:
        words = ["postmap", *(["-c", config] if config else []), "-q", "-", spec]
        self._note([*words, "<", "KEYS"])
        keys, values, errors = (folder / f"{name}{number}" for name in ("keys", "values", "errors"))
        with keys.open("rb") as source, values.open("wb") as sink, errors.open("wb") as complaints:
            return subprocess.Popen(words, stdin=source, stdout=sink, stderr=complaints)

    def _check(self, spec: str, folder: Path, clients: int, found: int) -> None:
        for number in range(clients):
            values = (folder / f"values{number}").read_bytes().count(b"\n")
            if values != found:
                errors = (folder / f"errors{number}").read_text(errors="replace")[:500]
                raise WrongAnswers(f"postmap {spec}: {values} found, not {found}; {errors}")

    def _note(self, words: list[str]) -> None:
        """Remember a command, without what is another one in every run."""
        private = rf"{self._folder}/(?:mail_\d+-)?|/tmp/mailmaps-filemaps-\w+/files/"
        line = re.sub(private, "", shlex.join(words).replace("'<'", "<"))
        line = re.sub(r"-c /\S+", "-c FOLDER", re.sub(r"-a /\S+", "-a SOCKET", line))
        self.commands[re.sub(r"(?<=-p )\d+|(?<=127\.0\.0\.1:)\d+", "PORT", line)] = None

    def _write(self, path: Path, keys: Sequence[str]) -> None:
        path.write_text("".join(f"{key}\n" for key in keys))


def _door_words(door: Door, connections: int) -> list[str]:
    return ["-d", door.protocol, "-a", str(door.path), "-c", str(connections)]


def _load(program: str, words: list[str], all_are: str, code: int, output: str, complaint: str) -> Load:
    """What a generator of load said. Raises `WrongAnswers`."""
    if code:
        raise WrongAnswers(f"{' '.join(words)}: {complaint.strip()}")
    said = json.loads(output)
    if said[all_are] != said["requests"]:
        raise WrongAnswers(f"{program} {' '.join(words)}: {output}")
    return Load(said["per_second"], said["p50_us"], said["p99_us"])
