"""Our lock against Postfix's: whom it keeps out, whom it lets in, and until when."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.filemaps.holding import EXCLUSIVE, SHARED, held_by_another, is_free

from mailmaps.filemaps import locks
from mailmaps.filemaps.lmdb_file import Access, LmdbFile
from mailmaps.filemaps.locks import Locked, writing

KEY = b"a@ex.test"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "map.lmdb"
    made.write_bytes(b"x")
    return made


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LIMIT", 0.2)


def test_readers_come_in_and_writers_do_not(path: Path, fd: int) -> None:
    assert is_free(path, EXCLUSIVE)
    with writing(fd):
        assert is_free(path, SHARED)
        assert not is_free(path, EXCLUSIVE)
    assert is_free(path, EXCLUSIVE)


def test_it_is_let_go_after_trouble(path: Path, fd: int) -> None:
    with pytest.raises(ZeroDivisionError), writing(fd):
        raise ZeroDivisionError
    assert is_free(path, EXCLUSIVE)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", [SHARED, EXCLUSIVE])
def test_whoever_holds_it_is_waited_for_and_not_for_ever(path: Path, fd: int, kind: str) -> None:
    with held_by_another(path, kind):
        began = time.monotonic()
        with pytest.raises(Locked, match=r"more than 0\.2 s \(see lslocks\)"), writing(fd):
            pytest.fail("a writer beside another")
        assert 0.2 <= time.monotonic() - began < 5
    with writing(fd):
        pass


def test_it_has_its_turn_when_the_reader_ends(path: Path, fd: int) -> None:
    with held_by_another(path, SHARED) as reader:
        threading.Timer(0.3, reader.kill).start()
        began = time.monotonic()
        with writing(fd):
            assert 0.25 < time.monotonic() - began < 5


def test_a_reader_of_this_process_does_not_take_it_away(path: Path, fd: int) -> None:
    with writing(fd):
        os.close(os.open(path, os.O_RDWR))  # this would end a lock of fcntl(2)'s other kind
        path.read_bytes()
        assert not is_free(path, EXCLUSIVE)


@pytest.mark.usefixtures("soon")
def test_two_writers_of_one_process(path: Path, fd: int) -> None:
    other = os.open(path, os.O_RDWR)
    with writing(fd), pytest.raises(Locked), writing(other):
        pytest.fail("both at once")
    os.close(other)


@contextmanager
def lookups(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A postmap that never ends, always in a lookup or just before the next."""
    words = ["postmap", "-q", "-", f"lmdb:{path.with_suffix('')}"]
    with (
        subprocess.Popen(["yes", KEY.decode()], stdout=subprocess.PIPE) as keys,
        subprocess.Popen(words, stdin=keys.stdout, stdout=subprocess.DEVNULL) as postmap,
    ):
        try:
            yield postmap
        finally:
            keys.kill()
            postmap.kill()


@pytest.mark.postfix
class TestPostfix:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[LmdbFile]:
        file = LmdbFile(tmp_path / "map.lmdb", Access(0o644, os.geteuid(), os.getegid()))
        with file.made([(KEY, b"1")]) as made:
            file.put_in_place(made)
        yield file
        file.close()

    def ask(self, file: LmdbFile) -> bytes:
        words = ["postmap", "-q", KEY.decode(), f"lmdb:{file.path.with_suffix('')}"]
        return subprocess.run(words, capture_output=True, timeout=10, check=True).stdout

    def test_a_lookup_is_answered_while_a_writer_is_at_work(self, file: LmdbFile) -> None:
        with writing(file._fd):
            assert self.ask(file) == b"1\n"

    def test_postmap_waits_for_our_writer(self, file: LmdbFile) -> None:
        source = file.path.with_suffix("")
        source.write_text("b@ex.test 2\n")
        with writing(file._fd):
            postmap = subprocess.Popen(["postmap", f"lmdb:{source}"])
            with pytest.raises(subprocess.TimeoutExpired):
                postmap.wait(0.5)
            assert file.get_all([KEY]) == {KEY: b"1"}
        assert postmap.wait(10) == 0
        assert dict(file.rows()) == {b"b@ex.test\0": b"2\0"}

    @pytest.mark.usefixtures("soon")
    def test_our_writer_waits_for_postmap(self, file: LmdbFile) -> None:
        source = file.path.with_suffix("")
        os.mkfifo(source.with_name("source"))
        source.symlink_to("source")
        words = ["postmap", f"lmdb:{source}"]
        with subprocess.Popen(words) as postmap, source.open("wb") as text:
            text.write(b"b@ex.test 2\n")
            text.flush()
            while is_free(file.path, EXCLUSIVE):
                time.sleep(0.01)
            with pytest.raises(Locked):
                file.change({KEY: b"2"})
            assert self.ask(file) == b"1\n"
            text.close()
            assert postmap.wait(10) == 0

    @pytest.mark.usefixtures("soon")
    def test_no_transaction_begins_while_a_reader_is_in_a_lookup(self, file: LmdbFile) -> None:
        """Stop a real reader inside a lookup: it may still read pages that the next but one would take."""
        with lookups(file.path) as reader:
            stop_inside(reader.pid)
            for number in range(3):
                with pytest.raises(Locked):
                    file.change({KEY: b"%d" % number})
            assert file.get_all([KEY]) == {KEY: b"1"}
            reader.send_signal(signal.SIGCONT)
            file.change({KEY: b"2"})
            assert file.get_all([KEY]) == {KEY: b"2"}
            assert reader.poll() is None


def stop_inside(pid: int) -> None:
    """Stop a process while it holds its lock."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        os.kill(pid, signal.SIGSTOP)
        if any(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines()):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError("it is never inside")
