"""The units in systemd/: systemd has nothing to say against them, and they agree with the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailmaps.config import Settings, SettingsError, secrets

UNITS = Path(__file__).parent.parent / "systemd"
PROGRAM = "/opt/mailmaps/bin/mailmaps"

# What systemd-analyze may say of mailmaps.service at most. A service that can do nothing has 0, one that can
# do all has 10.
MOST_EXPOSED = 1.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")


def values(unit: str, name: str) -> list[str]:
    """All values that a unit gives a setting."""
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def sockets() -> list[Path]:
    return sorted(UNITS.glob("*.socket"))


@needs_systemd
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    """Verified as they are, but for the program, which is not installed here."""
    units = []
    for path in UNITS.iterdir():
        if path.suffix in (".service", ".socket", ".timer"):
            text = path.read_text()
            assert PROGRAM in text or path.suffix != ".service"
            units.append(tmp_path / path.name)
            units[-1].write_text(text.replace(PROGRAM, sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)],
        capture_output=True, text=True, check=False, timeout=60,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@needs_systemd
def test_the_daemon_can_do_little() -> None:
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / "mailmaps.service")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    score = re.search(r"Overall exposure level for mailmaps.service: ([\d.]+)", found.stdout)
    assert score is not None, found.stderr
    assert float(score[1]) <= MOST_EXPOSED


def test_the_tcp_endpoints_are_those_of_the_settings() -> None:
    assert sorted(values("mailmaps-inet.socket", "ListenStream")) == sorted(
        Settings().inet_endpoints().values()
    )


def test_the_control_socket_is_that_of_the_settings() -> None:
    assert values("mailmaps-control.socket", "ListenStream") == [Settings().control.unix]


@pytest.mark.parametrize("path", sockets(), ids=lambda path: path.name)
def test_every_socket_goes_to_the_daemon_and_no_unix_socket_lets_everybody_in(path: Path) -> None:
    assert values(path.name, "Service") == ["mailmaps.service"]
    assert values(path.name, "FileDescriptorName") == [path.stem.removeprefix("mailmaps-")]
    if any(stream.startswith("/") for stream in values(path.name, "ListenStream")):
        assert values(path.name, "SocketMode") == ["0660"]
        assert values(path.name, "SocketGroup") != []


def test_a_missing_password_does_not_keep_the_daemon_from_starting() -> None:
    """systemd.exec(5): SetCredential= is the default of what LoadCredential= does not find."""
    loaded = [value.split(":")[0] for value in values("mailmaps.service", "LoadCredential")]
    assert loaded == ["database-password", "auth-database-password", "write-database-password"]
    assert values("mailmaps.service", "SetCredential") == [f"{name}:\\n" for name in loaded]


def test_the_empty_line_in_place_of_a_missing_password_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv(secrets.ENVIRONMENT, "from-environment")
    (tmp_path / secrets.CREDENTIAL).write_text("\n")
    found = secrets.database_password("")
    assert found is not None
    assert found.reveal() == "from-environment"
    (tmp_path / secrets.CREDENTIAL).unlink()
    (tmp_path / secrets.CREDENTIAL).mkdir()
    with pytest.raises(SettingsError, match="the credential database-password .*Is a directory"):
        secrets.database_password("")
