"""What keeps a unit's command from going on is an error in the journal, and click's sentence elsewhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = 'no_such_setting = 1\n[log]\nlevel = "loud"\n'
BEGIN = "<3>mailmaps.cli.service: ends with a failure command=serve "


def run(tmp_path: Path, *words: str, journal: bool) -> tuple[int, list[str]]:
    """Exit code and lines on standard error, which is a file that is journald's or is not."""
    file = tmp_path / "stderr"
    with file.open("wb") as opened:
        status = os.fstat(opened.fileno())
        stream = f"{status.st_dev}:{status.st_ino}" if journal else "1:1"
        done = subprocess.run(
            [sys.executable, "-m", "mailmaps", *words],
            env={**os.environ, "JOURNAL_STREAM": stream},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=opened, timeout=60, check=False,
        )  # fmt: skip
    return done.returncode, file.read_text().splitlines()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mailmaps.toml"
    file.write_text(WRONG)
    return file


@pytest.mark.parametrize("command", ["serve", "filemaps", "report"])
def test_each_wrong_setting_is_an_error_of_the_journal(tmp_path: Path, config: Path, command: str) -> None:
    code, lines = run(tmp_path, command, "--config", str(config), journal=True)
    assert code == 78
    begin = f'<3>mailmaps.cli.service: ends with a failure command={command} reason="{config}:'
    assert [line[: len(begin)] for line in lines] == [begin, begin]
    assert "no_such_setting" in "".join(lines)
    assert "log.level" in "".join(lines)


def test_an_address_in_use_is_an_error_of_the_journal(tmp_path: Path, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(
            "builtin_tables = false\n"
            f'[socketmap]\ninet = "127.0.0.1:{port}"\n[policy]\ninet = ""\n[metrics]\ninet = ""\n'
            f'[control]\nunix = ""\n[mirror]\ndirectory = "{tmp_path}"\n[log]\nlevel = "error"\n'
            '[database]\ndsn = "postgresql://nobody@127.0.0.1:9/mail"\n'
        )
        code, lines = run(tmp_path, "serve", "--config", str(config), journal=True)
    assert code == 69
    assert [line.partition("reason=")[0] for line in lines] == [BEGIN]
    assert f"127.0.0.1 port {port}: the port is in use" in lines[0]


def test_elsewhere_it_is_said_as_any_command_does(tmp_path: Path, config: Path) -> None:
    code, lines = run(tmp_path, "serve", "--config", str(config), journal=False)
    assert code == 78
    assert lines[0].startswith(f"Error: {config}:")
