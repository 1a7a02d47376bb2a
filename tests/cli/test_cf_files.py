"""The commands of a site that has `.cf` files: check, postfix-config, query; against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from tests.conftest import Database

from mailmaps import cf_files
from mailmaps.cli import main
from mailmaps.config.settings import Postfix
from mailmaps.maps.cf_text import CfError

CONFIG = """
builtin_tables = false
delivery = "{delivery}"
[socketmap]
inet = "127.0.0.1:1"
[control]
unix = "{folder}/no-daemon.sock"
[tables.virtual_alias_maps]
sources = ["pgsql:{folder}/alias.cf", "pgsql:{folder}/more.cf"]
tcp = "127.0.0.1:2"
[tables.partners]
parameter = "check_recipient_access"
sources = ["pgsql:{folder}/alias.cf"]
tcp = "127.0.0.1:3"
[tables.virtual_uid_maps]
sources = ["pgsql:{folder}/alias.cf"]
tcp = ""
[tables.virtual_mailbox_maps]
sources = ["pgsql:{folder}/alias.cf"]
tcp = "127.0.0.1:4"
"""


@pytest.fixture
def folder(tmp_path: Path, empty_database: Database) -> Path:
    """A site with two good `.cf` files and its mailmaps.toml."""
    place = urlsplit(empty_database.dsn)
    login = (
        f"hosts = inet:{place.hostname}:{place.port}\nuser = {place.username}\n"
        f"password = {place.password or ''}\ndbname = {place.path[1:]}\n"
    )
    (tmp_path / "login").write_text(login)
    (tmp_path / "alias.cf").write_text(login + "query = SELECT 'x' WHERE '%s' = 'a@b.c'\n")
    (tmp_path / "more.cf").write_text(login + "query = SELECT now() WHERE '%s' = 'a@b.c'\n")
    (tmp_path / "mailmaps.toml").write_text(CONFIG.format(folder=tmp_path, delivery="virtual"))
    return tmp_path


def run(folder: Path, command: str, *arguments: str) -> tuple[int, str]:
    words = [command, "--config", str(folder / "mailmaps.toml"), *arguments]
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.output


def rewrite(folder: Path, query: str, extra: str = "") -> None:
    (folder / "more.cf").write_text((folder / "login").read_text() + extra + f"query = {query}\n")


# CliRunner runs commands in this process, and these have an event loop of their own.
async def test_check_asks_with_every_file_and_no_other_database(folder: Path) -> None:
    code, output = await in_thread(folder, "check")
    assert f"ok      pgsql:{folder}/alias.cf: can be asked\n" in output
    assert f"ok      pgsql:{folder}/more.cf: can be asked; changes with time, remembered for 1 s\n" in output
    assert output.count("alias.cf") == 1
    assert "database:" not in output
    assert code in (1, 2)  # Postfix's own settings here, or that there is none


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nothing FROM nowhere WHERE x = '%s'", 'query: relation "nowhere" does not exist'),
        ("SELECT 1 WHERE x = %s", "query: a placeholder outside quotes"),
        ("SELECT 1; SELECT 2", "query: more than one statement"),
    ],
)
async def test_check_names_file_and_line_of_what_is_wrong(folder: Path, query: str, said: str) -> None:
    rewrite(folder, query)
    code, output = await in_thread(folder, "check")
    assert code == 2
    assert f"error   pgsql:{folder}/more.cf: {folder}/more.cf:5: {said}" in output


async def test_check_says_who_may_read_a_file(folder: Path) -> None:
    (folder / "more.cf").chmod(0o640)
    output = (await in_thread(folder, "check"))[1]
    assert f"warning pgsql:{folder}/more.cf: 0640 " in output
    assert "can the daemon's user read it? -> SupplementaryGroups=" in output
    (folder / "more.cf").unlink()
    assert (
        f"error   pgsql:{folder}/more.cf: {folder}/more.cf: No such file"
        in (await in_thread(folder, "check"))[1]
    )


async def test_check_shows_no_password(folder: Path) -> None:
    rewrite(folder, "SELECT 1", "password = s3cret\nhosts = 127.0.0.1:1\nuser = x\nnonsense s3cret\n")
    output = (await in_thread(folder, "check"))[1]
    assert "more.cf:8: not of the form name = value" in output
    rewrite(folder, "SELECT 1", "password = s3cret\nhosts = 127.0.0.1:1\n")
    output += (await in_thread(folder, "check"))[1]
    assert "127.0.0.1:1" in output
    assert "s3cret" not in output


def test_postfix_config_prints_the_tables_there_are(folder: Path) -> None:
    code, output = run(folder, "postfix-config")
    assert code == 0
    lines = output.splitlines()
    assert "virtual_alias_maps = tcp:127.0.0.1:2" in lines
    assert "# In the restriction list: check_recipient_access tcp:127.0.0.1:3" in lines
    # virtual(8) refuses a network table, and has its own already.
    assert f"virtual_uid_maps = pgsql:{folder}/alias.cf" in lines
    assert f"virtual_mailbox_maps = pgsql:{folder}/alias.cf" in lines
    assert "virtual_alias_domains =" in lines
    assert not any("transport_maps" in line for line in lines)
    (folder / "mailmaps.toml").write_text(CONFIG.format(folder=folder, delivery="lmtp:unix:private/lmtp"))
    lines = run(folder, "postfix-config")[1].splitlines()
    assert "virtual_mailbox_maps = tcp:127.0.0.1:4" in lines
    assert not any(line.startswith("virtual_uid_maps") for line in lines)


def test_a_table_that_the_settings_have_not_is_named(folder: Path) -> None:
    code, output = run(folder, "query", "transport_maps", "x")
    assert code == 2
    assert "the settings have no such table; they have virtual_alias_maps, partners" in output


async def in_thread(folder: Path, command: str) -> tuple[int, str]:
    return await asyncio.to_thread(run, folder, command)


def test_a_file_may_come_as_a_credential(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root reads every file, so the file is not there; the daemon that may not read it does the same."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    source = f"pgsql:{folder}/gone/alias.cf"
    (credentials / "alias.cf").write_text((folder / "alias.cf").read_text())
    assert cf_files.read(source, Postfix()).name == f"{folder}/gone/alias.cf"
    both = [source, "pgsql:/elsewhere/alias.cf"]
    with pytest.raises(CfError, match="several files have this name; call the credential"):
        cf_files.read(source, Postfix(), both)
    path = f"{folder}/gone/alias.cf".strip("/").replace("/", "-")
    (credentials / path).write_text((folder / "alias.cf").read_text())
    assert cf_files.read(source, Postfix(), both).line == 5
