"""Which rows become boxes."""

from __future__ import annotations

import pytest

from mailmaps.maildirs.box import Box, RefusedBox, Row, box_of


def box(path: str, uid: str | None = "5001", gid: str | None = "5001", minimum: int = 100) -> Box:
    return box_of(Row(path, uid, gid, "a@ex.test"), minimum)


@pytest.mark.parametrize("path", ["ex.test/anna/", "/ex.test/anna/", "//ex.test///anna//"])
def test_slashes_that_say_nothing(path: str) -> None:
    found = box(path)
    assert found == Box((b"ex.test", b"anna"), 5001, 5001)
    assert found.path == "ex.test/anna/"


def test_no_final_slash_is_an_mbox() -> None:
    assert box("ex.test/anna") == Box((b"ex.test", b"anna"), 5001, 5001, is_file=True)
    assert box("ex.test/anna").path == "ex.test/anna"


def test_names_are_utf8() -> None:
    assert box("ex.test/ännä/").names == (b"ex.test", "ännä".encode())
    assert box("ex.test/...hidden/").path == "ex.test/...hidden/"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "the path is empty"),
        ("///", "the path is empty"),
        ("../anna/", 'the path has "." or ".." in it'),
        ("ex.test/../../etc/", 'the path has "." or ".." in it'),
        ("ex.test/..", 'the path has "." or ".." in it'),
        ("ex.test/./anna/", 'the path has "." or ".." in it'),
        ("./", 'the path has "." or ".." in it'),
        ("ex.test/an\x00na/", "the path has a control character in it"),
        ("ex.test/an\nna/", "the path has a control character in it"),
        ("ex.test/an\x1b[2Jna/", "the path has a control character in it"),
        ("ex.test/an\x7fna/", "the path has a control character in it"),
        ("ex.test/an\x9bna/", "the path has a control character in it"),
        ("ex.test/an\udc80na/", "the path is not UTF-8"),
        (f"ex.test/{'ä' * 128}/", "a name in the path is longer than 255 bytes"),
        (f"{'a' * 250}/" * 15, "the path is longer than 3584 bytes"),
        ("a/" * 65, "the path is more than 64 folders deep"),
    ],
)
def test_refused_paths(path: str, why: str) -> None:
    with pytest.raises(RefusedBox, match=f"^{why}$"):
        box(path)


@pytest.mark.parametrize(
    ("uid", "gid", "why"),
    [
        (None, "5001", "there is no uid for it"),
        ("5001", None, "there is no gid for it"),
        ("anna", "5001", "its uid 'anna' is no uid"),
        ("-1", "5001", "its uid '-1' is no uid"),
        ("+5001", "5001", "its uid '[+]5001' is no uid"),
        (" 5001", "5001", "its uid ' 5001' is no uid"),
        ("5001,5002", "5001", "its uid '5001,5002' is no uid"),
        ("٥٠٠١", "5001", "its uid '٥٠٠١' is no uid"),
        ("4294967295", "5001", "its uid '4294967295' is no uid"),
        ("5001", "4294967296", "its gid '4294967296' is no gid"),
        ("99", "5001", "its uid 99 is below 100, virtual_minimum_uid"),
        ("0", "5001", "its uid 0 is below 100, virtual_minimum_uid"),
        ("5001", "0", "its gid 0 is below 1, the least that is given a box"),
    ],
)
def test_refused_owners(uid: str | None, gid: str | None, why: str) -> None:
    with pytest.raises(RefusedBox, match=f"^{why}$"):
        box("ex.test/anna/", uid, gid)


def test_root_never_gets_a_box() -> None:
    with pytest.raises(RefusedBox, match="its uid 0 is below 1, the least that is given a box"):
        box("ex.test/anna/", "0", "5001", minimum=0)
    assert box("ex.test/anna/", "4294967294", "1", minimum=0).owner == "4294967294:1"
