"""`mailmaps check` as a whole, beside a daemon that runs, one that does not, and one of other settings."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.conftest import Database
from tests.system.daemon import Daemon
from tests.system.ports import steady_ports

from mailmaps.cli import main
from mailmaps.cli.endpoint_checks import endpoint_findings
from mailmaps.config import load, parse
from mailmaps.config.fingerprint import fingerprint
from mailmaps.findings import Finding, Level

RUNS = Finding(Level.OK, "daemon", "it runs, and answers at every endpoint")


@pytest.fixture
def daemon(database: Database) -> Iterator[Daemon]:
    settings: dict[str, Any] = {
        "database": {"dsn": database.reader_dsn},
        "postfix": {"recipient_delimiter": "+"},
        "mirror": {"enabled": False},
    }
    running = Daemon(settings)
    try:
        yield running
    finally:
        running.close()


def check(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["check", "--config", str(config), *options])


def test_a_daemon_that_runs_has_one_good_line(daemon: Daemon) -> None:
    daemon.start()
    assert endpoint_findings(load(daemon.config)) == [RUNS]


def test_one_that_does_not_run_is_one_warning(daemon: Daemon) -> None:
    [only] = endpoint_findings(load(daemon.config))
    assert (only.level, only.subject) == (Level.WARNING, "daemon")
    assert only.text.startswith("does not run")


def test_an_endpoint_where_nobody_or_somebody_else_answers_is_named(daemon: Daemon) -> None:
    daemon.start()
    settings = load(daemon.config)
    [free] = steady_ports(1)
    other = settings.model_copy(
        update={"policy": settings.policy.model_copy(update={"inet": f"127.0.0.1:{free}"})}
    )
    [found] = [one for one in endpoint_findings(other) if one.subject.startswith("policy")]
    assert (found.level, found.text) == (Level.ERROR, "nobody answers: Connection refused")
    with socket.create_server(("127.0.0.1", free)) as mute:
        mute.listen()
        tables = dict(settings.tables)
        table = tables["transport_maps"]
        tables["transport_maps"] = table.model_copy(update={"tcp": f"127.0.0.1:{daemon.ports['socketmap']}"})
        wrong = settings.model_copy(update={"tables": tables})
        [found] = [one for one in endpoint_findings(wrong) if one.subject.startswith("tables.")]
    assert found.level is Level.ERROR
    assert found.text.startswith("somebody else answers there")


def test_json_and_exit_codes(daemon: Daemon) -> None:
    daemon.start()
    done = check(daemon.config, "--json")
    found = json.loads(done.stdout)
    assert [set(one) for one in found] == [{"level", "subject", "text", "remedy"}] * len(found)
    levels = {one["level"] for one in found}
    assert done.exit_code == (2 if "error" in levels else 1 if "warning" in levels else 0)
    assert {"level": "ok", "subject": "daemon", "text": RUNS.text, "remedy": ""} in found
    assert not [one for one in found if one["subject"] == "rows"]
    text = check(daemon.config).stdout.splitlines()
    assert len(text) == len(found)


def test_settings_that_cannot_be_read_are_errors_and_nothing_else_is_tried(tmp_path: Path) -> None:
    config = tmp_path / "mailmaps.toml"
    config.write_text("nonsense = 1\n")
    done = check(config, "--json")
    assert (done.exit_code, [one["subject"] for one in json.loads(done.stdout)]) == (2, ["settings"])


def test_a_database_that_is_away_makes_lines_and_no_trace(tmp_path: Path) -> None:
    config = tmp_path / "mailmaps.toml"
    config.write_text(
        '[database]\ndsn = "postgresql://mailreader@127.0.0.1:1/mail"\n'
        f'[control]\nunix = "{tmp_path}/control.sock"\n[postfix]\nconfig_directory = "{tmp_path}/none"\n'
        '[tables.virtual_alias_maps]\nsources = ["pgsql:/none.cf", "view:a.b"]\n'
    )
    done = check(config, "--json")
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)
    subjects = [one["subject"] for one in json.loads(done.stdout)]
    assert {"database", "pgsql:/none.cf", "postfix", "daemon"} <= set(subjects)
    assert "rows" not in subjects, "said once"


def test_a_password_file_that_is_missing_makes_lines_and_no_trace(tmp_path: Path) -> None:
    config = tmp_path / "mailmaps.toml"
    config.write_text(
        f'[database]\npassword_file = "{tmp_path}/none"\n[control]\nunix = "{tmp_path}/control.sock"\n'
        f'[postfix]\nconfig_directory = "{tmp_path}/none"\n'
    )
    done = check(config, "--json")
    assert done.exit_code == 2
    assert {one["level"] for one in json.loads(done.stdout) if one["subject"] == "database"} == {"error"}


def test_a_fingerprint_is_of_the_settings_and_of_no_password() -> None:
    text = '[database]\ndsn = "postgresql://a:{}@h/d"\n[cache]\nttl = {}\n'
    assert fingerprint(parse(text.format("one", 1))) == fingerprint(parse(text.format("two", 1)))
    assert fingerprint(parse(text.format("one", 1))) != fingerprint(parse(text.format("one", 2)))
    assert fingerprint(parse('[database]\ndsn = "postgresql://b@h/d"')) != fingerprint(
        parse('[database]\ndsn = "postgresql://a@h/d"')
    )
