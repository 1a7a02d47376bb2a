"""The `%` codes, and which keys and values they suppress (db_common.c)."""

from __future__ import annotations

import pytest

from mailmaps.maps.template import BadCode, Needs, Piece, codes, expand, key_parts, pieces, value_parts


def test_pieces_of_a_template() -> None:
    assert pieces("") == []
    assert pieces("smtp:[%s]%%%d") == [
        Piece("smtp:[", False),
        Piece("s", True),
        Piece("]", False),
        Piece("%", False),
        Piece("d", True),
    ]
    assert codes(pieces("%s%u%d%S%U%D%1%9%%x")) == set("sudSUD19")


@pytest.mark.parametrize("text", ["%", "a%", "%%%", "%x", "%0", "% s", "%\u0663", "%'", "%\n"])
def test_anything_else_after_a_percent_sign_is_refused(text: str) -> None:
    with pytest.raises(BadCode):
        pieces(text)


def asked(key: str, query: str, result: str = "%s") -> str | None:
    """The query for a key, or None."""
    template = pieces(query)
    parts = key_parts(key, Needs.of(codes(template), codes(pieces(result))))
    return None if parts is None else expand(template, parts)


@pytest.mark.parametrize(
    ("key", "query", "expected"),
    [
        ("u@d.test", "%s %u %d %S %U %D %% %1 %2", "u@d.test u d.test u@d.test u d.test % test d"),
        ("a@b@c.d", "%u|%d", "a@b|c.d"),
        ("bare", "%u %s", "bare bare"),
        ("bare", "%d", None),
        ("@d.test", "%u", None),
        ("@d.test", "%U", None),
        ("@d.test", "%s %d", "@d.test d.test"),
        ("u@", "%u", "u"),
        ("u@", "%d", None),
        ("u@", "%D", None),
        ("u@", "%1", None),
        ("@", "%s", "@"),
        ("@", "%u", None),
        ("u@a.b", "%3", None),
        ("u@a.b.c", "%3 %1", "a c"),
        ("u@.a..b.", "%1 %2", "b a"),
        ("u@...", "%1", None),
        ("u@1.2.3.4.5.6.7.8.9", "%9%8%7%6%5%4%3%2%1", "123456789"),
        ("u@a.b", "constant", "constant"),
    ],
)
def test_what_is_asked_for_a_key(key: str, query: str, expected: str | None) -> None:
    assert asked(key, query) == expected


@pytest.mark.parametrize(
    ("key", "result", "passes"),
    [
        ("bare", "%D", False),
        ("bare", "%U", True),
        ("bare", "%d %u %S", True),
        ("@d.test", "%U", False),
        ("@d.test", "%u", True),
        ("u@a.b", "%3", False),
    ],
)
def test_codes_of_the_key_in_the_result_format_suppress_too(key: str, result: str, *, passes: bool) -> None:
    assert (asked(key, "%s", result) is not None) is passes


def formatted(value: str, result: str) -> str | None:
    template = pieces(result)
    key = key_parts("k@x.key", Needs.of({"s"}, codes(template)))
    assert key is not None
    parts = value_parts(value, key, codes(template))
    return None if parts is None else expand(template, parts)


@pytest.mark.parametrize(
    ("value", "result", "expected"),
    [
        ("v@d", "%s %u %d %S %U %D %1", "v@d v d k@x.key k x.key key"),
        ("a@b@c", "%u/%d", "a@b/c"),
        ("plain", "%u", "plain"),
        ("plain", "%d", None),
        ("v@", "%d", None),
        ("v@", "%u", "v"),
        ("@d", "%d", "d"),
        ("@d", "%u", None),
        ("@d", "%s", "@d"),
        ("a,b", "smtp:[%s]", "smtp:[a,b]"),
    ],
)
def test_what_a_value_becomes(value: str, result: str, expected: str | None) -> None:
    assert formatted(value, result) == expected
