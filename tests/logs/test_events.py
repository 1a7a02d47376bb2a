"""What an event becomes: one line that nobody who fills a field can forge."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.logs import events, where
from mailmaps.logs.events import LONGEST_VALUE, rendered
from mailmaps.logs.output import line_of

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)(?: |$)')
SURROGATES = st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), max_size=3)


def unquoted(value: str) -> str:
    """The value that stands there, as a program would read it."""
    if not value.startswith('"'):
        return value
    return re.sub(
        r"\\(x..|u....|U........|.)",
        lambda found: {"n": "\n", "r": "\r", "t": "\t"}.get(
            found[1], chr(int(found[1][1:], 16)) if len(found[1]) > 1 else found[1]
        ),
        value[1:-1],
    )


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("jan@ex.test", "jan@ex.test"),
        ("<>", "<>"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ("\\n", r'"\\n"'),
        ("two\nlines\r\t", r'"two\nlines\r\t"'),
        ("\x1b[31m\0", r'"\x1b[31m\x00"'),
        ("\udcff", r'"\udcff"'),
        ("\u202eltr", r'"\u202eltr"'),
        ("bücher", '"bücher"'),
        (b"k\xff", r'"k\udcff"'),
        (7, "7"),
        (0.25, "0.25"),
        (True, "yes"),
        (Path("/run/a"), "/run/a"),
    ],
)
def test_a_value(value: object, line: str) -> None:
    assert rendered(value) == line


@given(st.one_of(st.text(max_size=LONGEST_VALUE), SURROGATES), st.text(max_size=20))
def test_whatever_is_said_is_one_field(first: str, second: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "text a=%s b=%s", (), None)
    record.args = (rendered(first), rendered(second))
    line = line_of(record).text
    assert line.isprintable()
    assert line.encode()
    assert [(key, unquoted(value)) for key, value in FIELD.findall(line)] == [("a", first), ("b", second)]


def test_a_value_has_a_longest() -> None:
    assert len(rendered("x" * 10**6)) <= LONGEST_VALUE
    assert rendered("begins" + "x" * 10**6 + "ends").endswith("ends")


def test_the_text_stays_and_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log = events("some.module")
    log.warning("100% of it", a=None, b=1)
    log.error("it broke")
    assert [(one.name, one.levelname, one.getMessage()) for one in caplog.records] == [
        ("some.module", "WARNING", "100% of it b=1"),
        ("some.module", "ERROR", "it broke"),
    ]


def test_a_fault_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("hunter2")
    events("m").fault("internal error", raised.value, door="d")
    assert where(raised.value).startswith("RuntimeError at test_events.py:")
    assert "hunter2" not in caplog.text
    assert 'internal error door=d fault="RuntimeError at test_events.py:' in caplog.text


def test_a_traceback_is_folded() -> None:
    try:
        raise RuntimeError("two\nlines \x1b[31m")
    except RuntimeError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("m", logging.ERROR, "", 0, "two\nlines", (), info)
    line = line_of(record)
    assert line.text == "m: two | lines"
    assert line.trace.startswith("Traceback (most recent call last): | File ")
    assert line.trace.endswith(r" | RuntimeError: two | lines \x1b[31m")
