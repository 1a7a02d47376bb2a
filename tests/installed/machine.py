"""Commands as the postmaster types them, SMTP, HTTP, and patience with limits."""

from __future__ import annotations

import shlex
import smtplib
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

# Seconds for one command; none takes more than some seconds here.
COMMAND_SECONDS = 120.0

# Seconds for what comes by itself: a delivery, a scrape, a follower of changes.
PATIENCE = 60.0

PROJECT = Path(__file__).parent.parent.parent


class Failed(Exception):
    """Something is not as README and documents promise."""


def check(fact: object, what: str) -> None:
    """Raise `Failed` unless it is so, and say it if it is."""
    if not fact:
        raise Failed(what)
    print(f"   {what}", flush=True)


def run(line: str, *, typed: str = "", codes: tuple[int, ...] = (0,)) -> str:
    """A line as the shell has it, `typed` at its questions; what it prints. Raises `Failed`."""
    print(f"$ {line}", flush=True)
    words = ["sh", "-c", line]
    try:
        done = subprocess.run(
            words, input=typed, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{line}: not within {COMMAND_SECONDS:g} s") from None
    for text in (done.stdout, done.stderr):
        print("".join(f"   {one}\n" for one in text.splitlines()), end="", flush=True)
    if done.returncode not in codes:
        raise Failed(f"{line}: exit code {done.returncode}")
    return done.stdout


def quiet(*words: str) -> str:
    """What a command prints; whatever its exit code is."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    return done.stdout + done.stderr


def eventually(found: Callable[[], object], what: str, limit: float = PATIENCE) -> None:
    """Wait until it is so. Raises `Failed`."""
    end = time.monotonic() + limit
    while not found():
        if time.monotonic() > end:
            raise Failed(f"not within {limit:g} s: {what}")
        time.sleep(0.2)
    print(f"   {what}", flush=True)


def block(file: Path, marker: str) -> list[str]:
    """The commands of the indented block behind `<!-- marker -->`. Raises `Failed`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if line.strip() == f"<!-- {marker} -->"]
    if len(places) != 1:
        raise Failed(f"{file} has {len(places)} lines <!-- {marker} -->")
    found = []
    for line in lines[places[0] + 1 :]:
        if line.startswith("    "):
            found.append(line.strip())
        elif line.strip():
            break
    return [line for line in found if shlex.split(line, comments=True)]


def rcpt(address: str, port: int = 25) -> tuple[int, str]:
    """What smtpd(8) says to RCPT TO."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.helo("client.example.net")
        client.mail("someone@example.net")
        code, text = client.rcpt(address)
        return code, text.decode("utf-8", "replace")


def get(url: str) -> tuple[int, str]:
    """An HTTP answer; (0, reason) where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own http: URLs
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
