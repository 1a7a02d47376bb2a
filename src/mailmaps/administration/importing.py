"""A whole file at once: read, judged, counted, and written if no line is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mailmaps.administration.csv_file import KINDS, PLAIN, Problem, Reading, read
from mailmaps.administration.domains import HOLD
from mailmaps.administration.names import BadName
from mailmaps.administration.numbers import gid_taken, uid_taken
from mailmaps.administration.step import Change, Prepare
from mailmaps.auth.passwords import default_scheme, make
from mailmaps.database.administration_import import (
    COLUMNS,
    Counts,
    copy_in,
    give_numbers,
    judge,
    take_hashes,
    write,
)
from mailmaps.database.administration_rows import free_gid, free_uid

if TYPE_CHECKING:
    from mailmaps.administration.boxes import Boxes
    from mailmaps.database.administration import Work

# What is told while it goes on: a word, how far, and of how much (0: not known).
Progress = Callable[[str, int, int], None]

# Lines between two of these.
TOLD_EVERY = 500

# Passwords that are hashed at a time. (All of them hold the interpreter free meanwhile.)
THREADS = 8


class BadLines(BadName):
    """Lines that cannot be imported; all of them, in order."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__(f"{path}: {len(problems)} problems")
        self.problems = problems


def importing(
    path: Path, file: IO[str], minimum_uid: int, *, update: bool, dry_run: bool, told: Progress
) -> Prepare:
    """Import a file; with `dry_run` only count. Raises `BadLines` with everything that is wrong."""

    async def prepare(work: Work, _: Boxes | None) -> Change:
        reading = Reading()
        plain: dict[int, str] = {}
        await copy_in(work, _records(file, reading, plain, minimum_uid, told))
        told("checking", 0, 0)
        counts = await judge(work, update=update)
        problems = reading.problems + [Problem(*one) for one in counts.problems]
        change = _change(counts, reading, dry_run=dry_run)
        change.result["refused"] = len({one.line for one in problems})
        if problems and not dry_run:
            raise BadLines(path, sorted(problems))
        change.notes += [f"{path}:{one}" for one in sorted(problems)]
        if dry_run:
            return change
        if plain:
            await take_hashes(work, await _hashes(path, plain, told))
        await give_numbers(
            work,
            lambda number: free_uid(work, minimum_uid, uid_taken, number),
            lambda number: free_gid(work, gid_taken, number),
        )
        await write(work, HOLD, lambda done, all_of_it: told("writing", done, all_of_it))
        return change

    return prepare


def _records(
    file: IO[str], reading: Reading, plain: dict[int, str], minimum_uid: int, told: Progress
) -> Iterator[tuple[Any, ...]]:
    for count, line in enumerate(read(file, reading)):
        if count % TOLD_EVERY == 0:
            told("reading", count, 0)
        values = line.values
        uid = values.get("uid")
        if isinstance(uid, int) and uid < minimum_uid:
            text = f"is below postfix.virtual_minimum_uid ({minimum_uid})"
            reading.problems.append(Problem(line.number, "uid", text))
            continue
        if PLAIN in values:
            plain[line.number] = str(values[PLAIN])
        more = {"line": line.number, "has_plain": PLAIN in values}
        yield tuple((values | more).get(column) for column in COLUMNS)


async def _hashes(path: Path, plain: dict[int, str], told: Progress) -> list[tuple[int, str]]:
    scheme = default_scheme()
    done: list[tuple[int, str]] = []
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = [
            (line, loop.run_in_executor(threads, make, password.encode("utf-8", "surrogateescape"), scheme))
            for line, password in plain.items()
        ]
        problems = []
        try:
            for line, hashed in waiting:
                try:
                    done.append((line, await hashed))
                except ValueError as error:
                    problems.append(Problem(line, PLAIN, str(error)))
                told("hashing", len(done), len(plain))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    if problems:
        raise BadLines(path, problems)
    return done


def _change(counts: Counts, reading: Reading, *, dry_run: bool) -> Change:
    change = Change({"new": counts.new, "changed": counts.changed, "same": counts.same}, keeps=True)
    would = "would be " if dry_run else ""
    for kind in (one for one in KINDS if one in counts.new):
        change.said.append(
            f"{kind}: {would}{counts.new[kind]} new, {counts.changed[kind]} changed, "
            f"{counts.same[kind]} the same"
        )
    if reading.respelt:
        change.notes.append(
            f"{reading.respelt} names are stored in lower case and NFC, as Postfix asks for them"
        )
    if counts.new.get("account") and not dry_run:
        change.notes.append("their mailbox folders: `mailmaps maildirs --apply`, as root")
    return change
