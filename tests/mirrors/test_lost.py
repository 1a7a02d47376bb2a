"""A file that had to be closed costs its rows until they are read again, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mailmaps.mirrors.file import Lost, MirrorFile
from mailmaps.mirrors.mirror import Mirror


def read(mirror: Mirror) -> None:
    reading = mirror.begin_reading()
    reading.take([(b"a@a.b", b"x"), (b"b@a.b", b"y")])
    mirror.end_reading(reading, 1.0)


def test_a_lost_file_is_made_anew(tmp_path: Path) -> None:
    mirror = Mirror("public.v", "one", replace={})
    mirror.open(tmp_path / "v.lmdb")
    read(mirror)
    assert mirror.get(b"a@a.b") == b"x"
    told: list[bool] = []
    mirror.changed.add(lambda: told.append(mirror.is_held))
    file = mirror._file
    assert file is not None
    mirror._file = LosingFile(file)  # type: ignore[assignment]
    mirror.refresh({"a@a.b": b"z"}, {"a@a.b"})
    file.close()
    assert not mirror.is_held
    assert mirror.unread
    assert told
    assert mirror.get(b"a@a.b") is None
    read(mirror)
    assert mirror.get(b"a@a.b") == b"x"
    mirror.close()


class LosingFile:
    """Loses itself at the next change."""

    def __init__(self, file: MirrorFile) -> None:
        self._file = file

    def change(self, rows: Mapping[bytes, bytes | None]) -> int:
        raise Lost("closed for want of address space")

    def proven(self, at: float) -> None:
        self._file.proven(at)
