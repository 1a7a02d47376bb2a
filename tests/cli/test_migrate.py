"""`mailmaps migrate` as a postmaster runs it: the files, the words, the exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailmaps.cli import main
from mailmaps.config import load

pytestmark = pytest.mark.postfix

CF = """\
hosts = unix:/run/postgresql
password = not to be shown
dbname = mail
query = SELECT goto FROM alias WHERE address = '%s'
"""
GOOD = """\
recipient_delimiter = +
virtual_alias_domains =
virtual_alias_maps = proxy:pgsql:$config_directory/a.cf
"""
FILES = ["MIGRATION.md", "back.sh", "mailmaps.toml", "main.cf.new", "main.cf.old", "switch.sh"]


def postfix(folder: Path, main_cf: str) -> Path:
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    (folder / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = mx.example.com\n{main_cf}")
    (folder / "master.cf").write_text("smtp inet n - n - - smtpd\nvirtual unix - n n - - virtual\n")
    os.utime(folder / "main.cf", (0, 0))
    (folder / "a.cf").write_text(CF)
    (folder / "a.cf").chmod(0o640)
    return folder


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


def run(etc: Path, out: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["migrate", "--config-dir", str(etc), "--out", str(out), *words])
    return result.exit_code, result.output


@pytest.mark.parametrize("map_type", ["tcp", "socketmap"])
def test_everything_moves(etc: Path, tmp_path: Path, map_type: str) -> None:
    postfix(etc, GOOD)
    before = {path: path.read_bytes() for path in etc.iterdir()}
    out = tmp_path / "out"
    code, output = run(etc, out, "--map-type", map_type)
    endpoint = {
        "tcp": "tcp:127.0.0.1:17013",
        "socketmap": "socketmap:inet:127.0.0.1:17020:virtual_alias_maps",
    }[map_type]
    assert output == (
        f"moves  virtual_alias_maps: {endpoint}\n"
        f"Read {out}/MIGRATION.md first; nothing has been changed yet.\n"
    )
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert {path: path.read_bytes() for path in etc.iterdir()} == before
    alias_maps, proxy_read_maps = (out / "main.cf.new").read_text().splitlines()
    assert alias_maps == f"virtual_alias_maps = {endpoint}"
    assert proxy_read_maps.endswith(f" proxy:pgsql:{etc}/a.cf")
    assert (out / "main.cf.old").read_text() == (
        "virtual_alias_maps = proxy:pgsql:$config_directory/a.cf\n# proxy_read_maps is not set\n"
    )
    assert "not to be shown" not in "".join(path.read_text() for path in out.iterdir())


def test_the_settings_can_be_loaded(etc: Path, tmp_path: Path) -> None:
    run(postfix(etc, GOOD), tmp_path / "out")
    settings = load(tmp_path / "out" / "mailmaps.toml")
    assert list(settings.tables) == ["virtual_alias_maps"]
    assert settings.tables["virtual_alias_maps"].sources == [f"pgsql:{etc}/a.cf"]
    assert settings.tables["virtual_alias_maps"].tcp == "127.0.0.1:17013"
    assert settings.postfix.recipient_delimiter == "+"
    assert settings.postfix.myorigin == "mx.example.com"
    assert settings.postfix.config_directory == str(etc)
    assert settings.postfix.mail_version.startswith("3.")
    text = (tmp_path / "out" / "mailmaps.toml").read_text()
    assert "# How long an answer of a query is remembered" in text, "the documentation is in it"


def test_the_scripts_go_there_and_back(etc: Path, tmp_path: Path) -> None:
    postfix(etc, f"{GOOD}virtual_mailbox_domains = x\nvirtual_mailbox_maps = pgsql:$config_directory/a.cf\n")

    def state() -> str:
        os.utime(etc / "main.cf", (0, 0))
        words = f"postconf -c {etc} -n; postconf -c {etc} -M"
        return subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=True).stdout

    before = state()
    run(etc, tmp_path / "out")
    for script, differs in (("switch.sh", True), ("back.sh", False)):
        done = subprocess.run(
            ["sh", str(tmp_path / "out" / script)], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"now: postfix -c {etc} reload\n"
        assert (state() != before) is differs
    line = f"-P virtual/unix/virtual_mailbox_maps=pgsql:{etc}/a.cf\n"
    assert line in (tmp_path / "out" / "switch.sh").read_text()


def test_the_page(etc: Path, tmp_path: Path) -> None:
    postfix(
        etc,
        f"{GOOD}virtual_mailbox_maps = proxy:pgsql:$config_directory/a.cf\n"
        "transport_maps = hash:/etc/postfix/transport pgsql:$config_directory/a.cf\n"
        "virtual_uid_maps = pgsql:$config_directory/a.cf\nrelocated_maps = mysql:/etc/postfix/b.cf\n"
        "mydestination = $myhostname, hash:/etc/postfix/more\n",
    )
    (etc / "a.cf").write_text(f"{CF}domain = ex.test\n")
    code, output = run(etc, tmp_path / "out")
    page = (tmp_path / "out" / "MIGRATION.md").read_text()
    assert code == 1
    assert "stays  relocated_maps: mysql:/etc/postfix/b.cf: not PostgreSQL\n" in output
    for text in (
        "3 uses of `pgsql:` to 3 tables of mailmaps; 2 uses with PostgreSQL as before.",
        "| virtual_alias_maps | virtual_alias_maps | virtual_alias_maps | "
        f"`pgsql:{etc}/a.cf` | `tcp:127.0.0.1:17013` |",
        "| virtual_mailbox_domains (by default) |",
        f"* **transport_maps**: `pgsql:{etc}/a.cf`: a mixed list, with hash:/etc/postfix/transport:",
        "**virtual_uid_maps**",
        "With delivery by LMTP nobody reads it.",
        "* **relocated_maps: mysql:/etc/postfix/b.cf**: not PostgreSQL; mailmaps does not answer for it.",
        "virtual(8) refuses network tables and would defer all mail",
        "since Postfix's default is $virtual_mailbox_maps, which is searched in another order",
        f"#LoadCredential=a.cf:{etc}/a.cf",
        f"* `{etc}/a.cf`: 0640 root:root",
        "If pg_hba.conf says `peer` there",
        "mydestination names what cannot be taken over: hash:/etc/postfix/more (a table)",
        f"sh {tmp_path}/out/back.sh && postfix -c {etc} reload",
    ):
        assert text in page


def test_a_file_in_mydestination_is_taken_over(etc: Path, tmp_path: Path) -> None:
    postfix(etc, f"{GOOD}mydestination = $myhostname, {tmp_path}/local\n")
    (tmp_path / "local").write_text(f"# ours\nlocal.test,\n  two.test !no.test\n{tmp_path}/more\n")
    (tmp_path / "more").write_text("no.test three.test\n")
    code, output = run(etc, tmp_path / "out")
    assert (code, "note" in output) == (0, False)
    found = load(tmp_path / "out" / "mailmaps.toml").postfix.mydestination
    assert found == ["mx.example.com", "local.test", "two.test", "three.test"]


@pytest.mark.parametrize(
    ("value", "lost"),
    [
        ("hash:/etc/postfix/more", "hash:/etc/postfix/more (a table)"),
        ("!pgsql:/etc/postfix/more", "!pgsql:/etc/postfix/more (a table)"),
        ("/nonexistent/more", "/nonexistent/more (No such file or directory)"),
    ],
)
def test_bare_local_parts_of_unknown_domains_stay(etc: Path, tmp_path: Path, value: str, lost: str) -> None:
    postfix(etc, f"{GOOD}mydestination = $myhostname, {value}\n")
    code, output = run(etc, tmp_path / "out")
    note = f"mydestination names what cannot be taken over: {lost}"
    assert code == 1
    assert "stays  virtual_alias_maps: for a domain of mydestination Postfix asks the local part" in output
    assert f"note   {note}\n" in output
    assert "tcp:" not in (tmp_path / "out" / "main.cf.new").read_text()


@pytest.mark.parametrize(
    ("line", "moves"),
    [
        ("domain = ex.test", True),
        ("query = SELECT x FROM t WHERE u = '%u' AND d = '%d'", True),
        ("query = SELECT x FROM t WHERE u = '%u'", False),
    ],
)
def test_files_that_never_answer_a_bare_local_part_move(
    etc: Path, tmp_path: Path, line: str, moves: bool
) -> None:
    postfix(etc, f"{GOOD}mydestination = hash:/etc/postfix/more\nrelay_domains = $virtual_alias_maps\n")
    (etc / "a.cf").write_text(f"{CF}{line}\n")
    code, output = run(etc, tmp_path / "out")
    assert code == 1, "the note is no less a note"
    assert ("moves  virtual_alias_maps" in output) is moves
    assert "moves  relay_domains" in output, "a domain has no local part"


def test_what_a_service_reads_otherwise_is_said(etc: Path, tmp_path: Path) -> None:
    postfix(etc, GOOD)
    with (etc / "master.cf").open("a") as master_cf:
        master_cf.write("smtps inet n - n - - smtpd\n  -o recipient_delimiter=-\n")
    code, output = run(etc, tmp_path / "out")
    why = (
        "this service searches otherwise than main.cf says (recipient_delimiter = -), so it goes on asking "
        "PostgreSQL itself"
    )
    assert code == 1
    assert f"stays  master.cf smtps/inet -o virtual_alias_maps: {why}\n" in output
    place = f"* `master.cf smtps/inet -o virtual_alias_maps = proxy:pgsql:{etc}/a.cf`: {why}."
    assert place in (tmp_path / "out" / "MIGRATION.md").read_text()


def test_something_wrong_today_is_exit_code_2(etc: Path, tmp_path: Path) -> None:
    postfix(etc, f"{GOOD}relocated_maps = pgsql:$config_directory/none.cf\n")
    code, output = run(etc, tmp_path / "out")
    assert code == 2
    assert f"wrong  relocated_maps: {etc}/none.cf: No such file or directory\n" in output
    assert (tmp_path / "out" / "main.cf.new").exists(), "what can move is there"


def test_nothing_is_overwritten(etc: Path, tmp_path: Path) -> None:
    postfix(etc, GOOD)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert run(etc, tmp_path / "out") == (2, f"Error: {tmp_path}/out is not empty; nothing was written\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_site_without_pgsql_has_nothing_to_move(etc: Path, tmp_path: Path) -> None:
    postfix(etc, "")
    code, output = run(etc, tmp_path / "out")
    assert code == 2
    assert "nothing in" in output
    assert not (tmp_path / "out").exists()


def test_a_directory_without_main_cf(etc: Path, tmp_path: Path) -> None:
    postfix(etc, "")
    (etc / "main.cf").unlink()
    code, output = run(etc, tmp_path / "out")
    assert code == 2
    assert "main.cf" in output
    assert not (tmp_path / "out").exists()
