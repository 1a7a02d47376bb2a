"""Asks a real `postmap -q`, and our reading of the same files, the very same keys.

An answer is the value (bytes), None for "not found", or `TROUBLE` for "nobody can say".
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from tests.system.postfix import SEARCH_PATH

from mailmaps.config import parse
from mailmaps.maps.address import fold, is_well_formed
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.sources import Source
from mailmaps.tableset import TableSet

MAIL_VERSION = "3.7.11"
"""Debian 12's: it speaks LATIN1 to PostgreSQL whatever the file says."""

TROUBLE = "cannot say"
Answer = bytes | str | None

AT_ONCE = 64
"""Processes for single keys; one that fails sleeps for a second first (msg_fatal)."""

FILES_AT_ONCE = 3
"""While postmap works on one file, we do on another."""


class Postmap:
    """`postmap` with a configuration folder of its own; gone after `with`."""

    def __init__(self, main_cf: Mapping[str, str] | None = None, *, smtputf8: bool = True) -> None:
        """`main_cf` are lines beside those that keep it from the system's Postfix."""
        self.folder = Path(tempfile.mkdtemp(prefix="mailmaps-postmap-", dir="/tmp"))
        self.smtputf8 = smtputf8
        lines = {
            "compatibility_level": "3.6",
            "smtputf8_enable": "yes" if smtputf8 else "no",
            "queue_directory": str(self.folder),
            **(main_cf or {}),
        }
        self.write("main.cf", "".join(f"{name} = {value}\n" for name, value in lines.items()))
        self.write("master.cf", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name: str, text: str | bytes) -> str:
        """Put a file there and return its path; dated back, or Postfix waits until it has cooled down."""
        file = self.folder / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(file, (0, 0))
        return str(file)

    def many(self, table: str, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Ask all keys in one process; raises `AssertionError` when it fails. No key twice, none with LF."""
        done = self._run(["-q", "-", table], b"".join(key + b"\n" for key in keys))
        error = done.stderr.decode(errors="replace")
        assert b"fatal:" not in done.stderr, f"{table}: postmap failed:\n{error[-600:]}"
        lines = iter(done.stdout.split(b"\n"))
        line = next(lines)
        found: dict[bytes, Answer] = {}
        for key in keys:  # answers come in the order of the keys, and only for those that are found
            if line.startswith(key + b"\t"):
                found[key] = line[len(key) + 1 :]
                line = next(lines)
            else:
                found[key] = None
        assert line == b"", f"an answer that nobody asked for: {line!r}"
        return found

    def one(self, table: str, key: bytes) -> Answer:
        """Ask one key in a process of its own."""
        done = self._run(["-q", key, table])
        if b"fatal:" in done.stderr:
            return TROUBLE
        return done.stdout.removesuffix(b"\n") if done.returncode == 0 else None

    def complaint(self, table: str, key: bytes = b"key@one.test") -> str:
        """What it says on standard error."""
        return self._run(["-q", key, table]).stderr.decode(errors="replace")

    async def singly(self, asked: Sequence[tuple[str, bytes]]) -> list[Answer]:
        """Ask each (table, key) in a process of its own, many at a time."""
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(table: str, key: bytes) -> Answer:
            async with room:
                return await asyncio.to_thread(self.one, table, key)

        return await asyncio.gather(*(ask(table, key) for table, key in asked))

    def _run(self, words: Sequence[str | bytes], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        program = shutil.which("postmap", path=SEARCH_PATH)
        assert program is not None, "postmap is not installed"
        command = [program, "-c", str(self.folder), *words]
        return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


@asynccontextmanager
async def our_reading(postmap: Postmap, names: Sequence[str]) -> AsyncIterator[dict[str, Source]]:
    """Our sources for `pgsql:` names, started, whatever PostgreSQL thinks of them. Raises `SettingsError`."""
    tables = TableSet(parse(_settings(postmap, names)))
    try:
        await tables.start()
        yield {name: tables.tables[f"t{number}"].sources[0] for number, name in enumerate(names)}
    finally:
        await tables.close()


def _settings(postmap: Postmap, names: Sequence[str]) -> str:
    sections = "".join(
        f'[tables.t{number}]\nparameter = "virtual_alias_maps"\nsources = ["{name}"]\n'
        for number, name in enumerate(names)
    )
    return (
        "builtin_tables = false\n[database]\nconnections = 2\n"
        f'[postfix]\nmail_version = "{MAIL_VERSION}"\nconfig_directory = "{postmap.folder}"\n{sections}'
    )


async def ask(source: Source, key: bytes, *, smtputf8: bool = True) -> Answer:
    """Our answer for exactly this key. `postmap -q` folds the key for `pgsql:` (DICT_FLAG_FOLD_FIX)."""
    text = key.decode(errors="surrogateescape")
    if smtputf8 and not is_well_formed(text):
        return None  # dict_utf8.c:144-152 never asks; here it is maps.lookup that does not
    folded = fold(text, smtputf8)
    try:
        values = (await source.fetch((folded,))).get(folded)
    except CannotSay:
        return TROUBLE
    if not values:
        return None
    value = ",".join(values)
    if smtputf8 and not is_well_formed(value):
        return TROUBLE  # dict_utf8.c:166-170; by tcp: and socketmap: Postfix itself finds out
    return value.encode(errors="surrogateescape")


async def differences(
    postmap: Postmap, keys: Mapping[str, Sequence[bytes]], *, trouble_sample: int = 5
) -> list[str]:
    """Ask both for all `keys` (by `pgsql:` name); a line for each difference.

    A failing key ends a `postmap`, so of the keys that fail here `trouble_sample` a name go singly.
    """
    found: list[str] = []
    singles: list[tuple[str, bytes]] = []
    room = asyncio.Semaphore(FILES_AT_ONCE)

    async def compare(name: str, source: Source, asked: Sequence[bytes]) -> None:
        async with room:
            mine = {key: await ask(source, key, smtputf8=postmap.smtputf8) for key in asked}
            sure = [key for key, answer in mine.items() if answer != TROUBLE]
            try:
                theirs = await asyncio.to_thread(postmap.many, name, sure)
            except AssertionError as error:
                found.append(str(error))
                return
        failing = [key for key, answer in mine.items() if answer == TROUBLE]
        sample = random.Random(Path(name).name).sample(failing, min(trouble_sample, len(failing)))
        singles.extend((name, key) for key in sample)
        found.extend(_told(name, key, theirs[key], mine[key]) for key in sure if theirs[key] != mine[key])

    async with our_reading(postmap, list(keys)) as sources:
        await asyncio.gather(*(compare(name, sources[name], asked) for name, asked in keys.items()))
    answers = await postmap.singly(singles)
    found += [
        _told(name, key, answer, TROUBLE)
        for (name, key), answer in zip(singles, answers, strict=True)
        if answer != TROUBLE
    ]
    return found


def _told(name: str, key: bytes, theirs: Answer, mine: Answer) -> str:
    return f"{Path(name).name} {key!r}\n  postmap:  {theirs!r}\n  mailmaps: {mine!r}"
