"""The settings that Postfix and mailmaps share, read from a real postconf."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailmaps.cli import main
from mailmaps.cli.check import postfix_findings
from mailmaps.cli.postfix import main_cf
from mailmaps.config import parse
from mailmaps.findings import Level

ROOT = Path(__file__).parent.parent.parent
LMTP = 'delivery = "lmtp:unix:private/dovecot-lmtp"\n'

needs_postconf = pytest.mark.postfix


@pytest.fixture
def postfix_dir(tmp_path: Path) -> Path:
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = mx.example.com\nmyorigin = $mydomain\n"
        "mydestination = $myhostname, localhost, hash:/etc/postfix/more\nrecipient_delimiter = +-\n"
        "propagate_unmatched_extensions =\nowner_request_special = no\ninet_interfaces = loopback-only\n"
    )
    (tmp_path / "master.cf").write_text(
        "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n  -o recipient_delimiter=-\n"
    )
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


def config_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mailmaps.toml"
    path.write_text(text)
    return str(path)


def test_the_shipped_main_cf_is_what_the_command_prints() -> None:
    assert (ROOT / "postfix" / "main.cf").read_text() == "\n".join(main_cf(parse(LMTP), "tcp")) + "\n"


@pytest.mark.parametrize("map_type", ["tcp", "socketmap"])
@pytest.mark.parametrize("text", ["", LMTP])
def test_no_network_table_for_what_virtual_8_reads(tmp_path: Path, map_type: str, text: str) -> None:
    code, output = run("postfix-config", "--map-type", map_type, "--config", config_file(tmp_path, text))
    assert code == 0
    lines = [line for line in output.splitlines() if not line.startswith("#")]
    parameters = {line.partition(" ")[0] for line in lines}
    assert ("virtual_uid_maps" in parameters) is (not text)
    network = {line.partition(" ")[0] for line in lines if "= tcp:" in line or "= socketmap:" in line}
    assert not network & {"virtual_uid_maps", "virtual_gid_maps"}
    assert ("virtual_mailbox_maps" in network) is bool(text)
    assert "virtual_alias_domains =" in lines
    if not text:
        assert "refuses every network table" in output
        assert "SELECT value FROM mailmaps.virtual_uid_maps WHERE key = '%s'" in output


def test_the_endpoints_are_those_of_the_settings(tmp_path: Path) -> None:
    config = config_file(
        tmp_path,
        '[tables.transport_maps]\ntcp = "127.0.0.1:999"\n[socketmap]\ninet = ""\nunix = "/run/mailmaps/map"',
    )
    assert "transport_maps = tcp:127.0.0.1:999\n" in run("postfix-config", "--config", config)[1]
    output = run("postfix-config", "--map-type", "socketmap", "--config", config)[1]
    assert "transport_maps = socketmap:unix:/run/mailmaps/map:transport_maps\n" in output
    below = config_file(tmp_path, '[socketmap]\ninet = ""\nunix = "/var/spool/postfix/mailmaps/map"')
    output = run("postfix-config", "--map-type", "socketmap", "--config", below)[1]
    assert "transport_maps = socketmap:unix:mailmaps/map:transport_maps\n" in output


def test_a_table_without_endpoint_is_an_error(tmp_path: Path) -> None:
    config = config_file(tmp_path, '[tables.transport_maps]\ntcp = ""\n[socketmap]\ninet = ""\n')
    assert run("postfix-config", "--config", config) == (
        78, "Error: tables.transport_maps.tcp is empty: there is no tcp endpoint to name\n"
    )  # fmt: skip
    code, output = run("postfix-config", "--map-type", "socketmap", "--config", config)
    assert code == 78
    assert "socketmap.inet and socketmap.unix are empty" in output


@needs_postconf
def test_the_postfix_section_is_filled_from_postconf(postfix_dir: Path) -> None:
    code, output = run("config", "--from-postconf", "--config-dir", str(postfix_dir))
    assert code == 0
    note, _, text = output.partition("\n")
    assert "hash:/etc/postfix/more" in note
    postfix = parse(text).postfix
    assert postfix.recipient_delimiter == "+-"
    assert postfix.owner_request_special is False
    assert postfix.propagate_unmatched_extensions == []
    assert postfix.myorigin == "example.com"
    assert postfix.mydestination == ["mx.example.com", "localhost"]
    assert postfix.inet_interfaces == ["127.0.0.1", "::1"]
    assert postfix.smtputf8_enable is True
    assert "# Domains whose bare local parts" in text, "comments stay"


@needs_postconf
def test_a_difference_to_postfix_is_an_error_that_names_both(postfix_dir: Path) -> None:
    filled = run("config", "--from-postconf", "--config-dir", str(postfix_dir))[1].partition("\n")[2]
    findings = postfix_findings(parse(filled), postfix_dir)
    assert [(f.level, f.subject, f.text) for f in findings if f.level is Level.ERROR] == [
        (
            Level.ERROR,
            "master.cf submission/inet",
            'recipient_delimiter: Postfix has "-", mailmaps "+-"',
        )
    ]
    drifted = postfix_findings(parse(filled.replace('delimiter = "+-"', 'delimiter = ""')), postfix_dir)
    assert 'recipient_delimiter: Postfix has "+-", mailmaps nothing' in [f.text for f in drifted]


@needs_postconf
def test_when_everything_fits_check_says_so(postfix_dir: Path) -> None:
    (postfix_dir / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    filled = run("config", "--from-postconf", "--config-dir", str(postfix_dir))[1].partition("\n")[2]
    findings = postfix_findings(parse(filled), postfix_dir)
    assert {finding.level for finding in findings} == {Level.OK, Level.WARNING}, (
        "the hash: table is a warning"
    )


def test_wrong_settings_are_errors_of_check(tmp_path: Path) -> None:
    code, output = run("check", "--config", config_file(tmp_path, "nonsense = 1\n"))
    assert code == 2
    assert "mailmaps.toml:1: nonsense: there is no such setting" in output


def test_a_database_that_is_away_is_an_error_of_check(tmp_path: Path) -> None:
    code, output = run(
        "check", "--config", config_file(tmp_path, '[database]\ndsn = "postgresql://x:secret@127.0.0.1:1/x"')
    )
    assert code == 2
    assert "error   database: 127.0.0.1:1: " in output
    assert "secret" not in output
