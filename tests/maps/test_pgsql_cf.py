"""A whole file as a table: what it asks, what it makes of the answer, what is wrong with it."""

from __future__ import annotations

import pytest

from mailmaps.maps.cf_text import CfError, settings
from mailmaps.maps.pgsql_cf import CfTable, ExpansionLimit, Place, parse

LOGIN = "hosts = db.test\nuser = u\npassword = secret\ndbname = mail\n"


def table(text: str, *, login: str = LOGIN, mail_version: str = "") -> CfTable:
    files = {"/domains": "one.test"}
    return parse(
        settings(login + text, "/x.cf"), "/x.cf", mail_version=mail_version, read_file=files.__getitem__
    )


def query_of(cf: CfTable) -> str:
    texts, values = cf.query.texts, cf.query.values
    literals = ["".join(f"%{piece.text}" if piece.is_code else piece.text for piece in one) for one in values]
    return "".join(f"{text}<{literal}>" for text, literal in zip(texts, literals, strict=False)) + texts[-1]


OLD = "table = t\nselect_field = f\nwhere_field = k\n"


@pytest.mark.parametrize(
    ("text", "query", "line"),
    [
        ("query = SELECT '%s'", "SELECT <%s>", 5),
        ("\n#\nquery = SELECT '%s'\nselect_function = f\n" + OLD, "SELECT <%s>", 7),
        ("select_function = schema.f\n" + OLD, "SELECT schema.f(<%s>)", 5),
        (OLD + "additional_conditions = AND '%u' <> ''", "SELECT f FROM t WHERE k=<%s> AND <%u> <> ''", 5),
    ],
)
def test_the_query_and_its_older_names(text: str, query: str, line: int) -> None:
    assert (query_of(table(text)), table(text).line) == (query, line)


def test_the_line_is_that_of_the_setting_in_use() -> None:
    assert table(OLD + "query =").line == 5


@pytest.mark.parametrize("name", ["ISO_8859_5", "ISO_8859_8", "WINDOWS1252", "WINDOWS949", "KOI8R"])
def test_every_encoding_of_postgresql_is_known(name: str) -> None:
    assert table(f"query = SELECT '%s'\nencoding = {name}").encoding


def test_arguments_are_whole_literals() -> None:
    cf = table("query = SELECT 'x''%d/%u/', '%s' FROM t WHERE k = '@%d'")
    assert cf.arguments("o'x@d.test") == ["x'd.test/o'x/", "o'x@d.test", "@d.test"]
    assert cf.arguments("bare") is None
    assert table("query = SELECT '%s'\ndomain = /domains").arguments("u@two.test") is None
    assert table("query = SELECT '%s'\ndomain = /domains").arguments("u@one.test") == ["u@one.test"]


def test_values_are_all_fields_formatted_but_for_null_and_empty_ones() -> None:
    cf = table("query = SELECT '%s'\nresult_format = %d:%u:%S")
    assert cf.values("k@x", ["a@b", None, "", "no at", "@b", "c@"]) == ("b:a:k@x",)
    assert table("query = SELECT '%s'").values("k", [" a ", "b,c"]) == (" a ", "b,c")


def test_over_the_limit_there_is_no_answer_rather_than_a_part_of_it() -> None:
    cf = table("query = SELECT '%s'\nexpansion_limit = 2\nresult_format = %u")
    assert cf.values("k", ["a", None, "@skipped", "", "b"]) == ("a", "b")
    with pytest.raises(ExpansionLimit, match="more than 2"):
        cf.values("k", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "version", "encoding"),
    [
        ("", "", "utf-8"),
        ("", "3.7.11", "iso8859-1"),
        ("", "2.11.0", "iso8859-1"),
        ("", "3.8.0", "utf-8"),
        ("", "3.10.5", "utf-8"),
        ("encoding = latin-1", "3.10.5", "iso8859-1"),
        ("encoding = UTF8", "3.7.11", "utf-8"),
        ("encoding = WIN1252", "", "cp1252"),
        ("encoding = WIN866", "", "cp866"),
        ("encoding = LATIN9", "", "iso8859-15"),
        ("encoding = EUC_JP", "", "euc_jp"),
    ],
)
def test_the_encoding_is_that_of_the_postfix_it_replaces(text: str, version: str, encoding: str) -> None:
    assert table(f"query = SELECT '%s'\n{text}", mail_version=version).encoding == encoding


def test_latin1_reads_the_bytes_of_utf_8_one_by_one() -> None:
    cf = table("query = SELECT '%s'", mail_version="3.7.11")
    assert cf.arguments("ü@x") == ["Ã¼@x"]
    assert cf.arguments("\udcff@x") == ["ÿ@x"]
    assert cf.values("k", ["Ã¼", "ÿ"]) == ("ü", "\udcff")
    with pytest.raises(UnicodeError):
        cf.values("k", ["€"])
    assert table("query = SELECT '%s'").arguments("\udcff@x") is None


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("", ("localhost",)),
        (" , ", ("localhost",)),
        ("a, b:1\tunix:/x,,postgresql://h/d", ("a", "b:1", "unix:/x", "postgresql://h/d")),
    ],
)
def test_hosts_are_a_list(hosts: str, expected: tuple[str, ...]) -> None:
    cf = table("query = SELECT '%s'", login=f"hosts = {hosts}\ndbname = d\n")
    assert cf.place == Place(expected, "", "", "d")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("query = SELECT %s", ["/x.cf:5: query: a placeholder outside quotes"]),
        (
            "query = SELECT '%x'\nresult_format = %",
            ["/x.cf:5: query: %x", "/x.cf:6: result_format: a lone %"],
        ),
        ("query = SELECT 1; SELECT 2", ["/x.cf:5: query: more than one statement"]),
        (OLD.replace("= k", '= "%s'), ["/x.cf:5: table: "]),
        ("select_function = f(%s,", ["/x.cf:5: select_function: "]),
        ("table = t", ["/x.cf: no query, no select_function"]),
        ("query = SELECT '%s'\nresult_format =", ["/x.cf:6: result_format: must not be empty"]),
        ("query = SELECT '%s'\nexpansion_limit = 1k", ["/x.cf:6: expansion_limit: "]),
        ("query = SELECT '%s'\nidle_interval = 0", ["/x.cf:6: idle_interval: "]),
        ("query = SELECT '%s'\nretry_interval = 60s", ["/x.cf:6: retry_interval: "]),
        ("query = SELECT '%s'\nencoding = klingon", ["/x.cf:6: encoding: "]),
        ("query = SELECT '%s'\nencoding =", ["/x.cf:6: encoding: "]),
        ("query = SELECT '%s'\ndomain = hash:/x", ["/x.cf:6: domain: hash:/x"]),
    ],
)
def test_every_problem_is_told_with_file_and_line(text: str, problems: list[str]) -> None:
    with pytest.raises(CfError) as refused:
        table(text)
    assert len(refused.value.problems) == len(problems)
    for problem, beginning in zip(refused.value.problems, problems, strict=True):
        assert problem.startswith(beginning)
    assert "secret" not in str(refused.value)


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(table("query = SELECT '%s'"))
