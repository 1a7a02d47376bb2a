"""Postfix's own postmap(1): what Postfix will read in a file, and the making of a cdb."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import IO

from mailmaps.postconf import environment

# Seconds that postmap may take for a file; a million keys take a few.
LIMIT = 600.0

Rows = Callable[[], Iterable[tuple[bytes, bytes]]]


class PostmapError(Exception):
    """postmap is not there, or fails; the text says how."""


class Postmap:
    """`postmap -c config_directory`, where that holds a main.cf."""

    def __init__(self, config_directory: Path) -> None:
        has_settings = (config_directory / "main.cf").exists()
        self._words = ["postmap", *(["-c", str(config_directory)] if has_settings else [])]

    def differing(self, table: str, rows: Rows) -> list[bytes]:
        """The keys to which `table` ("lmdb:/path") does not answer with their values; all others do.

        `rows` is called twice. No key and no value holds a line feed. Raises `PostmapError`.
        """
        with tempfile.TemporaryFile() as keys, tempfile.TemporaryFile() as told:
            for key, _ in rows():
                keys.write(key + b"\n")
            keys.seek(0)
            with self._run(["-q", "-", table], stdin=keys, stdout=subprocess.PIPE, stderr=told) as process:
                assert process.stdout is not None  # it is a pipe
                try:
                    found = _differing(process.stdout, rows())
                finally:
                    process.stdout.close()
            # Exit code 1 is "nothing found" as well as "fatal"; empty values are warned of.
            _raise_if_fatal(told)
            _raise_unless(process, 0, 1)
        return found

    def make_cdb(self, source: Path) -> None:
        """Make `source`.cdb of the text file `source`. Raises `PostmapError`."""
        with tempfile.TemporaryFile() as told:
            words = [f"cdb:{source}"]
            with self._run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told
            ) as process:
                pass
            _raise_if_fatal(told)
            _raise_unless(process, 0)

    @contextmanager
    def _run(
        self, words: list[str], *, stdin: IO[bytes] | int, stdout: int, stderr: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        try:
            process = subprocess.Popen(
                [*self._words, *words], stdin=stdin, stdout=stdout, stderr=stderr, env=environment()
            )
        except FileNotFoundError:
            raise PostmapError(
                "postmap is not installed here (Debian: postfix, postfix-lmdb, postfix-cdb)"
            ) from None
        limit = Timer(LIMIT, process.kill)  # it may wait for a lock as well as for us
        limit.start()
        try:
            with process:
                yield process
        finally:
            limit.cancel()


def _differing(lines: IO[bytes], rows: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Walk answers ("KEY TAB VALUE", of what was found) and rows side by side."""
    found: list[bytes] = []
    line = lines.readline()
    for key, value in rows:
        if line == key + b"\t" + value + b"\n":
            line = lines.readline()
            continue
        found.append(key)
        if line.startswith(key + b"\t"):
            line = lines.readline()
    for _ in lines:  # to its end, or postmap would die of a broken pipe
        pass
    return found


def _raise_unless(process: subprocess.Popen[bytes], *codes: int) -> None:
    code = process.returncode
    if code not in codes:
        how = f"exit code {code}" if code > 0 else f"signal {-code} (after {LIMIT:g} s, it is ours)"
        raise PostmapError(f"postmap ended with {how}")


def _raise_if_fatal(told: IO[bytes]) -> None:
    told.seek(0)
    for line in told:
        if line.startswith((b"postmap: fatal:", b"postmap: panic:")):  # a key may be called so, too
            raise PostmapError(line.decode(errors="replace").strip())
