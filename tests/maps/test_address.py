"""Quoting, folding and extensions, against the cases of Postfix's own tests and source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.address import fold, is_external, quote, split_extension, unquote

# src/global/quote_822_local.ref and mail_addr_find.in of Postfix 3.12.
FORMS = [
    ("wietse@example.com", "wietse@example.com"),
    ("wie tse@example.com", '"wie tse"@example.com'),
    ('wie"tse@example.com', '"wie\\"tse"@example.com'),
    ("a@b@example.com", '"a@b"@example.com'),
    (".a@example.com", '".a"@example.com'),
    ("a.@example.com", '"a."@example.com'),
    ("a..b@example.com", '"a..b"@example.com'),
    ("@example.com", '""@example.com'),
    ("\\a@example.com", '"\\\\a"@example.com'),
    ("grün@example.com", "grün@example.com"),
    ("user", "user"),
    ("a b", '"a b"'),
]


@pytest.mark.parametrize(("internal", "external"), FORMS)
def test_forms(internal: str, external: str) -> None:
    assert quote(internal) == external
    assert unquote(external) == internal


@pytest.mark.parametrize("address", ['"a"@example.com', "x y@example.com", '"a'])
def test_what_postfix_cannot_have_quoted_is_no_external_form(address: str) -> None:
    assert not is_external(address)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(lambda t: t[:1] != "@")
)
def test_unquote_undoes_quote(local: str) -> None:
    assert unquote(quote(local + "@example.com")) == local + "@example.com"
    assert is_external(quote(local + "@example.com"))


@pytest.mark.parametrize(
    ("text", "folded", "ascii_only"),
    [
        ("User@Example.COM", "user@example.com", "user@example.com"),
        ("STRASSE@X", "strasse@x", "strasse@x"),
        ("Straße@X", "strasse@x", "straße@x"),
        ("ÉRIC@X", "éric@x", "Éric@x"),
        ("İ@X", "i̇@x", "İ@x"),
        ("ſς@X", "sσ@x", "ſς@x"),
    ],
)
def test_folding(text: str, folded: str, ascii_only: str) -> None:
    assert fold(text) == folded
    assert fold(text, smtputf8=False) == ascii_only


@pytest.mark.parametrize(
    ("local", "delimiters", "expected"),
    [
        ("user+ext", "+", ("user", "+ext")),
        ("user+", "+", ("user", "+")),
        ("+ext", "+", ("+ext", "")),
        ("user+ext", "", ("user+ext", "")),
        ("foo-bar+baz", "+-", ("foo", "-bar+baz")),
        ("foo+bar-baz", "+-", ("foo", "+bar-baz")),
        ("postmaster", "o", ("postmaster", "")),
        ("Mailer-Daemon", "-", ("Mailer-Daemon", "")),
        ("double-bounce", "-", ("double-bounce", "")),
        ("postmaster+x", "+", ("postmaster", "+x")),
        ("owner-list+x", "+-", ("owner-list+x", "")),
        ("OWNER-list", "-", ("OWNER-list", "")),
        ("list-request", "-", ("list-request", "")),
        ("list+x-request", "+-", ("list+x-request", "")),
        ("owner-list+x", "+", ("owner-list", "+x")),
        ("-request", "-", ("-request", "")),
        ("a-request", "+", ("a-request", "")),
    ],
)
def test_extensions(local: str, delimiters: str, expected: tuple[str, str]) -> None:
    assert split_extension(local, delimiters) == expected


def test_owner_and_request_are_split_when_postfix_is_told_so() -> None:
    assert split_extension("owner-list", "-", owner_request_special=False) == ("owner", "-list")
