"""Queries taken apart: a value stands where a literal stood, and nothing else has changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.sql_text import BadQuery, Statement, split
from mailmaps.maps.template import BadCode


def shown(statement: Statement) -> str:
    """The query with `<...>` for each value."""
    values = [
        "".join(f"%{piece.text}" if piece.is_code else piece.text for piece in value)
        for value in statement.values
    ]
    return "".join(f"{t}<{v}>" for t, v in zip(statement.texts, values, strict=False)) + statement.texts[-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t WHERE k='%s'", "SELECT a FROM t WHERE k=<%s>"),
        ("SELECT '%d/%u/', '@%d', 'x'", "SELECT <%d/%u/>, <@%d>, 'x'"),
        ("SELECT 'it''s %s'''", "SELECT <it's %s'>"),
        ("SELECT 'a''%%''b' || '%s'", "SELECT 'a''%''b' || <%s>"),
        ("SELECT ''''|| '%s' ||''", "SELECT ''''|| <%s> ||''"),
        ("SELECT a LIKE '%%%u%%'", "SELECT a LIKE <%%u%>"),
        ("SELECT 'back\\', '%s'", "SELECT 'back\\', <%s>"),
        ("SELECT E'%u\\'\\\\\\n\\x41\\101\\u0041\\q''', '%s'", "SELECT <%u'\\\nAAAq'>, <%s>"),
        ("SELECT e'\\'%s'", "SELECT <'%s>"),
        ("SELECT E'\\'' || '%s'", "SELECT E'\\'' || <%s>"),
        ("SELECT thee'%s'", "SELECT thee<%s>"),
        ("SELECT date'%s', '%u'::int", "SELECT date<%s>, <%u>::int"),
        ('SELECT "a\'b", \'%s\', "a""b"', 'SELECT "a\'b", <%s>, "a""b"'),
        ("SELECT $$it's$$, $x$'$$'$x$, '%s'", "SELECT $$it's$$, $x$'$$'$x$, <%s>"),
        ("SELECT a$b, a$1$c, '%s'", "SELECT a$b, a$1$c, <%s>"),
        ("SELECT B'01', x'1f', U&'d\\0061', '%s'", "SELECT B'01', x'1f', U&'d\\0061', <%s>"),
        ("SELECT U&\"d\\0061\", '%s'", 'SELECT U&"d\\0061", <%s>'),
        ("SELECT 1 -- '%s' it's", "SELECT 1  "),
        ("SELECT 1 -- '%s\n, '%u'", "SELECT 1  \n, <%u>"),
        ("SELECT 1/* %s ' /* */ ' */'%u'", "SELECT 1 <%u>"),
        ("SELECT 5/-2 - -3, '%s'", "SELECT 5/-2 - -3, <%s>"),
        ("SELECT '%s' ; ; ", "SELECT <%s>   "),
        ("SELECT '%s'; -- end", "SELECT <%s>  "),
        ("", ""),
    ],
)
def test_literals_with_placeholders_become_values(query: str, expected: str) -> None:
    assert shown(split(query)) == expected


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT %s", "outside quotes"),
        ("SELECT a FROM t WHERE k = %u AND v = '%s'", "outside quotes"),
        ("SELECT a%d", "outside quotes"),
        ("SELECT 'a'%s'b'", "outside quotes"),
        ("SELECT '''%s''' || '%u", "does not end"),
        ('SELECT "%s"', "quoted identifier"),
        ('SELECT "enable%s" FROM t', "quoted identifier"),
        ('SELECT "a', "does not end"),
        ("SELECT $$%s$$", "dollar-quoted"),
        ("SELECT $a$ $b$ %s $b$ $a$", "dollar-quoted"),
        ("SELECT $a$ '%s'", "does not end"),
        ("SELECT $a%s$", "dollar-quoted"),
        ("SELECT B'%s'", "B''"),
        ("SELECT X'%s'", "X''"),
        ("SELECT U&'%s'", "U&''"),
        ("SELECT E'\\'%s", "does not end"),
        ("SELECT E'\\", "does not end"),
        ("SELECT E'\\xC3%s'", "beyond ASCII"),
        ("SELECT $1, '%s'", "parameter"),
        ("SELECT 1 /* %s /* */", "comment that does not end"),
        ("SELECT '%s'; SELECT 2", "more than one statement"),
        ("SELECT '%s'; ''", "more than one statement"),
        ("SELECT 1;; --\n;%s", "more than one statement"),
        ("SELECT '%s'\0", "cannot"),
        ("SELECT '\uf8ff%s'", "cannot"),
    ],
)
def test_what_no_value_can_stand_in_is_refused(query: str, why: str) -> None:
    with pytest.raises(BadQuery, match=why):
        split(query)


def test_an_unknown_code_is_refused_even_in_a_comment() -> None:
    with pytest.raises(BadCode):
        split("SELECT 1 -- 100%")


def test_codes_of_comments_count_and_those_of_escaped_percent_signs_do_not() -> None:
    assert split("SELECT '%%s' /* %d */ -- %9").codes == {"d", "9"}


def test_words_are_the_identifiers_outside_quotes() -> None:
    assert split("SELECT Now(), \"quoted\", 'literal' FROM a.b -- gone").words == {
        "select",
        "now",
        "from",
        "a",
        "b",
    }


@pytest.mark.parametrize(
    ("query", "frozen"),
    [
        ("SELECT '%s' WHERE x > 'now'", True),
        ("SELECT '%s' WHERE x > E' NOW '", True),
        ("SELECT 'Today'::date", True),
        ("SELECT timestamptz 'tomorrow'", True),
        ("SELECT 'nowhere', now(), 'know'", False),
        ("SELECT \"now\" -- 'now'", False),
    ],
)
def test_constants_that_mean_the_time_of_parsing(query: str, *, frozen: bool) -> None:
    assert split(query).frozen is frozen


@pytest.mark.parametrize("query", ["SELECT x > 'today 12:00'", "SELECT '[now,)'::tstzrange @> x"])
def test_such_constants_with_more_in_them(query: str) -> None:
    assert split(query).frozen


# What a query is made of, whole or cut in the middle.
FRAGMENTS = [
    *(
        "'",
        "''",
        "\\",
        "\\'",
        '"',
        "%s",
        "%u",
        "%%",
        "$$",
        "$a$",
        "--",
        "\n",
        "/*",
        "*/",
        ";",
        " ",
        "E'",
        "e'",
    ),
    *("a", "E", "B'", "U&'", 'U&"', "$1", "$", "(", "/", "*", "-", "'%s'", "é", "\\x41", "1"),
]
queries = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@given(queries)
def test_no_placeholder_gets_out_and_none_is_lost(query: str) -> None:
    """Whatever is accepted: the texts between are SQL whose literals all end, and hold no placeholder."""
    try:
        statement = split(query)
    except (BadQuery, BadCode):
        return
    again = split(" '%s' ".join(text.replace("%", "%%") for text in statement.texts))
    assert len(again.values) == len(statement.values), "a value would stand inside something"
    assert "?".join(again.texts) == " ? ".join(statement.texts)
    assert all(any(piece.is_code for piece in value) for value in statement.values)


@given(st.text(alphabet="'\\\"%$-/*;\n aE", max_size=20))
def test_a_quoted_text_is_read_back(text: str) -> None:
    query = "SELECT '" + text.replace("'", "''").replace("%", "%%") + "%s', 'x%s'"
    first, _ = split(query).values
    assert "".join(piece.text for piece in first) == f"{text}s"
