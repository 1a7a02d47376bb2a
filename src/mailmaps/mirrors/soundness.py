"""Whether a mirror's file can be mapped: LMDB believes what it reads, and a page that is not there is SIGBUS.

Checked by plain reads, before LMDB sees the file. The fast way: its digest is the one that its sidecar has,
so it is as we left it (0.1 s for 100 MB). The slow way, after a change that no checkpoint followed: all its
pages are walked, and its rows must add up to what the bookkeeping row says of them (1 s for a million rows).

Nothing here is protection against somebody who may write to the file; so nobody else must be able to.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, replace
from operator import gt
from pathlib import Path
from struct import Struct
from time import time

from mailmaps.mirrors import sidecar
from mailmaps.mirrors.bookkeeping import KEY, Bookkeeping, fingerprint
from mailmaps.mirrors.environment import Unsound
from mailmaps.mirrors.pages import METAS, Pages, Tree, Walk
from mailmaps.mirrors.sidecar import Sidecar

__all__ = ["Checked", "Unsound", "check", "check_pages"]

# mdb.c, MDB_meta in its page: number and flags of the page, magic, version, size of the map; the tree of free
# pages (its pad is the page size) and that of rows; the last page, the transaction.
_HEAD = Struct("=Q2xH4x II8xQ")
_TREE = Struct("=IHH5Q")
_TAIL = Struct("=QQ")
_META_SIZE = _HEAD.size + 2 * _TREE.size + _TAIL.size
_NUMBER = Struct("=Q")
_META_PAGE = 8  # P_META
_MAGIC = 0xBEEFC0DE
_VERSION = 1
_NO_SUB_DIR, _INTEGER_KEY = 0x4000, 0x08  # flags of an environment, kept with those of its free pages

# LMDB's pages are the system's, but no larger than its offsets can tell (mdb.c, MAX_PAGESIZE).
_PAGE_SIZE = min(os.sysconf("SC_PAGE_SIZE"), 0x8000)

# Pages by which a file may be shorter than it says (the last were freed by the transaction that took them,
# and never written) or longer (a writer was killed before the end of a transaction).
_SLACK = 65536
_LARGEST_MAP = (1 << 47) // _PAGE_SIZE  # no address space has room for more


@dataclass(frozen=True, slots=True)
class Checked:
    """A sound file. `fd` holds its lock; `sidecar` fits it, and `is_new` if it is not the one on disk."""

    fd: int
    sidecar: Sidecar
    is_new: bool
    proven_at: float | None


@dataclass(frozen=True, slots=True)
class _Meta:
    """What the newer meta page says: `pages` have been in use."""

    pages: int
    txnid: int
    free: Tree
    main: Tree


def check(path: Path, identity: str) -> Checked:
    """Look at the file with every suspicion. Raises `Unsound`, and nothing else."""
    try:
        fd = _open(path)
        try:
            return _check(fd, path, identity)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise Unsound(error.strerror or str(error)) from error


def _open(path: Path) -> int:
    # A device could be harmed by being opened, a FIFO would wait.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Unsound("not a regular file")
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unsound("not a regular file")
        if status.st_uid != os.geteuid():
            raise Unsound(f"belongs to uid {status.st_uid}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unsound("others may write to it")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(status, path.lstat()):
            raise Unsound("replaced at this moment")
    except BlockingIOError:
        os.close(fd)
        raise Unsound("in use") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(fd: int, path: Path, identity: str) -> Checked:
    size = os.fstat(fd).st_size
    meta = _newer_meta(fd, size)
    digest = sidecar.digest(fd, size, threads=2)
    old, mtime = sidecar.read(path) or (None, 0.0)
    if old is not None and (old.size, old.digest, old.txnid) == (size, digest, meta.txnid):
        _check_identity(old.identity, identity)
        now = replace(old, boot=sidecar.boot())
        return Checked(fd, now, now != old, sidecar.proven_at(old, mtime, time()))
    bookkeeping = _walk(fd, meta)
    _check_identity(bookkeeping.identity, identity)
    generation = bookkeeping.generation.hex()
    if old is not None and (old.generation != generation or old.txnid > meta.txnid):
        old = None  # of another file, or of this one in a state that has been lost
    return Checked(
        fd,
        Sidecar(
            identity=identity,
            generation=generation,
            size=size,
            digest=digest,
            txnid=meta.txnid,
            is_synced=False,
            boot=sidecar.boot(),
            proven=None if old is None else old.proven,
        ),
        is_new=True,
        proven_at=None if old is None else sidecar.proven_at(old, mtime, time()),
    )


def _check_identity(found: str, wanted: str) -> None:
    if found != wanted:
        raise Unsound(f"is that of {found!r}")


def _newer_meta(fd: int, size: int) -> _Meta:
    """The meta page that LMDB would go by (mdb_env_read_header reads both, mdb_env_pick_meta picks)."""
    metas = [_meta(fd, number, size) for number in range(METAS)]
    newer = metas[metas[0].txnid < metas[1].txnid]
    if metas[0].txnid == metas[1].txnid:
        raise Unsound("two meta pages of one transaction")
    return newer


def _meta(fd: int, number: int, size: int) -> _Meta:
    data = os.pread(fd, _META_SIZE, number * _PAGE_SIZE)
    if len(data) < _META_SIZE:
        raise Unsound("truncated")
    *head, room = _HEAD.unpack_from(data)
    page_size, free_flags, *free = _TREE.unpack_from(data, _HEAD.size)
    pad, main_flags, *main = _TREE.unpack_from(data, _HEAD.size + _TREE.size)
    last, txnid = _TAIL.unpack_from(data, _HEAD.size + 2 * _TREE.size)
    if head != [number, _META_PAGE, _MAGIC, _VERSION] or page_size != _PAGE_SIZE:
        raise Unsound("not a mirror's file")
    if (free_flags, pad, main_flags) != (_NO_SUB_DIR | _INTEGER_KEY, 0, 0):
        raise Unsound("an LMDB file, but not a mirror's")
    if txnid >> 63 or (txnid and txnid % METAS != number):
        raise Unsound("an impossible transaction")
    if not -_SLACK <= size // _PAGE_SIZE - last <= _SLACK or not last < room // _PAGE_SIZE < _LARGEST_MAP:
        raise Unsound("truncated, or of an impossible size")
    return _Meta(last + 1, txnid, Tree(True, *free), Tree(False, *main))


def _walk(fd: int, meta: _Meta) -> Bookkeeping:
    """Check every page that is in use; what the bookkeeping row says, which must fit the others."""
    pages = Pages(fd, _PAGE_SIZE, meta.pages)
    row, total = None, 0
    for keys, values in Walk(pages, meta.main).leaves():
        if row is None:
            if keys.pop(0) != KEY:
                raise Unsound("an LMDB file, but not a mirror's")
            row = values.pop(0)
        total += fingerprint(keys, values)
    try:
        bookkeeping = Bookkeeping.unpack(row or b"")
    except ValueError as error:
        raise Unsound(f"its bookkeeping row makes no sense: {error}") from error
    if bookkeeping != bookkeeping.changed(total - bookkeeping.fingerprint, 0):
        raise Unsound("the rows are not those that were written")
    _walk_free(pages, meta)
    return bookkeeping


def check_pages(path: Path) -> None:
    """Check every page of an LMDB file without bookkeeping, one that Postfix reads; several seconds for a
    million rows. It is not locked. Raises `Unsound`, OSError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Unsound("not a regular file")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        meta = _newer_meta(fd, os.fstat(fd).st_size)
        pages = Pages(fd, _PAGE_SIZE, meta.pages)
        for _ in Walk(pages, meta.main).leaves():
            pass
        _walk_free(pages, meta)
    finally:
        os.close(fd)


def _walk_free(pages: Pages, meta: _Meta) -> None:
    for keys, values in Walk(pages, meta.free).leaves():
        for key, value in zip(keys, values, strict=True):
            _check_free(pages, key, value, meta.txnid)


def _check_free(pages: Pages, key: bytes, value: bytes, txnid: int) -> None:
    """Pages that a transaction freed (mdb_freelist_save): how many, then their numbers, descending."""
    numbers = [number for (number,) in _NUMBER.iter_unpack(value)] if len(value) % _NUMBER.size == 0 else []
    if not numbers or numbers.pop(0) != len(numbers) or not 0 < _NUMBER.unpack(key)[0] <= txnid:
        raise Unsound("a list of free pages makes no sense")
    if not all(map(gt, numbers, numbers[1:])):
        raise Unsound("a list of free pages is out of order")
    for number in numbers:
        pages.use(number)
