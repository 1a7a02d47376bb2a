"""The `domain` filter: match_list.c with the exact match of string_list."""

from __future__ import annotations

import re

import pytest

from mailmaps.maps.domain_list import DomainList

FILES = {
    "/list": "# comment\none.test two.test\n  !three.test\n",
    "/nested": "/list, four.test",
    "/circle": "a.test /other",
    "/other": "/circle",
}


def read_file(name: str) -> str:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory", name)
    return FILES[name]


@pytest.mark.parametrize(
    ("patterns", "passing", "held_back"),
    [
        (
            "one.test",
            ["u@one.test", "u@ONE.test", "a@b@one.test"],
            ["u@two.test", "u@sub.one.test", "u@test"],
        ),
        ("One.TEST,\ttwo.test\r\n", ["u@one.test", "u@two.test"], ["u@three.test"]),
        ("one.test", [], ["one.test", "@one.test", "u@", "u", "", "@", "u@one.test."]),
        ("!one.test, one.test, two.test", ["u@two.test"], ["u@one.test"]),
        ("one.test !one.test", ["u@one.test"], []),
        ("!one.test", [], ["u@one.test", "u@two.test"]),
        ("!!one.test", ["u@one.test"], ["u@two.test"]),
        ("/list", ["u@one.test", "u@two.test"], ["u@three.test", "u@four.test"]),
        ("!/list one.test", ["u@three.test"], ["u@one.test", "u@two.test"]),
        ("!!!/nested", ["u@three.test"], ["u@four.test"]),
        ("/nested", ["u@one.test", "u@four.test"], ["u@three.test"]),
        ("/list /list", ["u@one.test"], []),
        ("[1.2.3.4], [ipv6:::1]", ["u@[1.2.3.4]", "u@[IPv6:::1]"], ["u@1.2.3.4"]),
        ("Ünï.test", ["u@ünï.test"], ["u@uni.test"]),
        (" , ", [], ["u@one.test"]),
    ],
)
def test_the_first_match_decides(patterns: str, passing: list[str], held_back: list[str]) -> None:
    domains = DomainList(patterns, read_file)
    assert [key for key in passing if not domains.passes(key)] == []
    assert [key for key in held_back if domains.passes(key)] == []


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ("one.test hash:/x", "hash:/x"),
        ("!static:all", "static:all"),
        ("one.test, !", "!"),
        ("{ one.test }", "{"),
        ("/circle", "/circle"),
    ],
)
def test_what_cannot_be_used_is_named(patterns: str, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        DomainList(patterns, read_file)


def test_a_file_that_is_not_there_is_an_error_of_its_own() -> None:
    with pytest.raises(FileNotFoundError):
        DomainList("one.test, !/none", read_file)
