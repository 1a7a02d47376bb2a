"""Pages that are wrong in one respect alone, everything else about the file being made to fit.

What chance does to a file (mutations.py) is nearly always wrong in several.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mailmaps.mirrors import sidecar
from mailmaps.mirrors.file import MirrorFile, Unsound

PAGE = os.sysconf("SC_PAGE_SIZE")
IDENTITY = "a database, a view"
BRANCH, LEAF = 1, 2
NO_PAGE = (1 << 64) - 1


class Image:
    """A file in memory. Numbers are read and written where LMDB has them (mdb.c)."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.meta = max((0, PAGE), key=lambda at: self.get("Q", at + 144))

    def get(self, form: str, at: int) -> int:
        number: int = struct.unpack_from("=" + form, self.data, at)[0]
        return number

    def set(self, form: str, at: int, number: int) -> None:
        struct.pack_into("=" + form, self.data, at, number)

    def add(self, form: str, at: int, number: int) -> None:
        self.set(form, at, self.get(form, at) + number)

    # Where the meta page in force has them.
    FREE_DEPTH, FREE_ENTRIES, FREE_ROOT = 46, 72, 80
    DEPTH, BRANCHES, LEAVES, OVERFLOWS, ENTRIES, ROOT, LAST, TXNID = 94, 96, 104, 112, 120, 128, 136, 144

    def of_meta(self, at: int) -> int:
        return self.get("H" if at in (self.FREE_DEPTH, self.DEPTH) else "Q", self.meta + at)

    def page(self, number: int) -> int:
        return number * PAGE

    def nodes(self, page: int) -> list[int]:
        count = (self.get("H", page + 12) - 16) // 2
        return [page + self.get("H", page + 16 + 2 * at) for at in range(count)]

    def child(self, node: int) -> int:
        return self.page(self.get("I", node) | self.get("H", node + 4) << 32)

    def key(self, node: int) -> bytes:
        return bytes(self.data[node + 8 : node + 8 + self.get("H", node + 6)])

    def value_at(self, node: int) -> int:
        return node + 8 + self.get("H", node + 6)

    @property
    def root(self) -> int:
        return self.page(self.of_meta(self.ROOT))

    @property
    def leaf(self) -> int:
        """The second leaf."""
        page = self.root
        while self.get("H", page + 10) == BRANCH:
            page = self.child(self.nodes(page)[1])
        return page

    @property
    def free_list(self) -> int:
        """The longest list of free pages: its count, then the numbers."""
        page = self.page(self.of_meta(self.FREE_ROOT))
        assert self.get("H", page + 10) == LEAF
        lists = [self.value_at(node) for node in self.nodes(page)]
        return max(lists, key=lambda at: self.get("Q", at))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A tree of three levels, values with pages of their own, lists of free pages."""
    path = tmp_path / "sound"
    making = MirrorFile.build(path, IDENTITY)
    making.append([(b"%05d" % number + b"k" * 300, b"%05d" % number) for number in range(300)])
    file = making.finish()
    file.change({b"big": b"v" * 10_000, b"big2": b"w" * 10_000})
    for number in range(5):
        file.change({b"%05d" % at + b"k" * 300: b"changed%d" % number for at in range(0, 300, 60)})
    file.close()
    return Image(path.read_bytes())


def open_it(image: Image, tmp_path: Path) -> MirrorFile:
    path = tmp_path / "damaged"
    path.write_bytes(image.data)
    sidecar.remove(path)
    return MirrorFile.open(path, IDENTITY)


def test_the_image_is_sound(image: Image, tmp_path: Path) -> None:
    assert image.of_meta(image.DEPTH) == 3
    assert image.of_meta(image.OVERFLOWS) == 6
    assert image.get("Q", image.free_list) >= 3
    file = open_it(image, tmp_path)
    assert len(file) == 302
    file.close()


def free_page_is_used(image: Image) -> None:
    first, second = (image.get("Q", image.free_list + at) for at in (8, 16))
    others = set(range(second + 1, image.of_meta(image.LAST) + 1)) - {first}
    image.set("Q", image.free_list + 8, others.pop())


def free_page_twice(image: Image) -> None:
    image.set("Q", image.free_list + 16, image.get("Q", image.free_list + 8))


def free_pages_ascend(image: Image) -> None:
    first, second = image.get("Q", image.free_list + 8), image.get("Q", image.free_list + 16)
    image.set("Q", image.free_list + 8, second)
    image.set("Q", image.free_list + 16, first)


def free_page_is_beyond(image: Image) -> None:
    image.set("Q", image.free_list + 8, image.of_meta(image.LAST) + 1)


def free_page_is_a_meta_page(image: Image) -> None:
    image.set("Q", image.free_list + 8 * image.get("Q", image.free_list), 1)


def free_count_is_lower(image: Image) -> None:
    image.add("Q", image.free_list, -1)


def free_count_is_higher(image: Image) -> None:
    image.add("Q", image.free_list, 1)


def freed_in_the_future(image: Image) -> None:
    node = image.nodes(image.page(image.of_meta(image.FREE_ROOT)))[-1]
    image.set("Q", node + 8, image.of_meta(image.TXNID) + 1)


def freed_never(image: Image) -> None:
    node = image.nodes(image.page(image.of_meta(image.FREE_ROOT)))[0]
    image.set("Q", node + 8, 0)


def child_twice(image: Image) -> None:
    first, second = image.nodes(image.root)[:2]
    image.data[second : second + 6] = image.data[first : first + 6]


def page_of_another_number(image: Image) -> None:
    image.add("Q", image.leaf, 1)


def odd_lower(image: Image) -> None:
    image.add("H", image.leaf + 12, 1)


def gap_in_a_page(image: Image) -> None:
    image.add("H", image.leaf + 14, -2)


def node_twice(image: Image) -> None:
    """The last offset is another's, and so a node is nobody's."""
    nodes = image.nodes(image.leaf)
    image.set("H", image.leaf + 16 + 2 * (len(nodes) - 1), nodes[0] - image.leaf)


def nodes_out_of_order(image: Image) -> None:
    first, second = (node - image.leaf for node in image.nodes(image.leaf)[:2])
    image.set("H", image.leaf + 16, second)
    image.set("H", image.leaf + 18, first)


def separator_is_too_high(image: Image) -> None:
    """A key that is in the right page would be looked for in the left one."""
    branch = image.child(image.nodes(image.root)[0])
    node = image.nodes(branch)[1]
    image.add("B", node + 8 + 4, 1)
    assert image.key(node) > image.key(image.nodes(image.child(node))[0])


def separator_is_too_low(image: Image) -> None:
    branch = image.child(image.nodes(image.root)[0])
    left, node = image.nodes(branch)[:2]
    last = image.key(image.nodes(image.child(left))[-1])
    image.data[node + 8 : node + 8 + len(last)] = last


def tree_is_deeper(image: Image) -> None:
    image.add("H", image.meta + image.DEPTH, 1)


def tree_is_flatter(image: Image) -> None:
    image.add("H", image.meta + image.DEPTH, -1)


def rewrite_branch(image: Image, page: int, children: list[tuple[bytes, int]]) -> None:
    """Make a branch page of these keys and pages, as LMDB would."""
    number, end, count = page // PAGE, PAGE, len(children)
    image.data[page + 8 : page + PAGE] = bytes(PAGE - 8)
    for at, (key, child) in enumerate(children):
        end -= (9 + len(key)) & ~1
        struct.pack_into("=IHH", image.data, page + end, child, 0, len(key))
        image.data[page + end + 8 : page + end + 8 + len(key)] = key
        image.set("H", page + 16 + 2 * at, end)
    struct.pack_into("=Q2xHHH", image.data, page, number, BRANCH, 16 + 2 * count, end)


def separator_is(change: Callable[[bytes], bytes]) -> Callable[[Image], None]:
    def damage(image: Image) -> None:
        branch = image.child(image.nodes(image.root)[0])
        children = [(image.key(node), image.child(node) // PAGE) for node in image.nodes(branch)]
        children[1] = (change(children[1][0]), children[1][1])
        rewrite_branch(image, branch, children)

    return damage


def branch_with_one_child(image: Image) -> None:
    """A new root, in a page of its own, with the old one below it."""
    number = image.of_meta(image.LAST) + 1
    page = len(image.data)
    assert page == image.page(number)
    image.data += bytes(PAGE)
    rewrite_branch(image, page, [(b"", image.of_meta(image.ROOT))])
    image.set("Q", image.meta + image.ROOT, number)
    image.add("Q", image.meta + image.LAST, 1)
    image.add("Q", image.meta + image.BRANCHES, 1)
    image.add("H", image.meta + image.DEPTH, 1)


def root_is_missing(image: Image) -> None:
    image.set("Q", image.meta + image.ROOT, NO_PAGE)


def no_tree_at_all(image: Image) -> None:
    root_is_missing(image)
    image.set("H", image.meta + image.DEPTH, 0)


def count_is_wrong(at: int) -> Callable[[Image], None]:
    return lambda image: image.add("Q", image.meta + at, 1)


def overflow(image: Image) -> int:
    """The first page of the first long value."""
    page = image.root
    while image.get("H", page + 10) == BRANCH:
        page = image.child(image.nodes(page)[-1])
    node = next(node for node in image.nodes(page) if image.get("H", node + 4))
    return image.page(image.get("Q", image.value_at(node)))


def overflow_is_a_leaf(image: Image) -> None:
    image.set("H", overflow(image) + 10, LEAF)


def overflow_is_shorter(image: Image) -> None:
    image.add("I", overflow(image) + 12, -1)
    image.add("Q", image.meta + image.OVERFLOWS, -1)


def overflow_is_longer(image: Image) -> None:
    image.add("I", overflow(image) + 12, 1 << 30)
    image.add("Q", image.meta + image.OVERFLOWS, 1 << 30)


def transaction_of_the_other_page(image: Image) -> None:
    image.add("Q", image.meta + image.TXNID, 1)


def room_for_nothing(image: Image) -> None:
    image.set("Q", image.meta + 32, PAGE)


WRONG: dict[Callable[[Image], None], str] = {
    free_page_is_used: "used twice",
    free_page_twice: "out of order",
    free_pages_ascend: "out of order",
    free_page_is_beyond: "beyond the end",
    free_page_is_a_meta_page: "beyond the end",
    free_count_is_lower: "free pages makes no sense",
    free_count_is_higher: "free pages makes no sense",
    freed_in_the_future: "free pages makes no sense",
    freed_never: "free pages makes no sense",
    child_twice: "used twice|out of order",
    page_of_another_number: "is damaged",
    odd_lower: "is damaged",
    gap_in_a_page: "do not fill it",
    node_twice: "out of order|do not fill it",
    nodes_out_of_order: "out of order",
    separator_is_too_high: "out of order",
    separator_is_too_low: "out of order",
    separator_is(lambda key: b""): "impossible size",
    separator_is(lambda key: key + bytes(300)): "impossible size",
    tree_is_deeper: "at the wrong level",
    tree_is_flatter: "at the wrong level",
    branch_with_one_child: "is no branch",
    root_is_missing: "impossible depth",
    no_tree_at_all: "pages and rows",
    count_is_wrong(Image.BRANCHES): "pages and rows",
    count_is_wrong(Image.LEAVES): "pages and rows",
    count_is_wrong(Image.OVERFLOWS): "pages and rows",
    count_is_wrong(Image.ENTRIES): "pages and rows",
    count_is_wrong(Image.FREE_ENTRIES): "pages and rows",
    overflow_is_a_leaf: "no overflow page",
    overflow_is_shorter: "no overflow page",
    overflow_is_longer: "beyond the end",
    transaction_of_the_other_page: "impossible transaction",
    room_for_nothing: "impossible size",
}


def test_a_rewritten_branch_is_sound(image: Image, tmp_path: Path) -> None:
    separator_is(lambda key: key)(image)
    open_it(image, tmp_path).close()


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_what_is_wrong_is_seen(image: Image, tmp_path: Path, damage: Callable[[Image], None]) -> None:
    damage(image)
    with pytest.raises(Unsound, match=WRONG[damage]):
        open_it(image, tmp_path).close()
