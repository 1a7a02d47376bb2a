"""Text goes into roff and comes out of a formatter as it was."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.manual.pages import plain

from mailmaps.manual import roff

TEXTS = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="\u00a0\u00ad"),
    min_size=1,
).map(lambda text: " ".join(text.split()))


@given(TEXTS)
def test_what_is_escaped_can_be_read_back(text: str) -> None:
    escaped = roff.escape(text)
    assert plain(escaped) == text
    assert escaped.isascii()


@pytest.mark.postfix
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_categories=("C", "Zs", "Zl"))))
def test_formatters_print_exactly_the_text(text: str) -> None:
    lines = [".TH T 1 2026-11-23", ".SH NAME", "t \\- t", ".SH S", *roff.example([f"<{text}>"])]
    source = "\n".join(lines) + "\n"
    for program in (["mandoc", "-man", "-Tutf8"], ["groff", "-man", "-Tutf8", "-P-c", "-rLL=400n"]):
        shown = subprocess.run(program, input=source, capture_output=True, text=True, check=True).stdout
        assert f"<{text}>" in shown


def test_a_line_never_begins_as_a_macro() -> None:
    lines = roff.filled(".cf files, " * 40 + "'quoted' .lines")
    assert len(lines) > 3
    assert not [line for line in lines if line.startswith((".", "'"))]
    assert roff.example([".SH NAME", "'"])[3:5] == ["\\&.SH NAME", "\\(aq"]


def test_code_and_pages_are_bold_and_variables_are_underlined() -> None:
    assert roff.marked("as `postmap -q` and postmap(1) do for NAME, NAMES", {"NAME"}) == (
        "as \\fBpostmap \\-q\\fR and \\fBpostmap\\fR(1) do for \\fINAME\\fR, NAMES"
    )


def test_each_sentence_begins_a_line() -> None:
    assert roff.filled('One (1.5). Two, e.g. this "x." Three.') == [
        "One (1.5).",
        'Two, e.g. this "x."',
        "Three.",
    ]
