"""`mailmaps compare`: what it refuses, and its words. With both sides: tests/system/test_migration.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailmaps.cli import main
from mailmaps.cli.compare import _Job, _report
from mailmaps.cli.options import Failure
from mailmaps.config import load
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.migration.comparison import Compared, Result

TOML = """\
builtin_tables = false
[tables.virtual_alias_maps]
sources = ["pgsql:/etc/postfix/none.cf"]
tcp = "127.0.0.1:1"
[tables.transport_maps]
sources = ["pgsql:/etc/postfix/none.cf", "builtin"]
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mailmaps.toml"
    path.write_text(TOML)
    (tmp_path / "keys").write_text("a@ex.test\n")
    return str(path)


def run(config: str, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["compare", "--config", config, *words])
    return result.exit_code, result.output


def test_one_kind_of_keys(config: str, tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    for words in ([], ["--keys", keys, "--all"], ["--keys", keys, "--maillog", keys]):
        code, output = run(config, *words)
        assert code == 2
        assert "give one of --keys FILE, --maillog FILE and --all" in output


def test_only_tables_of_files_can_be_compared(config: str, tmp_path: Path) -> None:
    words = ["--keys", str(tmp_path / "keys"), "--table"]
    assert run(config, *words, "transport_maps") == (
        78,
        "not compared: transport_maps answers from more than pgsql: files\n"
        "Error: no table answers from pgsql: files, so there is nothing to compare with\n",
    )
    code, output = run(config, *words, "nothing")
    assert code == 78
    assert "no such table: nothing; there are" in output


def test_a_daemon_that_does_not_run(config: str, tmp_path: Path) -> None:
    code, output = run(config, "--keys", str(tmp_path / "keys"))
    assert code == 75
    assert "mailmaps does not answer for virtual_alias_maps" in output


def test_no_keys_prove_nothing(config: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nothing\n\n")
    code, output = run(config, "--keys", str(tmp_path / "keys"))
    assert code == 69
    assert output.endswith("Error: there are no keys to ask\n")


def test_all_wants_the_files(config: str) -> None:
    code, output = run(config, "--all")
    assert code == 78
    assert "/etc/postfix/none.cf: No such file or directory" in output


@pytest.mark.postfix
def test_the_old_side_goes_by_postfixs_own_settings(config: str, tmp_path: Path) -> None:
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    (tmp_path / "main.cf").write_text(
        f"myhostname = mx.ex.test\nmydestination = {tmp_path}/local hash:/x\nrecipient_delimiter = -\n"
    )
    (tmp_path / "local").write_text("local.test\n")
    os.utime(tmp_path / "main.cf", (0, 0))
    job = _Job(load(Path(config)), tmp_path)
    assert job.settings.postfix.recipient_delimiter == ""
    assert job.old_rules.recipient_delimiter == "-"
    assert job.old_rules.mydestination == {"local.test"}
    with pytest.raises(Failure, match="the old side cannot be asked: postconf"):
        _ = _Job(job.settings, tmp_path / "nothing").old_rules


AWAY = Unavailable("away")


@pytest.mark.parametrize(
    ("pairs", "code", "last"),
    [
        ([(Found("x"), Found("x")), (NOT_FOUND, NOT_FOUND)], 0, "2 lookups, 1 of them found: 0 different, 0"),
        ([(Found("x"), NOT_FOUND), (AWAY, NOT_FOUND)], 1, "2 lookups, 1 of them found: 1 different, 1"),
        ([(NOT_FOUND, AWAY), (NOT_FOUND, NOT_FOUND)], 75, "2 lookups, 0 of them found: 0 different, 1"),
        ([(AWAY, AWAY), (NOT_FOUND, NOT_FOUND)], 0, "2 lookups, 0 of them found: 0 different, 0"),
        ([(AWAY, AWAY)], 75, "1 lookups, 0 of them found: 0 different, 0"),
    ],
)  # fmt: skip
def test_exit_code(
    pairs: list[tuple[Answer, Answer]], code: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result()
    for old, new in pairs:
        result.add(Compared("t", "\udcff@ex.test", old, new))
    assert _report(result) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)
