"""The grants on disk: read back as they were, and as if they were not there when they cannot be."""

from __future__ import annotations

import logging
import os
from ipaddress import ip_network
from pathlib import Path
from time import time

import pytest

from mailmaps.grants_file import NAME, GrantsFile
from mailmaps.policy.grants import Grant

GRANTS = [
    Grant(1, "jan", "boss@a.example", 2e9, (), "holiday ü"),
    Grant(2, "shop", "*", None, (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))),
]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    file = GrantsFile(tmp_path, "db1/mail")
    assert file.load() is None
    file.save(GRANTS)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    saved = file.load()
    assert saved is not None
    assert saved.grants == GRANTS
    assert 0 <= saved.age < 60
    os.utime(tmp_path / NAME, (time() - 500, time() - 500))
    saved = file.load()
    assert saved is not None
    assert 500 <= saved.age < 560
    file.confirm()
    saved = file.load()
    assert saved is not None
    assert saved.age < 60


def test_another_database_is_another(tmp_path: Path) -> None:
    GrantsFile(tmp_path, "db1/mail").save(GRANTS)
    assert GrantsFile(tmp_path, "db2/mail").load() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"place": "p", "grants": [{}]}', b"\xff"])
def test_what_makes_no_sense_is_said_and_not_used(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert GrantsFile(tmp_path, "p").load() is None
    assert "the file of grants cannot be used" in caplog.text
    assert "grants.json" in caplog.text


def test_a_time_to_come_is_not_believed(tmp_path: Path) -> None:
    GrantsFile(tmp_path, "p").save(GRANTS)
    os.utime(tmp_path / NAME, (time() + 500, time() + 500))
    assert GrantsFile(tmp_path, "p").load() is None


def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    file = GrantsFile(tmp_path / "missing", "p")
    file.save(GRANTS)
    file.save(GRANTS)
    file.confirm()
    assert caplog.text.count("cannot be written") == 1
