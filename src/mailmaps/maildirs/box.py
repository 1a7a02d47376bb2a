"""One box: where it is and whose, and the rows that are refused.

virtual(8) (src/virtual/mailbox.c) opens `virtual_mailbox_base + "/" + value` as uid and gid; a value that
ends in "/" is a maildir, any other an mbox file. It refuses "/../", a uid below virtual_minimum_uid and gid
0: such mail is deferred (4.3.5). Here more is refused, since it is root that walks the path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailmaps.maps.mailbox import LONGEST_NAME, LONGEST_PATH

DEEPEST = 64  # folders, each of which is held open
NO_ID = 2**32 - 1  # (uid_t) -1, which chown(2) reads as "leave it"


class RefusedBox(ValueError):
    """No box is made of such a row; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the views say: a mailbox, its uid and gid as they are there, and whose it is.

    `address` is one of the `addresses` (their number) that the box is for. `boxes` is the number of rows
    of the whole reading, 0 if unknown.
    """

    path: str
    uid: str | None
    gid: str | None
    address: str
    addresses: int = 1
    boxes: int = 0

    @property
    def who(self) -> str:
        """The addresses, in a few words."""
        return self.address if self.addresses == 1 else f"{self.address} and {self.addresses - 1} more"


@dataclass(frozen=True, slots=True)
class Box:
    """A mailbox that may be made: its names below the base, none of which leads elsewhere, and its owner.

    `is_file`: virtual(8) takes it for an mbox file.
    """

    names: tuple[bytes, ...]
    uid: int
    gid: int
    is_file: bool = False

    @property
    def path(self) -> str:
        """Below the base, a maildir with its final "/"."""
        return b"/".join(self.names).decode() + ("" if self.is_file else "/")

    @property
    def owner(self) -> str:
        """As chown(1) takes it."""
        return f"{self.uid}:{self.gid}"


def box_of(row: Row, minimum_uid: int) -> Box:
    """The box of a row. Raises `RefusedBox`."""
    path = normal(row.path)
    return Box(
        _names(path),
        _number("uid", row.uid, max(minimum_uid, 1)),
        _number("gid", row.gid, 1),
        is_file=not path.endswith("/"),
    )


def normal(path: str) -> str:
    """The path as the kernel reads it behind "BASE/": "//" is "/", and a first "/" says nothing."""
    return re.sub("/+", "/", path).lstrip("/")


def _names(path: str) -> tuple[bytes, ...]:
    try:
        names = tuple(path.removesuffix("/").encode().split(b"/"))
    except UnicodeEncodeError:
        raise RefusedBox("the path is not UTF-8") from None
    if names == (b"",):
        raise RefusedBox("the path is empty")
    if b".." in names or b"." in names:
        raise RefusedBox('the path has "." or ".." in it')
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in path):
        raise RefusedBox("the path has a control character in it")
    if max(map(len, names)) > LONGEST_NAME:
        raise RefusedBox(f"a name in the path is longer than {LONGEST_NAME} bytes")
    if sum(map(len, names)) + len(names) > LONGEST_PATH:
        raise RefusedBox(f"the path is longer than {LONGEST_PATH} bytes")
    if len(names) > DEEPEST:
        raise RefusedBox(f"the path is more than {DEEPEST} folders deep")
    return names


def _number(what: str, text: str | None, minimum: int) -> int:
    """A uid or gid. strtoul(3) would take blanks and signs as well; nobody means these."""
    if text is None:
        raise RefusedBox(f"there is no {what} for it")
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= NO_ID:
        raise RefusedBox(f"its {what} {text!r} is no {what}")
    if int(text) < minimum:
        least = "virtual_minimum_uid" if what == "uid" and minimum > 1 else "the least that is given a box"
        raise RefusedBox(f"its {what} {text} is below {minimum}, {least}")
    return int(text)
