"""What an address becomes before its owner is looked for, as trivial-rewrite(8) of Postfix 3.7 said it.

tests/system/test_rewriting.py compares thousands more.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from mailmaps.maps.rewriting import MOST_STEPS, resolved
from mailmaps.maps.search import Rules
from mailmaps.maps.tokens import Kind, Token, joined, scan, text_of

USUAL = Rules(
    myhostname="mx.postfix.test",
    mydomain="postfix.test",
    myorigin="ours.test",
    mydestination=frozenset({"ours.test", "localhost"}),
    local_addresses=frozenset({"[127.0.0.1]"}),
)

CASES: dict[str, dict[str, str]] = {
    "": {
        "anna@other.test": "anna@other.test",
        "Anna+x@Ours.Test": "Anna+x@Ours.Test",
        "anna": "anna@ours.test",
        "anna@host": "anna@host",
        "anna@ours.test.": "anna@ours.test",
        "anna@ours.test..": "anna@ours.test..",
        "anna@": "anna@",
        "@": "MAILER-DAEMON@",
        "@ours.test": "MAILER-DAEMON@ours.test",
        "anna%other.test": "anna@other.test",
        "other.test!anna": "anna@other.test",
        "a!b%c": "b%c@a",
        "anna%other.test@ours.test": "anna@other.test",
        "other.test!anna@ours.test": "anna@other.test",
        "anna@other.test@ours.test": "anna@other.test",
        "anna@other.test@localhost@ours.test": "anna@other.test",
        "anna@host@ours.test": "anna@host",
        "anna x%other.test@ours.test": "anna x@other.test",
        "a b!c%other.test@ours.test": "a b!c@other.test",
        "ours.test!anna x@ours.test": "anna x@ours.test",
        "anna@ other.test@ours.test": "anna@other.test",
        "@relay.test:anna@other.test": "anna@other.test",
        "@a.test:b@other.test@ours.test": "b@other.test",
        "anna@[127.0.0.1]": "anna@[127.0.0.1]",
        "anna@[192.0.2.9]": "anna@[192.0.2.9]",
        "anna%other.test@[127.0.0.1]": "anna@other.test",
        "ünna@ours.test": "ünna@ours.test",
        'an"na@ours.test': 'an"na@ours.test',
        "a..b@ours.test": "a..b@ours.test",
        ".anna@ours.test": ".anna@ours.test",
        "anna%": "anna@",
        "!anna": "anna@",
        "!a b!ours.test": "ours.test@ab",
        "%@ours.test": "MAILER-DAEMON@",
        "anna%other.test@other.test": "anna%other.test@other.test",
        "[x@ours.test@ours.test": "[x@ours.test",
        "anna(c)@x@ours.test": "anna(c)@x",
        "anna|x@ours.test": "anna|x@ours.test",
    },
    "append_dot_mydomain": {
        "anna@host": "anna@host.postfix.test",
        "anna%host": "anna@host.postfix.test",
        "host!anna": "anna@host.postfix.test",
        "anna@[127.0.0.1]": "anna@[127.0.0.1]",
        "anna@localhost": "anna@localhost.postfix.test",
        "anna@host.": "anna@host",
        "anna": "anna@ours.test",
    },
    "resolve_dequoted_address": {
        "anna@other.test@ours.test": "anna@other.test@ours.test",
        "anna x%other.test@ours.test": "anna x%other.test@ours.test",
        "anna%other.test@ours.test": "anna@other.test",
        "anna@other.test@localhost@ours.test": "anna@other.test@localhost@ours.test",
    },
    "swap_bangpath": {
        "other.test!anna": "other.test!anna@ours.test",
        "other.test!anna@ours.test": "other.test!anna@ours.test",
        "a!b%c": "a!b@c",
        "a b!c@ours.test": "a b!c@ours.test",
    },
    "allow_percent_hack": {
        "anna%other.test": "anna%other.test@ours.test",
        "anna%other.test@ours.test": "anna%other.test@ours.test",
        "a!b%c": "b%c@a",
        "a b%c@ours.test": "a b%c@ours.test",
    },
    "append_at_myorigin": {
        "anna": "anna@mx.postfix.test",
        "anna%other.test": "anna@other.test",
        "other.test!anna": "anna@other.test",
        "anna@host": "anna@host",
    },
}
"""By the switch that is not as usual."""


@pytest.mark.parametrize(
    ("switch", "address", "expected"),
    [(switch, *case) for switch, cases in CASES.items() for case in cases.items()],
)
def test_resolved(switch: str, address: str, expected: str) -> None:
    values = asdict(USUAL)
    if switch:
        values[switch] = not values[switch]
    rules = Rules(**values)
    assert resolved(address, rules) == expected


def test_a_name_without_domain_stays_where_the_hostname_is_not_known() -> None:
    assert resolved("anna", Rules()) == "anna"
    assert resolved("anna@other.test", Rules()) == "anna@other.test"


def test_routes_without_end_are_given_up() -> None:
    assert resolved("anna" + "@ours.test" * (MOST_STEPS - 2), USUAL) == "anna@ours.test"
    with pytest.raises(ValueError, match="too many"):
        resolved("anna" + "@ours.test" * (MOST_STEPS + 1), USUAL)


@pytest.mark.parametrize(
    ("text", "tokens", "internal"),
    [
        ("a b", ["a", "b"], "a b"),
        ('"a\\"b" @ c', ['a"b', "@", "c"], 'a"b@c'),
        ("a\\@b", ["a@b"], "a@b"),
        ("[1\\]2", ["1]2"], "[1]2]"),
        ("a(x(y)z", ["a", "(x(y)z"], "a (x(y)z"),
        ("(x)a", ["(x)", "a"], "(x) a"),
        ("a,b<c", ["a", ",", "b", "<", "c"], "a, b <c"),
        ('"a', ["a"], "a"),
        ("a\\", ["a"], "a"),
        ("\\", [""], ""),
        ("a\tb\r\n", ["a", "b"], "a b"),
        ("", [], ""),
    ],
)
def test_tokens(text: str, tokens: list[str], internal: str) -> None:
    assert [token.text for token in scan(text)] == tokens
    assert text_of(scan(text)) == internal


def test_tokens_with_an_owner_have_no_blanks_between() -> None:
    assert text_of(joined(scan("a b . c , <d"))) == "ab.c,<d"


def test_a_word_that_needs_quotes_is_a_quoted_string() -> None:
    assert scan("a\\!b") == [Token(Kind.QUOTED, "a!b")]


def test_an_address_that_is_long_and_not_plain_is_not_taken_apart() -> None:
    assert resolved("x" * 2000 + "@ours.test", USUAL) == "x" * 2000 + "@ours.test"
    with pytest.raises(ValueError, match="too long"):
        resolved("\\" * 1000 + "@ours.test", USUAL)
