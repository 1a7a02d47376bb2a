"""Damages mirrors' files in every way, opens them, and writes to those that are taken for sound.

A file that is opened although it should not be may end the process (SIGBUS, SIGSEGV, an assertion of LMDB's),
so this is a program of its own: `python -m tests.mirrors.mutations --count 100000 --seed 7`. It ends with 1
when a file gives rows it never had, or anything but `Unsound` is raised, and by a signal when LMDB does.
The last line then names the seed of the case, to be run again with `--count 1`.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mailmaps.mirrors import sidecar
from mailmaps.mirrors.file import MirrorFile, Unsound

PAGE = os.sysconf("SC_PAGE_SIZE")
IDENTITY = "a database, a view"
Rows = dict[bytes, bytes]


@dataclass(frozen=True)
class Sample:
    """A sound file after changes that no checkpoint followed: only a walk tells that it is sound."""

    data: bytes
    before: bytes  # as it was a few changes ago
    sidecar: bytes  # of that time
    states: list[Rows]  # the rows after each change, then and now included
    new_key: Callable[[random.Random], bytes]
    new_value: Callable[[random.Random], bytes]


def make_samples(directory: Path) -> list[Sample]:
    """Short rows; long keys, and so a deep tree; values with pages of their own; hardly a row."""
    return [
        _sample(directory, "short", 1500, _key(30), lambda rng: rng.randbytes(25)),
        _sample(directory, "deep", 300, _key(480), lambda rng: rng.randbytes(9)),
        _sample(
            directory, "big", 40, _key(20), lambda rng: rng.randbytes(rng.choice((0, 3, 2100, 5000, 20000)))
        ),
        _sample(directory, "tiny", 1, _key(3), lambda rng: b"row"),
    ]


def _key(longest: int) -> Callable[[random.Random], bytes]:
    return lambda rng: bytes(rng.choices(b"abcdefgh@.", k=rng.randint(longest // 2, longest)))


def _sample(
    directory: Path,
    name: str,
    count: int,
    new_key: Callable[[random.Random], bytes],
    new_value: Callable[[random.Random], bytes],
) -> Sample:
    rng = random.Random(name)
    path = directory / name
    rows = {new_key(rng): new_value(rng) for _ in range(count)}
    builder = MirrorFile.build(path, IDENTITY)
    builder.append(sorted(rows.items()))
    builder.finish().close()
    file = MirrorFile.open(path, IDENTITY)
    before, summary = path.read_bytes(), sidecar.path_of(path).read_bytes()
    sample = Sample(b"", before, summary, [dict(rows)], new_key, new_value)
    for _ in range(8):
        change_some(file, sample, rows, rng)
        sample.states.append(dict(rows))
    data = path.read_bytes()
    file.close()
    return replace(sample, data=data)


def change_some(file: MirrorFile, sample: Sample, rows: Rows, rng: random.Random) -> None:
    """Set, add and delete some, in `rows` too."""
    keys = rng.sample(sorted(rows), len(rows) // 10)
    changes: dict[bytes, bytes | None] = {
        key: None if rng.random() < 0.5 else sample.new_value(rng) for key in keys
    }
    changes |= {sample.new_key(rng): sample.new_value(rng) for _ in keys}
    file.change(changes)
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


Data = bytearray


def flip_bits(data: Data, sample: Sample, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8, 100))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_in_meta(data: Data, sample: Sample, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        data[rng.randrange(2) * PAGE + rng.randrange(152)] ^= 1 << rng.randrange(8)


def flip_in_headers(data: Data, sample: Sample, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        data[_page(data, rng) + rng.randrange(40)] ^= 1 << rng.randrange(8)


def set_number(data: Data, sample: Sample, rng: random.Random) -> None:
    """A likely wrong number where numbers are: in headers of pages, of nodes and in lists of free pages."""
    number = rng.choice((0, 1, 2, 3, 8, 16, len(data) // PAGE, len(data), PAGE, (1 << 64) - 1, 1 << 40))
    size, form = rng.choice(((2, "=H"), (4, "=I"), (8, "=Q")))
    at = _page(data, rng) + rng.choice((0, 8, 10, 12, 14, 16, rng.randrange(PAGE // 2 - 4) * 2))
    data[at : at + size] = struct.pack(form, number % (1 << 8 * size))


def set_byte(data: Data, sample: Sample, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def zero_page(data: Data, sample: Sample, rng: random.Random) -> None:
    at = _page(data, rng)
    data[at : at + PAGE] = bytes(PAGE)


def random_page(data: Data, sample: Sample, rng: random.Random) -> None:
    at = _page(data, rng)
    data[at : at + PAGE] = rng.randbytes(PAGE)


def copy_page(data: Data, sample: Sample, rng: random.Random) -> None:
    """Another page in the place of one, with the right number or its own."""
    source, at = _page(data, rng), _page(data, rng)
    keep = rng.choice((0, 8))
    data[at + keep : at + PAGE] = data[source + keep : source + PAGE]


def old_page(data: Data, sample: Sample, rng: random.Random) -> None:
    """As after a crash of the machine: some pages never reached the disk."""
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = _page(data, rng)
        data[at : at + PAGE] = sample.before[at : at + PAGE].ljust(PAGE, b"\0")


def swap_metas(data: Data, sample: Sample, rng: random.Random) -> None:
    data[: 2 * PAGE] = data[PAGE : 2 * PAGE] + data[:PAGE]


def old_meta(data: Data, sample: Sample, rng: random.Random) -> None:
    """The newer meta page was not written, but other pages were."""
    at = rng.randrange(2) * PAGE
    data[at : at + PAGE] = sample.before[at : at + PAGE]


def truncate(data: Data, sample: Sample, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def truncate_pages(data: Data, sample: Sample, rng: random.Random) -> None:
    del data[_page(data, rng) :]


def extend(data: Data, sample: Sample, rng: random.Random) -> None:
    size = rng.choice((1, 100, PAGE, 10 * PAGE))
    data += rng.choice((bytes(size), rng.randbytes(size)))


def nothing(data: Data, sample: Sample, rng: random.Random) -> None:
    pass


def _page(data: Data, rng: random.Random) -> int:
    return rng.randrange(len(data) // PAGE) * PAGE


MUTATIONS = (
    flip_bits, flip_bits, flip_in_meta, flip_in_headers, flip_in_headers, set_number, set_number, set_byte,
    zero_page, random_page, copy_page, old_page, swap_metas, old_meta, truncate, truncate_pages, extend,
    nothing,
)  # fmt: skip


def run(path: Path, samples: list[Sample], seed: int) -> str:
    """One case: what became of it."""
    rng = random.Random(seed)
    sample = rng.choice(samples)
    data = bytearray(sample.data)
    mutations = rng.choices(MUTATIONS, k=rng.choice((1, 1, 1, 2)))
    for mutate in mutations:
        if len(data) >= 2 * PAGE:
            mutate(data, sample, rng)
    path.write_bytes(data)
    sidecar.path_of(path).write_bytes(sample.sidecar)
    name = "+".join(mutate.__name__ for mutate in mutations)
    try:
        file = MirrorFile.open(path, IDENTITY)
    except Unsound as error:
        return f"{name}: {str(error).translate(_NO_DIGITS)}"
    # Without its newer meta page, a file is what it was before the last change.
    found = dict(file.after(None, len(file) + 1))
    rows = next(dict(rows) for rows in sample.states if rows == found)
    _compare(file, rows)
    for _ in range(5):
        change_some(file, sample, rows, rng)
        _compare(file, rows)
    file.close()
    file = MirrorFile.open(path, IDENTITY)
    _compare(file, rows)
    file.close()
    return f"{name}: sound"


_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"), "")


def _compare(file: MirrorFile, rows: Rows) -> None:
    assert len(file) == len(rows)
    assert file.after(None, len(rows) + 1) == sorted(rows.items())
    assert all(file.get(key) == row for key, row in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        samples = make_samples(directory)
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            os.write(2, b"\r%d" % seed)
            outcomes[run(directory / "case", samples, seed)] += 1
    sys.stdout.writelines(f"{count:7} {outcome}\n" for outcome, count in sorted(outcomes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
