"""`mailmaps hash`: from stdin, from a terminal, and what it refuses."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from mailmaps.auth.passwords import SCHEMES, make, verify
from mailmaps.cli.hash import hash_password

# The command as a process of its own, before and after it is registered as `mailmaps hash`.
PROGRAM = [sys.executable, "-c", "from mailmaps.cli.hash import hash_password; hash_password()"]
LIMIT = 60.0
PROMPT = re.compile(rb"(?:Password|confirmation): ")


def run(*words: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(hash_password, words, input=stdin)


@pytest.mark.parametrize(
    ("stdin", "password"),
    [(b"right\n", b"right"), (b"right", b"right"), (b"right\r\n", b"right"), (b" right \n", b" right "),
     ("pässwörd\n".encode(), "pässwörd".encode()), (b"p\xe4ss\n", b"p\xe4ss")],
)  # fmt: skip
def test_the_line_of_stdin(stdin: bytes, password: bytes) -> None:
    result = run(stdin=stdin)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("{CRYPT}$y$")
    assert result.stdout.count("\n") == 1
    assert verify(password, result.stdout.strip())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme(scheme: str) -> None:
    result = run("--scheme", scheme.lower(), stdin=b"right\n")
    assert result.exit_code == 0, result.output
    assert verify(b"right", result.stdout.strip())


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "password is empty"),
        (b"\n", "password is empty"),
        (b"\r\n", "password is empty"),
        (b"one\ntwo\n", "stdin must have 1 line: password"),
        (b"one\n\n", "stdin must have 1 line: password"),
        (b"hunter2\0\n", "has a NUL"),
        (b"hunter2" * 100, "longer than the 511 bytes that YESCRYPT reads"),
    ],
)
def test_refused(stdin: bytes, message: str) -> None:
    result = run(stdin=stdin)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert "hunter2" not in result.stderr
    assert "two" not in result.stderr


def test_list() -> None:
    result = run("--list")
    assert result.exit_code == 0
    assert result.stdout.split() == list(SCHEMES)


@pytest.mark.parametrize(
    "words",
    [
        ["--scheme", "CRYPT"],
        ["right"],
        ["--list", "--check"],
        ["--check", "--scheme", "SSHA"],
        ["--list", "--scheme", "SSHA"],
    ],
)
def test_usage(words: list[str]) -> None:
    result = run(*words, stdin=b"right\n")
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("stdin", "exit_code", "message"),
    [
        ("right\n" + make(b"right", "SSHA") + "\n", 0, "the password fits the hash"),
        ("wrong\n" + make(b"right", "SSHA") + "\n", 1, "does not fit"),
        ("right\n{PLAIN}right\n", 0, "fits"),
        ("right\n{hunter2}right\n", 78, "cannot say: the hash names a scheme that is not known"),
        ("right\nhunter2\n", 78, "cannot say"),
        ("right\n", 1, "stdin must have 2 lines: password, hash"),
        ("right\na\nb\n", 1, "stdin must have 2 lines"),
    ],
)
def test_check(stdin: str, exit_code: int, message: str) -> None:
    result = run("--check", stdin=stdin.encode())
    assert result.exit_code == exit_code
    assert message in result.output
    assert "hunter2" not in result.output


def typed(*lines: str) -> tuple[int, str, str]:
    """Type `lines` at the prompts; give the exit code, what stood on the screen, and stdout."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        PROGRAM, stdin=slave, stdout=subprocess.PIPE, stderr=slave, start_new_session=True, text=True
    ) as process:
        screen = b""
        try:
            for number, line in enumerate(lines, 1):
                while len(PROMPT.findall(screen)) < number:
                    assert select.select([master], [], [], LIMIT)[0], screen
                    screen += os.read(master, 1024)
                os.write(master, line.encode() + b"\n")
            made, _ = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        while select.select([master], [], [], 0)[0]:
            screen += os.read(master, 1024)
    os.close(slave)
    os.close(master)
    return process.returncode, screen.decode(), made


def test_a_terminal_asks_twice_and_shows_nothing() -> None:
    code, screen, made = typed("pässwörd", "pässwörd")
    assert code == 0, screen
    assert verify("pässwörd".encode(), made.strip())
    assert "Password: " in screen
    assert "wörd" not in screen


def test_a_terminal_asks_again_after_a_slip() -> None:
    code, screen, made = typed("hunter2", "hunter3", "hunter2", "hunter2")
    assert code == 0, screen
    assert "do not match" in screen
    assert "hunter" not in screen
    assert verify(b"hunter2", made.strip())
