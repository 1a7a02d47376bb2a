"""The lines of a Postfix configuration file, as readlline.c and split_nameval.c read them."""

from __future__ import annotations

import pytest

from mailmaps.maps.cf_text import CfError, Setting, logical_lines, settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n \t\n# x\n  # y\n", []),
        ("a = 1\nb = 2", [("a = 1", 1), ("b = 2", 2)]),
        ("a = 1\n  2\n\t3\nb", [("a = 1  2\t3", 1), ("b", 4)]),
        ("a = 1\n# between\n\n \n  # indented\n 2", [("a = 1 2", 1)]),
        ("# first\n\na = 1\n#b\nb = 2", [("a = 1", 3), ("b = 2", 5)]),
        ("# x\n\n a = 1\n 2\nb = 3\n c", [("b = 3 c", 5)]),
        ("a = 1\r\n 2\r\n\r\nb\r\n", [("a = 1\r 2\r", 1), ("b\r", 4)]),
    ],
)
def test_a_line_that_begins_with_a_blank_continues(text: str, expected: list[tuple[str, int]]) -> None:
    assert list(logical_lines(text)) == [Setting(*line) for line in expected]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("a=b", "a", "b"),
        (" \ta \v= \f b \r", "a", "b"),
        ("a==", "a", "="),
        ("a = b = c # no comment", "a", "b = c # no comment"),
        ("a =", "a", ""),
        ("a = \"$b\" '%s'", "a", "\"$b\" '%s'"),
        ("a-b.c = \u00a0x\u00a0", "a-b.c", "\u00a0x\u00a0"),
        ("a = \x1fx\x85", "a", "\x1fx\x85"),
    ],
)
def test_blanks_are_trimmed_and_nothing_else_is_changed(line: str, name: str, value: str) -> None:
    # A first line that begins with a blank continues nothing, and is dropped.
    assert settings(line.lstrip(" \t"), "file") == {name: Setting(value, 1)}


def test_of_a_name_given_twice_the_last_counts() -> None:
    assert settings("a = 1\nb = 2\na = 3\n", "file") == {"a": Setting("3", 3), "b": Setting("2", 2)}


def test_every_line_that_cannot_be_read_is_named_and_not_shown() -> None:
    with pytest.raises(CfError) as refused:
        settings("a = 1\nsecret\n  word\n= secret\nb c = secret\n", "/x.cf")
    assert [problem.split(": ")[0] for problem in refused.value.problems] == ["/x.cf:2", "/x.cf:4", "/x.cf:5"]
    assert "secret" not in str(refused.value)
