"""What is said about .cf files before they move."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailmaps.config.settings import Postfix
from mailmaps.migration.files import CfFile, inspect

HEAD = "hosts = 127.0.0.1\npassword = not to be shown\ndbname = mail\n"


def inspected(folder: Path, text: str, mode: int = 0o644) -> CfFile:
    path = folder / "a.cf"
    path.write_text(text)
    path.chmod(mode)
    return inspect(f"pgsql:{path}", Postfix())


@pytest.mark.parametrize(
    ("query", "line", "word"),
    [
        ("query = SELECT `goto` FROM alias WHERE address='%s'", 4, "backticks"),
        ("query = SELECT a FROM b\n  WHERE '%s' REGEXP destination", 5, "REGEXP"),
        ("query = SELECT a FROM b WHERE k='%s'\n # no\n\n AND v >= UNIX_TIMESTAMP()", 7, "UNIX_TIMESTAMP()"),
        ("query = SELECT IF(x = '%s', a, b) FROM c", 4, "IF()"),
        ("query = SELECT JSON_VALUE(a, '$.b') FROM c WHERE d = '%s'", 4, "JSON functions"),
        ("query = SELECT a FROM b WHERE k = '%s' LIMIT 0, 1", 4, "LIMIT a, b"),
        ("table = t\nselect_field = IFNULL(a, b)\nwhere_field = k", 5, "IFNULL()"),
    ],
)
def test_what_only_mysql_knows(tmp_path: Path, query: str, line: int, word: str) -> None:
    (problem,) = inspected(tmp_path, f"{HEAD}{query}\n").problems
    assert problem.startswith(f"{tmp_path}/a.cf:{line}: ")
    assert word in problem


@pytest.mark.parametrize(
    "query",
    [
        "query = SELECT 'IF (`' || a FROM b WHERE c = '%s' AND notify (1) AND gift(2) LIMIT 1",
        "query = SELECT CONCAT(a, '@', b), COALESCE(a, b) FROM c WHERE d = '%s' AND x ~* 'regexp ''`'",
    ],
)
def test_what_postgresql_knows_too(tmp_path: Path, query: str) -> None:
    assert inspected(tmp_path, f"{HEAD}{query}\n") == CfFile(f"pgsql:{tmp_path}/a.cf")


def test_all_problems_are_said_and_no_password(tmp_path: Path) -> None:
    found = inspected(tmp_path, f"{HEAD}query = SELECT `a` FROM b WHERE c = %s\nexpansion_limit = x\n")
    assert [problem.partition(": ")[2].partition(":")[0] for problem in found.problems] == [
        "query",
        "expansion_limit",
        "query",
    ]
    assert "not to be shown" not in str(found)
    assert not found.broken


def test_who_may_read_it(tmp_path: Path) -> None:
    query = "query = SELECT a FROM b WHERE c = '%s'\n"
    assert inspected(tmp_path, HEAD + query, 0o644).access == ""
    found = inspected(tmp_path, HEAD + query, 0o600)
    assert found.access.startswith("0600 ")
    assert found.group == ""
    os.chown(tmp_path / "a.cf", -1, 65534)
    found = inspected(tmp_path, HEAD + query, 0o640)
    assert (found.access.rpartition(":")[2], found.group) == ("nogroup", "nogroup")


@pytest.mark.parametrize(
    ("hosts", "unix"), [("unix:/run/x", True), ("/run/x", True), ("127.0.0.1:5 db", False)]
)
def test_a_unix_socket_is_noticed(tmp_path: Path, hosts: str, unix: bool) -> None:
    text = f"hosts = {hosts}\ndbname = x\nquery = SELECT a FROM b WHERE c = '%s'\n"
    assert inspected(tmp_path, text).unix_socket is unix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = inspect(f"pgsql:{tmp_path}/none.cf", Postfix())
    assert found.problems == (f"{tmp_path}/none.cf: No such file or directory",)
    assert found.broken
