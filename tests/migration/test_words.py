"""Values of main.cf, taken apart as Postfix does."""

from __future__ import annotations

import pytest

from mailmaps.migration import words


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("", ()),
        ("hash:/a", ("hash:/a",)),
        ("hash:/a, pgsql:/b\n  pgsql:/c,,pgsql:/d ", ("hash:/a", "pgsql:/b", "pgsql:/c", "pgsql:/d")),
        ("unionmap:{pgsql:/a, pgsql:/b},x", ("unionmap:{pgsql:/a, pgsql:/b}", "x")),
        ("check_policy_service { inet:h:1, timeout=1s } reject",
         ("check_policy_service", "{ inet:h:1, timeout=1s }", "reject")),
        ("${a?{b, c}:{d}} e", ("${a?{b, c}:{d}}", "e")),
        ("{ open, without end", ("{ open, without end",)),
    ],
)  # fmt: skip
def test_split(value: str, texts: tuple[str, ...]) -> None:
    assert words.texts(value) == texts


def test_nothing_between_the_words_is_lost() -> None:
    value = "a,  b\t, {c d} e"
    assert "".join(before + text for before, text in words.split(value)) == value


@pytest.mark.parametrize(
    ("word", "pgsql", "mentions"),
    [
        ("pgsql:/a.cf", True, True),
        ("proxy:pgsql:/a.cf", True, True),
        ("pgsql:name", True, True),
        ("unionmap:{pgsql:/a}", False, True),
        ("{ pgsql:/a }", False, True),
        ("!pgsql:/a", False, True),
        ("hash:/etc/pgsql", False, False),
        ("mypgsql:/a", False, False),
        ("reject", False, False),
        ("tcp:127.0.0.1:1", False, False),
    ],
)
def test_what_a_word_names(word: str, pgsql: bool, mentions: bool) -> None:
    assert (words.is_pgsql(word), words.mentions_pgsql(word)) == (pgsql, mentions)


def test_the_source_is_the_map_without_proxy() -> None:
    found = words.map_of("proxy:pgsql:/a:b.cf")
    assert found is not None
    assert (found.source, found.proxied) == ("pgsql:/a:b.cf", True)
