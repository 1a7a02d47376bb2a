"""Rows that do not go together."""

from __future__ import annotations

import random

from mailmaps.maildirs.action import Action, State
from mailmaps.maildirs.box import Box, Row, normal
from mailmaps.maildirs.sorting import Sorter


def row(path: str, uid: int = 5001, gid: int = 5001, address: str = "a@ex.test", addresses: int = 1) -> Row:
    return Row(path, str(uid), str(gid), address, addresses)


def sort_out(*rows: Row) -> list[str]:
    """Boxes as their path and owner, the others as their line."""
    sorter = Sorter(100)
    shuffled = random.sample(rows, len(rows))
    found: list[Box | Action] = []
    for one in sorted(shuffled, key=lambda one: (normal(one.path).encode(), one.uid, one.gid)):
        found += sorter.take(one)
    return [f"{one.path} {one.owner}" if isinstance(one, Box) else str(one) for one in found + sorter.end()]


def test_boxes_that_are_apart() -> None:
    assert sort_out(row("b/b/"), row("b/"), row("a/b/"), row("a/b-c/"), row("a/c/", 5002), row("a/bb/")) == [
        "a/b-c/ 5001:5001",
        "a/b/ 5001:5001",
        "a/bb/ 5001:5001",
        "a/c/ 5002:5001",
        "b/ 5001:5001",
        "note: b/b/: is inside b/ and of the same user, so virtual(8) makes it itself",
    ]


def test_one_path_with_two_owners() -> None:
    rows = row("a/b/", 5001), row("/a//b/", 5002, address="x@ex.test", addresses=3), row("a/b/", 5001, 5002)
    assert sort_out(row("a/a/"), *rows, row("a/c/")) == [
        "a/a/ 5001:5001",
        "left alone: a/b/: is the box of several owners: 5001:5001 (a@ex.test), 5001:5002 (a@ex.test), "
        "5002:5001 (x@ex.test and 2 more) -> one path, one owner",
        "a/c/ 5001:5001",
    ]


def test_a_box_in_anothers() -> None:
    assert sort_out(row("a/b/"), row("a/b/c/d/", 5002, address="d@ex.test"), row("a/b/c", 5003)) == [
        "a/b/ 5001:5001",
        "left alone: a/b/c: is inside a/b/, whose owner (a@ex.test) could rename it (a@ex.test)"
        " -> give it a path of its own",
        "left alone: a/b/c/d/: is inside a/b/, whose owner (a@ex.test) could rename it (d@ex.test)"
        " -> give it a path of its own",
    ]


def test_a_refusal_names_the_addresses_and_obeys_no_terminal() -> None:
    assert sort_out(row("../x\x1b[2J/", address="e\x1b[m@ex.test", addresses=2), row("/", 7)) == [
        "left alone: /: the path is empty (a@ex.test)",
        'left alone: ../x\\x1b[2J/: the path has "." or ".." in it (e\\x1b[m@ex.test and 1 more)',
    ]


def test_the_end_without_rows() -> None:
    assert Sorter(100).end() == []
    assert Action(State.NOTE, "", "0777 0:0").path == ""
