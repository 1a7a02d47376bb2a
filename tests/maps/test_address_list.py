"""The addresses in a value, as Postfix's parser finds them (src/global/tok822_parse.ref)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.address_list import addresses, append_extension


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@b", ["a@b"]),
        ("a@b, c@d", ["a@b", "c@d"]),
        ("a@b c@d", ["a@b", "c@d"]),
        ("a @ b", ["a@b"]),
        ('"x y"@b', ["x y@b"]),
        ('"x, y"@b,c', ["x, y@b", "c"]),
        ("Wietse Venema <a@b>", ["a@b"]),
        ('"Venema, W." <a@b>, c@d', ["a@b", "c@d"]),
        ("a@b (comment (nested) \\) ), c@d", ["a@b", "c@d"]),
        ("named group: foo@bar, baz@barf;", ["foo@bar", "baz@barf"]),
        ("wietse\\ venema@porcupine.org", ["wietse venema@porcupine.org"]),
        ('"wietse venema', ["wietse venema"]),
        ("wietse@[stuff", ["wietse@[stuff]"]),
        ("a@[1.2.3.4]", ["a@[1.2.3.4]"]),
        (",", []),
        ("<>", [""]),
        ("<>, a@b", ["a@b"]),
        ("user", ["user"]),
    ],
)
def test_addresses(value: str, found: list[str]) -> None:
    assert addresses(value) == found


@pytest.mark.parametrize(
    ("value", "extended"),
    [
        ("d@x.y", "d+ext@x.y"),
        ("d1@x.y, d2", "d1+ext@x.y,d2+ext"),
        ("d+e@x.y", "d+e+ext@x.y"),
        ('"x y"@b', '"x y+ext"@b'),
        ("Name <d@x.y>", "d+ext@x.y"),
        ("user%host", "user+ext%host"),
        ("host!user", "host!user+ext"),
        (",", ""),
    ],
)
def test_extension(value: str, extended: str) -> None:
    assert append_extension(value, "+ext") == extended


@given(st.text())
def test_no_value_raises(value: str) -> None:
    append_extension(value, "+ext")
