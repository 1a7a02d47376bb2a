"""Walks the pages of an LMDB file by plain reads, so that what LMDB would believe is checked before it does.

The format is that of LMDB 0.9 (mdb.c: MDB_page, MDB_node, MDB_db), native byte order, 64 bits:

    page        number u64, pad u16, flags u16, lower u16, upper u16, offsets of nodes u16..., room, nodes
    overflow    number u64, pad u16, flags u16, count of pages u32, data
    leaf node   size of data u32, flags u16, size of key u16, key, data (or the number of an overflow page)
    branch node child, 48 bits, size of key u16, key (that of the first counts for nothing)

Every page must be in its place and be reached once, every tree be as deep everywhere, its keys ascending
within the bounds their parents give; nodes must fill a page from `upper` to its end without gap or overlap,
and counts be those that the meta page has. Then neither reading nor writing can lead LMDB astray. py-lmdb 3's
`verify` checks the same of any LMDB file, in several times the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import lt
from struct import Struct, unpack_from

from mailmaps.mirrors.bookkeeping import KEY
from mailmaps.mirrors.environment import Unsound

METAS = 2  # pages; NUM_METAS
NO_PAGE = (1 << 64) - 1  # P_INVALID: the root of an empty tree

_HEADER = 16  # bytes; PAGEHDRSZ
_NODE_HEADER = 8  # bytes; NODESIZE
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4  # flags of a page
_BIG = 1  # flag of a node: F_BIGDATA
_DEEPEST = 32  # CURSOR_STACK

_PAGE = Struct("=Q2xHHH")
_OVERFLOW_PAGE = Struct("=Q2xHI")
_NODE = Struct("=IHH")
_NUMBER = Struct("=Q")

# Keys and values of one leaf.
Leaf = tuple[list[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Tree:
    """MDB_db: one tree as the meta page describes it. With `numbers` its keys are, else text."""

    numbers: bool
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A page, where it hangs, and the keys its own must lie between (b"": no bound)."""

    number: int
    level: int
    low: bytes
    high: bytes


class Pages:
    """The pages of one file; each may be used once. Raises `Unsound` and OSError."""

    def __init__(self, fd: int, size: int, count: int) -> None:
        """`size` bytes each; by the meta page, `count` have been in use."""
        self._fd = fd
        self._size = size
        self._used = bytearray(count)
        self._used[:METAS] = b"\1" * METAS

    def use(self, number: int, count: int = 1) -> None:
        """These pages have their purpose now."""
        if number < METAS or number + count > len(self._used):
            raise Unsound(f"page {number} is beyond the end")
        if any(self._used[number : number + count]):
            raise Unsound(f"page {number} is used twice")
        self._used[number : number + count] = b"\1" * count

    def node_page(self, number: int) -> tuple[bytes, int, tuple[int, ...], int]:
        """A page of a tree: all of it, its flags, the offsets of its nodes, and where these begin."""
        self.use(number)
        page = os.pread(self._fd, self._size, number * self._size)
        if len(page) < self._size:
            raise Unsound(f"page {number} is beyond the end of the file")
        itself, flags, lower, upper = _PAGE.unpack_from(page)
        if itself != number or not _HEADER < lower <= upper < self._size or (lower | upper) & 1:
            raise Unsound(f"page {number} is damaged")
        return page, flags, unpack_from(f"={(lower - _HEADER) // 2}H", page, _HEADER), upper

    def big_value(self, number: int, size: int) -> tuple[bytes, int]:
        """A value that has pages of its own, and how many."""
        header = os.pread(self._fd, _HEADER, number * self._size) if number < len(self._used) else b""
        itself, flags, count = _OVERFLOW_PAGE.unpack(header) if len(header) == _HEADER else (0, 0, 0)
        if itself != number or flags != _OVERFLOW or count * self._size < _HEADER + size:
            raise Unsound(f"page {number} is no overflow page of {size} bytes")
        self.use(number, count)
        value = os.pread(self._fd, size, number * self._size + _HEADER)
        if len(value) < size:
            raise Unsound(f"page {number} is beyond the end of the file")
        return value, count


class Walk:
    """Goes through one tree, once."""

    def __init__(self, pages: Pages, tree: Tree) -> None:
        self._pages = pages
        self._tree = tree
        self._branches = self._leaves = self._overflows = self._entries = 0

    def leaves(self) -> Iterator[Leaf]:
        """All rows in order; at the end, the counts are checked. Raises `Unsound` and OSError."""
        tree = self._tree
        if tree.depth > _DEEPEST or (tree.depth == 0) != (tree.root == NO_PAGE):
            raise Unsound("a tree of impossible depth")
        stack = [_Place(tree.root, 1, b"", b"")] if tree.depth else []
        while stack:
            place = stack.pop()
            page, flags, offsets, upper = self._pages.node_page(place.number)
            if flags != (_LEAF if place.level == tree.depth else _BRANCH):
                raise Unsound(f"page {place.number} hangs at the wrong level")
            if flags == _BRANCH:
                children, ends = self._branch(page, offsets, place)
                stack += reversed(children)
                leaf = None
            else:
                leaf, ends = self._leaf(page, offsets, place)
            if {*offsets, len(page)} != {*ends, upper} or len(set(ends)) != len(offsets):
                raise Unsound(f"the nodes of page {place.number} do not fill it")
            if leaf is not None:
                yield leaf
        counts = (self._branches, self._leaves, self._overflows, self._entries)
        if counts != (tree.branches, tree.leaves, tree.overflows, tree.entries):
            raise Unsound("a tree has not the pages and rows it says it has")

    def _leaf(self, page: bytes, offsets: Sequence[int], place: _Place) -> tuple[Leaf, list[int]]:
        """Its rows, and where its nodes end."""
        keys, values, ends = [], [], []
        node = _NODE.unpack_from
        last = len(page) - _NODE_HEADER
        for offset in offsets:
            if offset > last:
                raise Unsound(f"a node of page {place.number} is beyond its end")
            size, flags, key_size = node(page, offset)
            start = offset + _NODE_HEADER
            data = start + key_size
            keys.append(page[start:data])
            if flags:
                end = data + _NUMBER.size
                values.append(self._big(page[data:end], size, flags))
            else:
                end = data + size
                values.append(page[data:end])
            ends.append(end + (end & 1))
        self._check_keys(keys, place)
        self._leaves += 1
        self._entries += len(keys)
        return (keys, values), ends

    def _big(self, where: bytes, size: int, flags: int) -> bytes:
        if flags != _BIG or len(where) < _NUMBER.size:
            raise Unsound("a row is not one that we write")
        value, count = self._pages.big_value(_NUMBER.unpack(where)[0], size)
        self._overflows += count
        return value

    def _branch(self, page: bytes, offsets: Sequence[int], place: _Place) -> tuple[list[_Place], list[int]]:
        """The pages below it, and where its nodes end."""
        if len(offsets) < 2 or max(offsets) > len(page) - _NODE_HEADER:
            raise Unsound(f"page {place.number} is no branch")  # mdb_page_search_root asserts two
        keys, ends, numbers = [], [], []
        for offset in offsets:
            low, high, key_size = _NODE.unpack_from(page, offset)
            start = offset + _NODE_HEADER
            end = start + key_size
            numbers.append(low | high << 32)
            keys.append(page[start:end])
            ends.append(end + (end & 1))
        bounds = [place.low, *self._check_keys(keys[1:], place), place.high]
        self._branches += 1
        return [
            _Place(number, place.level + 1, bounds[at], bounds[at + 1]) for at, number in enumerate(numbers)
        ], ends

    def _check_keys(self, keys: list[bytes], place: _Place) -> list[bytes]:
        """The keys as they sort."""
        if not keys[0] or max(map(len, keys)) > len(KEY):
            raise Unsound(f"page {place.number} has a key of impossible size")
        if self._tree.numbers:
            if any(len(key) != _NUMBER.size for key in keys):
                raise Unsound(f"page {place.number} has a key that is no number")
            keys = [_NUMBER.unpack(key)[0].to_bytes(_NUMBER.size, "big") for key in keys]
        in_order = all(map(lt, keys, keys[1:]))
        if not in_order or keys[0] < place.low or (place.high and keys[-1] >= place.high):
            raise Unsound(f"the keys of page {place.number} are out of order")
        return keys
