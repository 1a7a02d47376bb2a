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
    ("value", "extension", "extended"),
    [
        ("d@x.y", "+ext", "d+ext@x.y"),
        ("d1@x.y, d2", "+ext", "d1+ext@x.y,d2+ext@origin.test"),
        ("d+e@x.y", "+ext", "d+e+ext@x.y"),
        ('"x y"@b', "+ext", '"x y+ext"@b'),
        ("Name <d@x.y>", "+ext", "d+ext@x.y"),
        ("user%host.test", "+ext", "user+ext@host.test"),
        ("a%b%host.test", "+ext", "a%b+ext@host.test"),
        ("host.test!user", "+ext", "user+ext@host.test"),
        ('"user%host.test"', "+ext", "user%host.test+ext@origin.test"),
        ("@relay.test:d@x.y", "+ext", "d+ext@x.y"),
        (",", "+ext", ""),
        # What a stranger writes must not become another host's address: each of these would relay.
        ("bare", "+x%evil.test", "bare+x%evil.test@origin.test"),
        ("bare", "+evil.test!x", "bare+evil.test!x@origin.test"),
        ("bare", "+x@evil.test", '"bare+x@evil.test"@origin.test'),
        ("user%host.test", "+x y", '"user+x y"@host.test'),
        ('"a@b"', "+x", '"a@b+x"@origin.test'),
    ],
)
def test_extension(value: str, extension: str, extended: str) -> None:
    assert append_extension(value, extension, "origin.test") == extended


@pytest.mark.parametrize(
    ("extension", "extended"),
    [("+ext", "bare+ext"), ("+x%evil.test", '"bare+x%evil.test"'), ("+evil.test!x", '"bare+evil.test!x"'),
     ("+x@evil.test", '"bare+x@evil.test"')],
)  # fmt: skip
def test_extension_where_myorigin_is_not_known(extension: str, extended: str) -> None:
    assert append_extension("bare", extension, "") == extended


@given(st.text())
def test_no_value_raises(value: str) -> None:
    append_extension(value, "+ext", "origin.test")
