"""Postfix's own readers and our writer on one lmdb: file, for as long as you like: `--seconds 180 --seed 3`.

What generation g of the file does is a function of g, so every answer can be judged to the byte: by when the
question was sent and when its answer came, a key has one of few values, and no reader ever goes back. The
writer is killed and started anew, readers are stopped inside their lookups, the file grows beyond the map of
everybody who reads it, shrinks, and is replaced by another.

A program of its own, as it forks. Ends with 1 and a line for each fault when a reader saw what it must not
see, crashed or complained, or when a killed writer left a file that is not sound or lost what it had
committed. `--without-locks` leaves out what `mailmaps.filemaps.locks` does: then it has to find faults.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from mailmaps.filemaps import lmdb_file
from mailmaps.filemaps.lmdb_file import Access
from mailmaps.filemaps.maps import LmdbMap
from mailmaps.filemaps.postmap import Postmap
from mailmaps.mirrors.soundness import check_pages

READERS = 4
SMALLEST_MAP = 1 << 20
RELATED = [b"related%d@ex.test" % number for number in range(5)]  # all set by each transaction
STATIC = [b"static%d@ex.test" % number for number in range(200)]
COMING = [b"coming%d@ex.test" % number for number in range(2000)]  # and going
BIG = [b"big%05d@ex.test" % number for number in range(12_000)]
NEVER = [b"never%d@ex.test" % number for number in range(200)]
PAD = b"pad@ex.test"  # its value is longer than postmap's buffer, so asking for it twice has all written out
PAD_VALUE = b"x" * 9000

# Generations: the file grows for so many, rests, shrinks, and is replaced; the rest are small ones.
CYCLE, GROWING, BIG_AT_ONCE = 240, 60, 200
REPLACED = (100, 190, 239)

Rows = dict[bytes, bytes]
Change = dict[bytes, bytes | None]


def value_of(key: bytes, generation: int) -> bytes:
    """A value that can be of this key and generation only."""
    seed = zlib.crc32(b"%d %b" % (generation, key))
    length = 4000 if key.startswith(b"big") else seed % 97
    return b"%d %08x %b" % (generation, seed, b"%08x" % seed * (length // 8))


def static_rows() -> Rows:
    return {PAD: PAD_VALUE} | {key: value_of(key, 0) for key in STATIC}


def change_of(generation: int) -> Change:
    """What a generation changes."""
    rng = random.Random(generation)
    step = generation % CYCLE
    set_keys, removed = list(RELATED), set[bytes]()
    if step < GROWING:
        set_keys += BIG[step * BIG_AT_ONCE : (step + 1) * BIG_AT_ONCE]
    elif 2 * GROWING <= step < 3 * GROWING:
        first = (step - 2 * GROWING) * BIG_AT_ONCE
        removed.update(BIG[first : first + BIG_AT_ONCE])
    for key in rng.sample(COMING, rng.choice((1, 1, 3, 20, 200))):
        if rng.random() < 0.5:
            removed.add(key)
        else:
            set_keys.append(key)
    return dict.fromkeys(removed) | {key: value_of(key, generation) for key in set_keys}


class History:
    """What each key has been, up to a generation."""

    def __init__(self) -> None:
        self.generation = 0
        self._since: dict[bytes, list[int]] = {}
        self._there: dict[bytes, list[bool]] = {}

    def go_on(self, generation: int) -> None:
        while self.generation < generation:
            self.generation += 1
            for key, value in change_of(self.generation).items():
                self._since.setdefault(key, [0]).append(self.generation)
                self._there.setdefault(key, [False]).append(value is not None)

    def states(self, key: bytes, low: int, high: int) -> Iterator[tuple[int, bytes | None]]:
        """What it may have been between two generations, both included, and since when."""
        if key not in self._since:
            is_static = key.startswith(b"static") or key == PAD
            yield 0, static_rows()[key] if is_static else None
            return
        since, there = self._since[key], self._there[key]
        for place in range(bisect_right(since, low) - 1, bisect_right(since, high)):
            yield since[place], value_of(key, since[place]) if there[place] else None

    def rows(self, generation: int) -> Rows:
        """All that is there."""
        found = static_rows()
        for key in self._since:
            ((_, value),) = self.states(key, generation, generation)
            if value is not None:
                found[key] = value
        return found


class Board:
    """Numbers that the processes share, each written by one of them at a time."""

    BEGUN, COMMITTED, FILES, STOP, LARGEST, SLOWEST = range(6)
    _FILES, _MOST = 8, 4000

    def __init__(self) -> None:
        self.numbers = memoryview(mmap.mmap(-1, 8 * (self._FILES + 2 * self._MOST))).cast("Q")

    def __getitem__(self, place: int) -> int:
        return self.numbers[place]

    def __setitem__(self, place: int, number: int) -> None:
        self.numbers[place] = number

    def put_file(self, generation: int, inode: int) -> None:
        """From this generation on, the file will be another."""
        place = self._FILES + 2 * self[self.FILES]
        self[place], self[place + 1] = generation, inode
        self[self.FILES] += 1

    def files(self) -> list[tuple[int, int]]:
        """First generation and inode of each."""
        places = range(self._FILES, self._FILES + 2 * self[self.FILES], 2)
        return [(self[place], self[place + 1]) for place in places]


class Told(LmdbMap):
    """A map that tells which file it puts in place."""

    def __init__(self, path: Path, board: Board) -> None:
        super().__init__(path, Access(0o644, os.geteuid(), os.getegid()), Postmap(Path("/nowhere")))
        self._board = board

    def put_in_place(self, made: Path) -> None:
        self._board.put_file(self._board[Board.BEGUN], made.stat().st_ino)
        super().put_in_place(made)


@dataclass(frozen=True)
class Ground:
    """What all processes know."""

    path: Path  # without its suffix
    board: Board
    faults: Path
    locks: bool

    @property
    def file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lmdb")

    def fault(self, text: str) -> None:
        with self.faults.open("a") as file:
            file.write(f"{text[:300]}\n")


def write(ground: Ground) -> None:
    """Write, with a map that has to grow like those of the readers."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(lmdb_file, "SMALLEST_MAP", SMALLEST_MAP))
        if not ground.locks:
            stack.enter_context(patch.object(lmdb_file, "writing", _no_lock))
        _write(ground)


def _write(ground: Ground) -> None:
    """Go on from what is in the file, until killed."""
    board = ground.board
    file = Told(ground.path, board)
    assert file.open(), "there is no file"
    history = History()
    generation = int(file.get_all(RELATED)[RELATED[0]].split()[0])
    history.go_on(generation)
    while not board[Board.STOP]:
        generation += 1
        board[Board.BEGUN] = generation
        history.go_on(generation)
        began = time.monotonic()
        assert file.open(), "the file is gone"
        if generation % CYCLE in REPLACED:
            rows = history.rows(generation)
            lost = file.replace(lambda rows=rows: sorted(rows.items()))  # type: ignore[misc]
            assert not lost, f"replaced, without {lost}"
        else:
            file.change(change_of(generation))
            board[Board.SLOWEST] = max(board[Board.SLOWEST], int(1000 * (time.monotonic() - began)))
        board[Board.COMMITTED] = generation
        board[Board.LARGEST] = max(board[Board.LARGEST], ground.file.stat().st_size)
    file.close()


@contextmanager
def _no_lock(_: int) -> Iterator[None]:
    yield


class Reader:
    """One `postmap -q -`, asked and judged."""

    def __init__(self, ground: Ground, history: History, rng: random.Random) -> None:
        self._ground, self._history, self._rng = ground, history, rng
        self._told = tempfile.TemporaryFile()  # noqa: SIM115
        self._newest_file = len(ground.board.files()) - 1 if ground.board[Board.COMMITTED] else 0
        self.process = subprocess.Popen(
            ["postmap", "-q", "-", f"lmdb:{ground.path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
        )
        self._low = 0
        self._place: int | None = None
        self._skip = False

    def ask(self, count: int) -> int:
        """Ask random keys at once; how many answers were judged. Raises EOFError when the reader is gone."""
        assert self.process.stdin is not None
        board, kinds = self._ground.board, (RELATED, STATIC, COMING, BIG, NEVER)
        keys = [self._rng.choice(kinds[self._rng.randrange(5)]) for _ in range(count)]
        low = max(self._low, self._bound(board[Board.COMMITTED]))
        try:
            self.process.stdin.write(b"".join(key + b"\n" for key in (*keys, PAD, PAD)))
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        if self._skip and self._line() != b"%b\t%b\n" % (PAD, PAD_VALUE):
            self._ground.fault("a second pad is missing")
        self._skip = True
        answers: list[tuple[bytes, bytes]] = []
        while True:
            key, _, value = self._line().removesuffix(b"\n").partition(b"\t")
            answers.append((key, value))
            if key == PAD:
                break
        self._history.go_on(board[Board.BEGUN])
        if self._place is None:
            self._find_place()
            low = max(low, self._bound(low))
        if self._place is not None:
            low = max(self._low, self._bound(low))
        self._low = self._judge([*keys, PAD], answers, low)
        return len(keys) + 2

    def end(self) -> None:
        """Close the pipe; it has to end as it should."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.read()
        code = self.process.wait(30)
        self.process.stdout.close()
        self._told.seek(0)
        if (told := self._told.read().decode(errors="replace")) or code:
            self._ground.fault(f"a reader ended with {code}: {told}")
        self._told.close()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()).endswith(b"\n"):
            raise EOFError
        return line

    def _find_place(self) -> None:
        """Which of the files it has open."""
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                status, target = fd.stat(), str(fd.readlink())
            except FileNotFoundError:
                continue
            if ".lmdb" in target:
                inodes = [inode for _, inode in self._ground.board.files()]
                self._place = len(inodes) - 1 - inodes[::-1].index(status.st_ino)
                if self._place < self._newest_file:
                    self._ground.fault(f"a new reader has file {self._place}, not {self._newest_file}")

    def _bound(self, generation: int) -> int:
        """The last generation of its file up to this one."""
        if self._place is None:
            return 0
        files = self._ground.board.files()
        after = files[self._place + 1][0] if self._place + 1 < len(files) else generation + 1
        return min(generation, after - 1)

    def _judge(self, keys: list[bytes], answers: list[tuple[bytes, bytes]], low: int) -> int:
        high = self._bound(self._history.generation) or self._history.generation
        rest = iter(answers)
        answer = next(rest)
        for key in keys:
            found = None
            if answer[0] == key:
                found = answer[1]
                answer = next(rest, (b"", b""))
            since = [since for since, value in self._history.states(key, low, high) if value == found]
            if not since:
                self._ground.fault(f"{key!r} between {low} and {high} (file {self._place}): {found!r}")
            else:
                low = max(low, since[0])
        if answer[0]:
            self._ground.fault(f"an answer that nobody asked for: {answer!r}")
        return low


def read(ground: Ground, seed: int, seconds: float, counts: memoryview) -> None:
    """Reader after reader, each for a while."""
    rng, history = random.Random(seed), History()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader = Reader(ground, history, rng)
        counts[1] = reader.process.pid
        ends = time.monotonic() + rng.choice((0.3, 3, 10))
        try:
            while time.monotonic() < min(end, ends):
                counts[0] += reader.ask(rng.choice((1, 30, 300)))
        except EOFError:
            pass  # `end` tells
        counts[1] = 0
        reader.end()
        counts[2] += 1


def fork(do: Callable[[], None], ground: Ground, what: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        do()
    except BaseException as error:
        ground.fault(f"{what}: {error!r}")
        os._exit(3)
    os._exit(0)


def check_left(ground: Ground, history: History) -> int:
    """What a killed writer has left; the generation that it is of."""
    board, path = ground.board, ground.file
    check_pages(path)
    files = board.files()
    if files[-1][1] != path.stat().st_ino:  # killed before it was in place
        board[Board.FILES] -= 1
        assert board.files()[-1][1] == path.stat().st_ino, "a file that nobody has made"
    file = Told(ground.path, board)
    file.open()
    found = dict(file.rows())
    file.close()
    generation = int(found[RELATED[0]].split()[0])
    known = (board[Board.COMMITTED], board[Board.BEGUN])
    assert known[0] <= generation <= known[1], f"{known} were committed and begun, {generation} is there"
    history.go_on(generation)
    assert found == history.rows(generation), f"not as generation {generation}"
    board[Board.COMMITTED] = generation
    return generation


def stop_for_a_while(pid: int, seconds: float) -> bool:
    """Stop a reader; whether that was inside a lookup, so that it was for so long, and not for a moment."""
    inside = False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            inside = any(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines())
            time.sleep(seconds if inside else 0)
        finally:
            os.kill(pid, signal.SIGCONT)
    return inside


def run(
    folder: Path, seconds: float, rng: random.Random, *, locks: bool = True
) -> tuple[Counter[str], list[str]]:
    """Hammer; what was done, and the faults."""
    ground = Ground(folder / "hammered", Board(), folder / "faults", locks)
    board, history, done = ground.board, History(), Counter[str]()
    history.go_on(1)
    board[Board.BEGUN] = 1
    first = Told(ground.path, board)
    assert first.replace(lambda: sorted(history.rows(1).items())) == []
    first.close()
    board[Board.COMMITTED] = 1
    counts = memoryview(mmap.mmap(-1, 24 * READERS)).cast("Q")
    end = time.monotonic() + seconds
    readers = []
    for number in range(READERS):
        slots = counts[3 * number : 3 * number + 3]
        readers.append(fork(partial(read, ground, rng.randrange(1 << 32), seconds, slots), ground, "a judge"))
    writer, smallest = 0, 1 << 62
    try:
        while time.monotonic() < end and not (ground.faults.exists() and not locks):
            writer = fork(partial(write, ground), ground, "the writer")
            killed = min(end, time.monotonic() + rng.choice((0.05, 0.3, 1, 4)) * (0.5 + rng.random()))
            while time.monotonic() < killed:
                pid = counts[3 * rng.randrange(READERS) + 1]
                if pid and stop_for_a_while(pid, rng.choice((0.001, 0.02) if locks else (0.05, 0.1))):
                    done["stopped in a lookup"] += 1
                time.sleep(0.001 * rng.random())
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            writer = 0
            done["killed"] += 1
            try:
                check_left(ground, history)
            except Exception as error:
                ground.fault(f"after a kill: {error!r}")
                break
            size = ground.file.stat().st_size
            smallest = min(smallest, size) if board[Board.LARGEST] > 32 << 20 else smallest
    finally:
        if writer:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        _reap(readers, counts, ground)
    done["transactions"] = board[Board.COMMITTED]
    done["files"] = board[Board.FILES]
    done["lookups"] = sum(counts[0::3])
    done["readers"] = sum(counts[2::3])
    done["largest MiB"] = board[Board.LARGEST] >> 20
    done["smallest MiB after that"] = smallest >> 20 if smallest < 1 << 62 else 0
    done["slowest change, ms"] = board[Board.SLOWEST]
    left = [path.name for path in folder.glob(".*")]
    done["left over by kills"] = len(left)
    faults = ground.faults.read_text(errors="replace").splitlines() if ground.faults.exists() else []
    return done, faults


def _reap(readers: list[int], counts: memoryview, ground: Ground) -> None:
    """The judges end by themselves; one that does not is a fault."""
    waited = time.monotonic() + (60 if ground.locks else 0.2)
    for number, child in enumerate(readers):
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > waited:
                if ground.locks:
                    ground.fault("a reader does not answer")
                if pid := counts[3 * number + 1]:
                    os.kill(pid, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-locks", action="store_true")
    parser.add_argument("--folder", help="on another file system, where a transaction takes less")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailmaps-hammer-", dir=arguments.folder) as name:
        done, faults = run(
            Path(name), arguments.seconds, random.Random(arguments.seed), locks=not arguments.without_locks
        )
    sys.stdout.write(f"{dict(done)}\n{len(faults)} faults\n")
    sys.stdout.writelines(f"{fault}\n" for fault in faults[:20])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
