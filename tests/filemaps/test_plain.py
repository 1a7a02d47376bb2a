"""Rows of which nothing is to be said, by the rule that sees it at once and by the whole rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.filemaps.contents import NOTHING, Contents
from mailmaps.filemaps.targets import FileTable
from mailmaps.maps.row_bytes import pack
from mailmaps.maps.search import Rules
from mailmaps.maps.tables import KINDS

NAME = "virtual_alias_maps"
KEYS = st.one_of(
    st.binary(min_size=1, max_size=5),
    st.text("a@Z \x7f\n\t\0\xe4~[`", min_size=1, max_size=5).map(str.encode),
    st.emails().map(str.encode),
)
VALUES = st.lists(st.text("aA@ ,~\x7f\n\t\xe4", max_size=4), max_size=3).map(lambda texts: pack(tuple(texts)))


def contents(*, bare_keys: bool) -> Contents:
    table = FileTable(NAME, NAME, KINDS[NAME], ("v",), group="", bare_keys=bare_keys)
    return Contents([table], Rules(), 5000)


@given(KEYS, VALUES, st.booleans())
def test_plain_rows_are_what_the_whole_rule_takes_as_they_are(key: bytes, packed: bytes, bare: bool) -> None:
    rule = contents(bare_keys=bare)
    if rule.plain(NAME).fullmatch(b"%b\n%b" % (key, packed)):
        assert packed != NOTHING
        assert (rule.unasked(key), rule.is_ignored(NAME, key), rule.value(packed)) == (
            "",
            False,
            (packed, ""),
        )


@pytest.mark.parametrize("key", [b"a@ex.test", b"@ex.test", b"first last+x@ex.test"])
def test_most_rows_are_plain(key: bytes) -> None:
    for bare in (True, False):
        assert contents(bare_keys=bare).plain(NAME).fullmatch(key + b"\na@ex.test,B@ex.test")
