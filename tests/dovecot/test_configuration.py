"""`mailmaps dovecot-config` and `mailmaps dovecot-files`, and the examples in dovecot/."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.system.dovecot import installed_version

from mailmaps.cli.dovecot import dovecot_config, dovecot_files, listener
from mailmaps.cli.options import Failure
from mailmaps.dovecot.configuration import Listener, Version

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "dovecot"
DIALECT = ".".join(installed_version().split(".")[:2]) or "2.3"

SETTINGS = """
delivery = "{delivery}"
[login]
unix = "{unix}"
mode = "{mode}"
owner = "{owner}"
group = "{group}"
[postfix]
virtual_mailbox_base = "{base}"
virtual_minimum_uid = {uid}
recipient_delimiter = "{delimiter}"
"""
USUAL = {
    "delivery": "lmtp:unix:private/dovecot-lmtp",
    "unix": "/run/login.sock",
    "mode": "0660",
    "owner": "",
    "group": "dovecot",
    "base": "/var/local/mail",
    "uid": "100",
    "delimiter": "+",
}


def config(folder: Path, **other: str) -> str:
    path = folder / "mailmaps.toml"
    path.write_text(SETTINGS.format(**(USUAL | other)))
    return str(path)


def printed(folder: Path, *words: str, **other: str) -> str:
    result = run(folder, *words, **other)
    assert result.exit_code == 0, result.output
    return result.output


def run(folder: Path, *words: str, **other: str) -> Result:
    return CliRunner().invoke(dovecot_config, ["--config", config(folder, **other), "--dovecot", *words])


@pytest.mark.parametrize(("version", "door"), [("2.3", "checkpassword"), ("2.3", "lua"), ("2.4", "lua")])
def test_the_examples_are_what_the_command_prints(version: str, door: str) -> None:
    words = ["--config", str(EXAMPLES / "mailmaps.toml"), "--dovecot", version, "--door", door]
    result = CliRunner().invoke(dovecot_config, words)
    assert result.output == (EXAMPLES / f"dovecot-{version}-{door}.conf").read_text()


def test_the_script_in_the_examples_is_the_shipped_one() -> None:
    assert (EXAMPLES / "mailmaps.lua").samefile(ROOT / "src" / "mailmaps" / "dovecot" / "mailmaps.lua")


@pytest.mark.postfix
@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob(f"dovecot-{DIALECT}-*.conf")), ids=lambda path: path.name
)
def test_dovecot_takes_the_examples(path: Path, tmp_path: Path) -> None:
    """Every setting of ours is one of Dovecot's, with the value that was written."""
    copy = tmp_path / path.name
    (tmp_path / "pem").write_text("a certificate, were it read")
    copy.write_text(path.read_text().replace("</etc/ssl/certs/ssl-cert-snakeoil.pem", f"<{tmp_path}/pem"))
    words = ["doveconf", "-c", str(copy), "first_valid_uid", "auth_mechanisms", "recipient_delimiter", "ssl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for line in ("first_valid_uid = 100", "recipient_delimiter =", "ssl = required"):
        assert line in done.stdout


def test_what_the_settings_decide(tmp_path: Path) -> None:
    text = printed(tmp_path, "2.3", uid="0", delimiter="+-", base="/srv/mail/", delivery="lmtp:unix:/run/x")
    assert "\nfirst_valid_uid = 1\n" in text  # root is never delivered to
    assert "\nrecipient_delimiter =\n" in text  # whatever Postfix's is: mailmaps knows it
    assert "mail=maildir:/srv/mail/MAILBOX" in text
    assert "\n  unix_listener /run/x {\n" in text
    assert "/run/login.sock" in text
    assert "\nrecipient_delimiter =\n" in printed(tmp_path, "2.4", delimiter="+")


@pytest.mark.parametrize(("version", "address"), [("2.3", "address"), ("2.4", "listen")])
def test_lmtp_by_tcp(tmp_path: Path, version: str, address: str) -> None:
    text = printed(tmp_path, version, delivery="lmtp:inet:[127.0.0.1]:2400")
    assert f"  inet_listener lmtp {{\n    {address} = 127.0.0.1\n    port = 2400\n  }}\n" in text


def test_without_lmtp(tmp_path: Path) -> None:
    text = printed(tmp_path, "2.3", delivery="virtual")
    assert "\nprotocols = imap\n" in text
    assert "service lmtp" not in text
    assert "\n  lmtp = no\n" in printed(tmp_path, "2.4", delivery="virtual")


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        ("lmtp:unix:private/dovecot-lmtp", Listener(unix="/var/spool/postfix/private/dovecot-lmtp")),
        ("lmtp:[127.0.0.1]:24", Listener(host="127.0.0.1", port=24)),
        ("lmtp:127.0.0.1", Listener(host="127.0.0.1", port=24)),
        ("lmtp:inet:[ipv6:::1]:2400", Listener(host="::1", port=2400)),
        ("virtual", None),
        ("maildrop:", None),
    ],
)
def test_where_dovecot_listens(delivery: str, expected: Listener | None) -> None:
    assert listener(delivery) == expected


def test_a_host_by_name_is_no_place_to_listen() -> None:
    with pytest.raises(Failure, match="delivery"):
        listener("lmtp:mail.example.com:24")


@pytest.mark.parametrize(
    ("other", "setting"),
    [
        ({"unix": ""}, "login.unix"),
        ({"base": ""}, "postfix.virtual_mailbox_base"),
        ({"base": "mail"}, "postfix.virtual_mailbox_base"),
        ({"group": ""}, "login.group"),
        ({"mode": "0600"}, "login.mode"),
        ({"delivery": "lmtp:mail.example.com"}, "delivery"),
    ],
)
def test_settings_that_do_not_do(tmp_path: Path, other: dict[str, str], setting: str) -> None:
    result = run(tmp_path, "2.3", **other)
    assert result.exit_code == 78
    assert setting in result.output


def test_who_reaches_the_socket(tmp_path: Path) -> None:
    assert "extra_groups" not in printed(tmp_path, "2.3")
    assert "extra_groups" not in printed(tmp_path, "2.3", owner="dovecot", group="", mode="0600")
    text = printed(tmp_path, "2.3", group="login")
    assert "service auth {\n  extra_groups = login\n}" in text
    for version in ("2.3", "2.4"):
        text = printed(tmp_path, version, "--door", "lua", group="login")
        assert "service auth-worker {\n  user = dovecot\n  extra_groups = login\n}" in text


def test_doors(tmp_path: Path) -> None:
    assert "checkpassword.py" in printed(tmp_path, "2.3")
    assert "checkpassword" not in printed(tmp_path, "2.4")
    assert run(tmp_path, "2.4", "--door", "checkpassword").exit_code == 2


@pytest.mark.parametrize(
    ("given", "dialect", "number"),
    [
        ("2.3", "2.3", "2.3.0"),
        ("2.3.19.1", "2.3", "2.3.19"),
        ("2.4", "2.4", "2.4.0"),
        ("2.4.1", "2.4", "2.4.1"),
    ],
)
def test_versions(given: str, dialect: str, number: str) -> None:
    assert Version.parse(given) == Version(dialect, number)


@pytest.mark.parametrize("given", ["2.2", "2.5", "3.0", "2", "2.4.x", "", "2.4.1-4"])
def test_versions_that_are_none(tmp_path: Path, given: str) -> None:
    assert run(tmp_path, given).exit_code == 2


def test_the_version_a_configuration_is_meant_for(tmp_path: Path) -> None:
    """Each 2.4 takes 2.4.0; 2.4.1 refuses what is newer than itself."""
    assert "\ndovecot_config_version = 2.4.0\n" in printed(tmp_path, "2.4")
    assert "\ndovecot_config_version = 2.4.4\n" in printed(tmp_path, "2.4.4")
    lines = printed(tmp_path, "2.4").splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    assert settings[0].startswith("dovecot_config_version")


def test_the_files(tmp_path: Path) -> None:
    """They replace what is there as a whole, and the socket's place is the settings'."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "mailmaps.lua").write_text("an old one")
    (folder / "mailmaps.lua").chmod(0o600)
    with (folder / "mailmaps.lua").open() as old:
        result = CliRunner().invoke(dovecot_files, ["--config", config(tmp_path), str(folder)])
        assert old.read() == "an old one"
    assert result.exit_code == 0
    assert result.output.count("wrote ") == 3
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpassword.py",
        "login-socket",
        "mailmaps.lua",
    ]
    assert (folder / "login-socket").read_text() == "/run/login.sock\n"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"checkpassword.py": 0o755, "mailmaps.lua": 0o644, "login-socket": 0o644}
    for name in ("checkpassword.py", "mailmaps.lua"):
        shipped = ROOT / "src" / "mailmaps" / "dovecot" / name
        assert (folder / name).read_bytes() == shipped.read_bytes()


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    (folder / "mailmaps.lua" / "in the way").mkdir(parents=True)
    result = CliRunner().invoke(dovecot_files, ["--config", config(tmp_path), str(folder)])
    assert result.exit_code == 69
    assert "mailmaps.lua" in result.output
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert (
        CliRunner().invoke(dovecot_files, ["--config", config(tmp_path, unix=""), str(folder)]).exit_code
        == 78
    )
