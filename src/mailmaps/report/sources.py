"""Log files (`.gz`, `.bz2`, `.xz` too) in the order of their time.

They are read line by line, so memory does not grow with them; a file that was changed last before what is
wanted is not opened. The order is that of the first line that has a time, since names of rotated logs
differ (mail.log.1, mail.log-20261122.gz, the how-to's mail.log.0).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mailmaps.report.entry import Entry, LineReader

# Bytes of a line; what follows is taken for a line of its own, which is none.
LONGEST_LINE = 65_536

# Lines at the beginning of a file among which one must have a time.
MOST_WITHOUT_TIME = 1000

# Seconds after the period at which a file is left: what comes then would be out of order by that much.
BEYOND = 3600.0

FOLDER = Path("/var/log")
_NAMES = ("mail.log", "maillog", "mail")
# mail.err and its like hold lines once more that the log has.
_NOT_LOGS = (".err", ".warn", ".info")


class SourceError(Exception):
    """A log cannot be read; the text names it."""


def default_files(folder: Path = FOLDER) -> list[Path]:
    """The mail logs of this machine, rotated ones among them, in no order; of the first name that there
    is.
    """
    for name in _NAMES:
        found = [folder / name, *folder.glob(f"{name}.*"), *folder.glob(f"{name}-*")]
        logs = [path for path in found if path.is_file() and not _repeats(path)]
        if logs:
            return logs
    return []


def _repeats(path: Path) -> bool:
    return any(part in _NOT_LOGS for part in path.suffixes)


def in_order(paths: list[Path], since: float) -> tuple[list[Path], list[Path]]:
    """The files that may have lines since then, oldest first; and those without any line of a syslog.

    Raises `SourceError`.
    """
    found: list[tuple[float, str, Path]] = []
    without: list[Path] = []
    for path in dict.fromkeys(paths):
        try:
            if not path.is_file():
                raise SourceError(f"{path}: {'no such file' if not path.exists() else 'not a file'}")
            if path.stat().st_mtime < since:
                continue
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        first = _first(path)
        if first is None:
            without.append(path)
        else:
            found.append((first, str(path), path))
    return [path for _, _, path in sorted(found)], without


def _first(path: Path) -> float | None:
    for number, entry in enumerate(read(path, float("inf"))):
        if entry is not None:
            return entry.when
        if number >= MOST_WITHOUT_TIME:
            break
    return None


def read(path: Path, until: float) -> Iterator[Entry | None]:
    """The entries of a file up to a time; None for a line that is none. Raises `SourceError`."""
    try:
        reader = LineReader(path.stat().st_mtime)
        with _open(path) as file:
            while line := file.readline(LONGEST_LINE):
                entry = reader.read(line.decode("utf-8", "replace"))
                if entry is not None and entry.when > until + BEYOND:
                    return
                yield entry
    except EOFError as error:
        raise SourceError(f"{path}: it ends in the middle: {error}") from error
    except (zlib.error, lzma.LZMAError) as error:
        raise SourceError(f"{path}: broken: {error}") from error
    except OSError as error:  # gzip.BadGzipFile has no errno
        raise SourceError(f"{path}: {error.strerror or error}") from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    match path.suffix:
        case ".gz":
            return gzip.open(path, "rb")
        case ".bz2":
            return bz2.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case _:
            return path.open("rb")
