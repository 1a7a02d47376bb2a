"""Kills writers of a mirror's file at any moment, and looks what they left: `--rounds 1000 --seed 3`.

A program of its own, as it forks. Ends with 1 when a file is not sound, or is not as it was after one of the
changes, or has lost one that its writer knew to be done.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mailmaps.mirrors.file import MirrorFile

IDENTITY = "a database, a view"
NUMBER = b"the number of the last change"
SLOT = struct.Struct("=Q")
Rows = dict[bytes, bytes]


def apply(number: int, rows: Rows) -> dict[bytes, bytes | None]:
    """What the change of this number does to the rows."""
    rng = random.Random(number)
    changes: dict[bytes, bytes | None] = {NUMBER: b"%d" % number}
    for _ in range(rng.choice((1, 1, 1, 5, 50, 400))):
        key = b"%x@ex.test" % rng.randrange(3000)
        changes[key] = None if rng.random() < 0.4 else rng.randbytes(rng.choice((0, 10, 30, 30, 3000)))
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row
    return changes


def write(path: Path, number: int, rows: Rows, done: mmap.mmap) -> None:
    """Change, checkpoint, close, open and build anew, until killed."""
    rng = random.Random()
    file = MirrorFile.open(path, IDENTITY)
    while True:
        number += 1
        file.change(apply(number, rows))
        SLOT.pack_into(done, 0, number)
        what = rng.random()
        if what < 0.05:
            asyncio.run(file.checkpoint())
        elif what < 0.1:
            file.proven(time.time())
        elif what < 0.13:
            file.close()
            file = MirrorFile.open(path, IDENTITY)
        elif what < 0.2:
            file.close()
            builder = MirrorFile.build(path, IDENTITY)
            builder.append(sorted(rows.items()))
            file = builder.finish()


def run(path: Path, rounds: int, rng: random.Random) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    rows: Rows = {NUMBER: b"0"}
    builder = MirrorFile.build(path, IDENTITY)
    builder.append(sorted(rows.items()))
    builder.finish().close()
    number = 0
    done = mmap.mmap(-1, SLOT.size)
    for _ in range(rounds):
        SLOT.pack_into(done, 0, number)
        child = os.fork()
        if child == 0:
            write(path, number, rows, done)
        enough, give_up = number + rng.choice((0, 1, 5, 30)), time.monotonic() + 1
        while SLOT.unpack_from(done)[0] < enough and time.monotonic() < give_up:
            time.sleep(0.0005)
        time.sleep(rng.choice((0.0005, 0.002, 0.02)) * rng.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        file = MirrorFile.open(path, IDENTITY)
        found = dict(file.after(None, 1_000_000))
        last = int(found[NUMBER])
        (known,) = SLOT.unpack_from(done)
        assert last in (known, known + 1), f"{known} changes were done, {last} are there"
        outcomes["none" if last == number else "some"] += 1
        while number < last:
            number += 1
            apply(number, rows)
        assert found == rows, f"not as after change {last}"
        file.close()
        left = {entry.name for entry in path.parent.iterdir()} - {path.name, path.name + ".sum"}
        assert not left, left
    outcomes["changes"] = number
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcomes = run(Path(name) / "file", arguments.rounds, random.Random(arguments.seed))
    sys.stdout.write(f"{dict(outcomes)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
