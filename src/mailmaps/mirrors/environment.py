"""LMDB as mirrors use it: one file, no name, no locks, no syncing, and a map that grows by itself.

Data format 1 (LMDB 0.9), which Postfix reads; LMDB 1.0 writes another. Only files that are sound are opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lmdb

# Bytes of address space at first, which cost nothing; doubled whenever they do not suffice.
SMALLEST_MAP = 256 << 20

_FORMAT = 0


class DiskTrouble(Exception):
    """The file cannot be mapped or written, for want of room perhaps; its rows are as they were."""


class Lost(Exception):
    """The file had to be closed: its rows can no longer be read, and another must be made."""


class Unsound(Exception):
    """A file is missing, not ours or not in order, and has not been opened. The text says why."""


def open_environment(path: Path, room: int, *, is_new: bool = False, sync: bool = False) -> lmdb.Environment:
    """Map `room` bytes, or as many as the file has. Raises `DiskTrouble`."""
    name = str(path)
    try:
        if is_new and hasattr(lmdb.Environment, "lib_version"):  # py-lmdb 3, which knows both formats
            return lmdb.Environment(
                name, room, subdir=False, lock=False, sync=sync, metasync=sync, lib_version=_FORMAT
            )
        return lmdb.Environment(name, room, subdir=False, lock=False, sync=sync, metasync=sync)
    except lmdb.Error as error:
        raise DiskTrouble(str(error)) from error


def write(env: lmdb.Environment, apply: Callable[[lmdb.Transaction[bytes]], None]) -> None:
    """Run `apply` in a transaction, once more in a larger map if need be. No other transaction may be open.

    Raises `DiskTrouble`. The environment may then be of no use any more, not even for reading.
    """
    while True:
        try:
            with env.begin(write=True) as transaction:
                apply(transaction)
            return
        except lmdb.MapFullError:
            _grow(env)
        except lmdb.Error as error:
            raise DiskTrouble(str(error)) from error


def _grow(env: lmdb.Environment) -> None:
    room = env.info()["map_size"]
    try:
        env.set_mapsize(2 * room)
    except (lmdb.Error, OverflowError) as error:
        env.close()  # it has no map any more (mdb_env_set_mapsize): the next access would be our last
        raise DiskTrouble(f"no address space for a map of {2 * room} bytes: {error}") from error
