"""The settings that Postfix and mailmaps share, read from a real postconf."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailmaps.cli import main
from mailmaps.cli.check import postfix_findings
from mailmaps.cli.postfix import main_cf, policy
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


EXAMPLES = [("virtual", "lmdb"), ("lmtp", "tcp")]

# What the examples name and a machine without them has not: sockets.
ELSEWHERE = "which is not there"


@pytest.mark.parametrize(("example", "map_type"), EXAMPLES)
def test_the_examples_have_what_the_command_prints(example: str, map_type: str) -> None:
    """Word for word, for the settings that the file itself names."""
    text = (ROOT / "postfix" / example / "main.cf").read_text()
    settings = parse(settings_in(text))
    assert text.endswith("\n\n" + "\n".join(main_cf(settings, map_type)) + "\n")


def settings_in(main_cf: str) -> str:
    """What an example's head says about mailmaps.toml."""
    head = main_cf.partition("\ncompatibility_level")[0].splitlines()
    return "\n".join(line.removeprefix("#     ") for line in head if line.startswith("#     "))


@needs_postconf
@pytest.mark.parametrize(("example", "map_type"), EXAMPLES)
def test_the_examples_equal_the_settings_that_are_filled_from_them(
    tmp_path: Path, example: str, map_type: str
) -> None:
    folder = ROOT / "postfix" / example
    base = config_file(tmp_path, settings_in((folder / "main.cf").read_text()) + "\n")
    code, filled = run("config", "--from-postconf", "--config", base, "--config-dir", str(folder))
    assert code == 0
    assert main_cf(parse(filled), map_type) == main_cf(parse(Path(base).read_text()), map_type)
    findings = postfix_findings(parse(filled), folder)
    told = [one.text for one in findings if "mailmaps" in one.text]
    assert [text for text in told if "there is no" not in text and not text.endswith(ELSEWHERE)] == []


@needs_postconf
@pytest.mark.parametrize(("example", "map_type"), EXAMPLES)
def test_the_commands_for_master_cf_make_the_entries_of_the_example(
    tmp_path: Path, example: str, map_type: str
) -> None:
    """From Debian's master.cf: by `postconf -P`, and as the lines below it say."""
    wanted = (ROOT / "postfix" / example / "master.cf").read_text()
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    plain = [line for line in wanted.splitlines() if "mailmaps-filemaps" not in line]
    (tmp_path / "master.cf").write_text("\n".join(plain) + "\n")
    printed = main_cf(parse(settings_in((ROOT / "postfix" / example / "main.cf").read_text())), map_type)
    for line in printed:
        if line.startswith("#   postconf "):
            words = shlex.split(line.removeprefix("#   "))
            subprocess.run([words[0], "-c", str(tmp_path), *words[1:]], check=True, timeout=20)
    assert entries(tmp_path) == entries(ROOT / "postfix" / example)
    shown = [
        line.removeprefix("#   ")
        for line in printed
        if line.startswith(("#   virtual ", "#   cleanup ", "#     -o"))
    ]
    assert "\n".join(shown[:2]) in wanted
    assert "\n".join(shown[2:]) in wanted


def entries(folder: Path) -> list[list[str]]:
    command = ["postconf", "-c", str(folder), "-M"]
    done = subprocess.run(command, check=True, timeout=20, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()]


def settings_lines(lines: list[str]) -> dict[str, str]:
    """What is set, comments left out."""
    split = (line.partition(" =") for line in lines if not line.startswith("#"))
    return {name: value.strip() for name, _, value in split}


FILES = "/var/lib/mailmaps-filemaps"
FOR_LMDB = {"lmdb_map_size": "1073741824", "notify_classes": "resource"}


@pytest.mark.parametrize("map_type", ["lmdb", "cdb"])
def test_files_for_everything(map_type: str) -> None:
    lines = main_cf(parse(f'[filemaps]\ntype = "{map_type}"\ndirectory = "/files/"\n'), map_type)
    tables = {
        "virtual_mailbox_domains",
        "virtual_alias_maps",
        "transport_maps",
        "virtual_mailbox_maps",
        "virtual_uid_maps",
        "virtual_gid_maps",
        "smtpd_sender_login_maps",
    }
    assert settings_lines(lines) == {
        **(FOR_LMDB if map_type == "lmdb" else {}),
        **{name: f"{map_type}:/files/{name}" for name in tables},
        "virtual_alias_domains": "",
        "virtual_minimum_uid": "100",
        "virtual_mailbox_limit": "0",
    }
    assert "#virtual_mailbox_base = /var/local/mail" in lines, "nobody knows it yet"
    assert f"#relay_domains = {map_type}:/files/relay_domains" in lines
    assert any(f"postfix-{map_type}" in line for line in lines)


def test_files_in_front_of_dovecot() -> None:
    """virtual(8) has no part in it, cleanup(8) has."""
    lines = main_cf(parse(LMTP), "lmdb")
    assert settings_lines(lines) == {
        **FOR_LMDB,
        "virtual_mailbox_domains": f"lmdb:{FILES}/virtual_mailbox_domains",
        "virtual_alias_domains": "",
        "virtual_alias_maps": f"lmdb:{FILES}/virtual_alias_maps",
        "transport_maps": f"lmdb:{FILES}/transport_maps",
        "virtual_transport": "lmtp:unix:private/dovecot-lmtp",
        "virtual_mailbox_maps": f"lmdb:{FILES}/virtual_mailbox_maps",
        "smtpd_sender_login_maps": f"lmdb:{FILES}/smtpd_sender_login_maps",
    }
    assert [line for line in lines if "postconf -P" in line] == [
        f"#   postconf -P 'cleanup/unix/virtual_alias_maps=lmdb:{FILES}/virtual_alias_maps.queued'"
    ]


def test_a_table_of_queries_stays_with_pgsql() -> None:
    sources = 'sources = ["pgsql:/etc/postfix/aliases.cf", "pgsql:more"]\n'
    lines = main_cf(parse(f"[tables.virtual_alias_maps]\n{sources}"), "lmdb")
    said = settings_lines(lines)
    assert said["virtual_alias_maps"] == "pgsql:/etc/postfix/aliases.cf, pgsql:more"
    assert said["virtual_mailbox_maps"] == f"lmdb:{FILES}/virtual_mailbox_maps"
    above = lines[lines.index("virtual_alias_maps = pgsql:/etc/postfix/aliases.cf, pgsql:more") - 1]
    assert "its rows cannot be listed" in above
    assert "cleanup" not in "\n".join(lines)


def test_what_virtual_reads_stays_together() -> None:
    """A mailbox out of a file with an owner that PostgreSQL is asked for could be one without an owner."""
    lines = main_cf(parse('[tables.virtual_uid_maps]\nsources = ["builtin", "pgsql:/etc/uids.cf"]\n'), "lmdb")
    said = settings_lines(lines)
    assert said["virtual_mailbox_maps"] == "pgsql:/etc/postfix/mailmaps-virtual_mailbox_maps.cf"
    assert said["virtual_uid_maps"] == "pgsql:/etc/postfix/mailmaps-virtual_uid_maps.cf, pgsql:/etc/uids.cf"
    assert said["virtual_gid_maps"] == "pgsql:/etc/postfix/mailmaps-virtual_gid_maps.cf"
    assert "#   query = SELECT value FROM mailmaps.virtual_uid_maps WHERE key = '%s'" in lines
    assert "virtual_mailbox_limit" not in said
    assert said["virtual_alias_maps"] == f"lmdb:{FILES}/virtual_alias_maps"
    assert not any("virtual/unix" in line for line in lines)


def test_own_tables_are_files_too(tmp_path: Path) -> None:
    """Of any parameter, and with local(8), which refuses network tables and takes files."""
    text = (
        "builtin_tables = false\n"
        '[tables.aliases]\nparameter = "alias_maps"\nsources = ["view:site.aliases"]\n'
        '[tables.partners]\nparameter = "check_recipient_access"\nsources = ["view:site.partners"]\n'
        '[tables.friends]\nparameter = "check_sender_access"\nsources = ["pgsql:/etc/postfix/friends.cf"]\n'
        '[tables.virtual_alias_maps]\nsources = ["view:site.v", "pgsql:/etc/postfix/v.cf"]\n'
    )
    assert main_cf(parse(text), "lmdb")[6:] == [
        f"alias_maps = lmdb:{FILES}/aliases",
        f"# In the restriction list: check_recipient_access lmdb:{FILES}/partners",
        "# check_sender_access: its rows cannot be listed, so Postfix asks PostgreSQL itself.",
        "# In the restriction list: check_sender_access pgsql:/etc/postfix/friends.cf",
        "# virtual_alias_maps: its rows cannot be listed, so Postfix asks PostgreSQL itself.",
        "#   query = SELECT value FROM site.v WHERE key = '%s'",
        "virtual_alias_maps = pgsql:/etc/postfix/mailmaps-virtual_alias_maps.cf, pgsql:/etc/postfix/v.cf",
        "# Left unset, Postfix would take every key of virtual_alias_maps for a domain.",
        "virtual_alias_domains =",
    ]


def test_files_of_another_type_are_an_error(tmp_path: Path) -> None:
    code, output = run("postfix-config", "--map-type", "cdb", "--config", config_file(tmp_path, ""))
    assert code == 78
    assert output.startswith('Error: filemaps.type is "lmdb"')


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
        assert "--map-type lmdb" in output, "the better way"
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
    assert "# What becomes of a sender without a domain" in text, "comments stay"


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


@pytest.mark.parametrize(
    ("door", "path"),
    [
        ('unix = "/var/spool/postfix/mailmaps/auth"', "mailmaps/auth"),
        ('unix = "/run/mailmaps/auth"', "/run/mailmaps/auth"),
        ('inet = "127.0.0.1:17040"', "inet:127.0.0.1:17040"),
    ],
)
def test_the_options_of_submission_name_the_auth_socket(door: str, path: str) -> None:
    lines = main_cf(parse(f"[dovecot_auth]\n{door}\n"), "tcp")
    assert lines[-1] == f"#   postconf -P 'submission/inet/smtpd_sasl_path={path}'"
    assert lines[-4:-3] == ["#   postconf -P 'submission/inet/smtpd_tls_auth_only=yes'"]
    assert ("must not be chrooted" in lines[-6]) == path.startswith("/")
    assert not any("sasl" in line for line in main_cf(parse(""), "tcp"))


@pytest.mark.parametrize(
    ("door", "service"),
    [
        ("", "inet:127.0.0.1:17018"),
        ('inet = "127.0.0.1:17118"', "inet:127.0.0.1:17118"),
        ('inet = ""\nunix = "/var/spool/postfix/mailmaps/policy"', "unix:mailmaps/policy"),
        ('inet = ""\nunix = "/run/mailmaps/policy"', "unix:/run/mailmaps/policy"),
    ],
)
def test_the_options_of_submission_name_the_policy_service(door: str, service: str, tmp_path: Path) -> None:
    lines = policy(parse(f"[policy]\n{door}\n"))
    asks = f"check_policy_service,{service}"
    assert f"#   postconf -P 'submission/inet/smtpd_sender_restrictions={asks}'" in lines
    counts = f"smtpd_data_restrictions=reject_unauth_pipelining,{asks}"
    assert f"#   postconf -P 'submission/inet/{counts}'" in lines
    assert lines[-1] == f"#smtpd_sender_restrictions = check_policy_service {service}"
    assert any("must not be chrooted" in line for line in lines) == service.startswith("unix:/")
    printed = run("postfix-config", "--config", config_file(tmp_path, f"[policy]\n{door}\n"))[1]
    assert printed.splitlines()[-len(lines) :] == lines


def test_no_policy_service_no_lines() -> None:
    assert policy(parse('[policy]\ninet = ""\n')) == []
