"""Standard error as it is: a file, a pipe whose reader has stopped, closed, journald's."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailmaps.logs import events
from mailmaps.logs import repeats as repeats_module
from mailmaps.logs.output import CLOSE_LIMIT, LONGEST_LINE, MOST_WAITING, Output

LIMIT = 30.0

START = """
import asyncio, logging, os, socket, sys, threading, warnings
from mailmaps.logs import events
from mailmaps.logs.output import log_to_stderr
log_to_stderr("info")
log = events("test")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """What a program says that logs to standard error."""
    words = [sys.executable, "-c", START + program]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def output(fd: int, *, journald: bool = False) -> Iterator[logging.Logger]:
    """A logger of its own that writes there."""
    handler = Output(fd, journald=journald)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_the_form(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened, output(opened.fileno()) as log:
        log.info("a %s", "b")
        log.error("c\nd")
    assert file.read_text() == "INFO test: a b\nERROR test: c | d\n"


def test_the_form_for_journald(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened, output(opened.fileno(), journald=True) as log:
        for level in (10, 20, 25, 30, 40, 50):
            log.log(level, "x")
    assert file.read_text() == "".join(f"<{number}>test: x\n" for number in (7, 6, 6, 4, 3, 2))


@pytest.mark.parametrize("is_it", [True, False])
def test_journald_is_known_by_its_stream(pipe: tuple[int, int], is_it: bool) -> None:
    stat = os.fstat(pipe[1])
    stream = f"{stat.st_dev}:{stat.st_ino if is_it else stat.st_ino + 1}"
    words = [sys.executable, "-c", START + "log.warning('hello', a=1)"]
    environment = {**os.environ, "JOURNAL_STREAM": stream}
    subprocess.run(words, stderr=pipe[1], env=environment, timeout=60, check=True)
    assert os.read(pipe[0], 1000) == (b"<4>test: hello a=1\n" if is_it else b"WARNING test: hello a=1\n")


def test_a_line_has_a_longest(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened, output(opened.fileno()) as log:
        log.error("ü" * 10**6 + "end")
    (line,) = file.read_text().splitlines()
    assert len(line) <= LONGEST_LINE + len("ERROR ")
    assert line.endswith("end")


def test_everything_uncaught_is_one_line() -> None:
    done = run(
        "async def main():\n"
        "    asyncio.ensure_future(broken())\n"
        "    await asyncio.sleep(0.01)\n"
        "async def broken(): raise ValueError('in a task\\nof two lines')\n"
        "asyncio.run(main())\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start(); thread.join()\n"
        "class Last:\n    def __del__(self): raise KeyError('last')\n"
        "Last()\n"
        "warnings.warn('old\\nthing')\n"
        "raise RuntimeError('the end')\n"
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [re.sub(r" \|.*|: <string>.*", "", line) for line in lines] == [
        "ERROR asyncio: Task exception was never retrieved",
        "ERROR mailmaps: a thread ended for a fault",
        "ERROR mailmaps: an exception was ignored",
        "WARNING py.warnings",
        "ERROR mailmaps: ends for a fault",
    ]
    assert lines[0].endswith("ValueError: in a task | of two lines")


def test_repeats_are_said_by_a_timer(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is logged, and there is no event loop."""
    monkeypatch.setattr(repeats_module, "PERIOD", 0.2)
    with output(pipe[1]) as log:
        for number in range(100):
            log.warning("text n=%d", number)
        read = b""
        while b"repeated" not in read:
            read += os.read(pipe[0], 10_000)
    assert read.splitlines()[-1] == b"WARNING test: text n=99 repeated=80 in=0s"
    assert len(read.splitlines()) == 21


def test_what_is_held_back_is_said_at_the_end() -> None:
    done = run("for n in range(100): log.warning('text', n=n)")
    assert done.stderr.splitlines()[-1] == "WARNING test: text n=99 repeated=80 in=60s"


def test_threads_do_not_tear_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = events("threads")
    with file.open("wb") as opened, output(opened.fileno()) as logger:
        log._logger = logger

        def work(name: int) -> None:
            for number in range(100):
                log.counted(logging.INFO, "text", thread=name, number=number, long="x" * 500)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = re.findall(
        r"^INFO test: text thread=(\d) number=(\d+) long=x{500}$", file.read_text(), re.MULTILINE
    )
    assert sorted(found) == sorted((str(a), str(b)) for a in range(8) for b in range(100))


def test_a_reader_that_has_stopped_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    """The event loop of the program goes on; what was lost is counted."""
    count = 5 * MOST_WAITING
    program = START + (
        "async def main():\n"
        f"    for n in range({count}):\n"
        "        log.counted(20, f'text {n % 10}', n=n, long='x' * 200)\n"  # no kind is held back
        "        await asyncio.sleep(0)\n"
        "    print('goes on', flush=True)\n"
        "    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)\n"
        "asyncio.run(main())\n"
    )
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=pipe[1], text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "goes on\n"
    read = b""
    while b"log lines are lost" not in read:
        read += os.read(pipe[0], 100_000)
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(LIMIT) == 0
    process.stdout.close()
    lines = read.decode().splitlines()
    lost = re.fullmatch(r"WARNING mailmaps\.logs\.output: log lines are lost lines=(\d+)", lines[-1])
    assert lost is not None
    assert int(lost[1]) + len(lines) - 1 == count
    assert MOST_WAITING <= len(lines) < count


def test_an_end_does_not_wait_for_a_reader_that_has_stopped(pipe: tuple[int, int]) -> None:
    program = START + "for n in range(5000): log.counted(20, f'text {n % 10}', n=n)\n"
    done = subprocess.run([sys.executable, "-c", program], stderr=pipe[1], timeout=LIMIT, check=False)
    assert done.returncode == 0, f"after {CLOSE_LIMIT} s"


def test_a_reader_that_is_gone_ends_nothing() -> None:
    ends = os.pipe()
    os.close(ends[0])
    program = (
        START + "import time\nfor n in range(300): log.counted(20, 'x', n=n)\ntime.sleep(0.2)\nprint('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=ends[1], timeout=60, check=False
    )
    os.close(ends[1])
    assert (done.returncode, done.stdout) == (0, b"alive\n")


def test_without_standard_error_no_socket_gets_our_lines() -> None:
    """A socket takes the first free number, which would be that of standard error."""
    program = START + (
        "ours, theirs = socket.socketpair()\n"
        "log.error('secret')\n"
        "logging.shutdown()\n"
        "theirs.setblocking(False)\n"
        "ours.setblocking(False)\n"
        "try: print(theirs.recv(100))\n"
        "except BlockingIOError: pass\n"
        "try: print(ours.recv(100))\n"
        "except BlockingIOError: print('nothing')\n"
    )
    words = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    done = subprocess.run(words, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"nothing\n")


def test_somebodys_nonblocking_pipe_loses_nothing(pipe: tuple[int, int]) -> None:
    """`O_NONBLOCK` is of the pipe, not of our descriptor."""
    os.set_blocking(pipe[1], False)
    with output(pipe[1]) as log:
        for number in range(1000):
            log.info("%s %d" % ("x" * 200, number))  # noqa: UP031  # a text of its own each
        read = b""
        while len(read.splitlines()) < 1000 or not read.endswith(b"\n"):
            read += os.read(pipe[0], 100_000)
        assert not re.search(rb"lost", read)
