"""Values as bytes: what Postfix reads of them, and that they come back exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.row_bytes import pack, unpack

# As they come from PostgreSQL: any bytes but NUL.
VALUE = st.binary(max_size=12).map(lambda data: data.replace(b"\0", b",").decode(errors="surrogateescape"))
ODD_VALUE = st.text(st.sampled_from(",a\u00e9\udcff"), max_size=4).filter(
    lambda text: text.encode(errors="surrogateescape").decode(errors="surrogateescape") == text
)


@given(st.lists(VALUE | ODD_VALUE, max_size=4).map(tuple))
def test_what_is_packed_comes_back(values: tuple[str, ...]) -> None:
    assert unpack(pack(values)) == values


@given(st.lists(VALUE | ODD_VALUE, max_size=4).map(tuple))
def test_postfix_reads_the_values_joined_by_commas(values: tuple[str, ...]) -> None:
    c_string = pack(values).partition(b"\0")[0]
    assert c_string == ",".join(values).encode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("values", "data"),
    [
        (("jan@home.test",), b"jan@home.test"),
        (("a", "b"), b"a,b"),
        ((), b"\0"),
        (("",), b""),
        (("", ""), b","),
        (("a,b",), b"a,b\0a,b"),
        (("a,b", "c"), b"a,b,c\0a,b\0c"),
        (("\udcff",), b"\xff"),
    ],
)
def test_the_bytes(values: tuple[str, ...], data: bytes) -> None:
    assert pack(values) == data
    assert unpack(data) == values
