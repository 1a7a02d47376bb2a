"""Passwords of roles: how they are made, kept and turned into what the server keeps."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailmaps.cli import main
from mailmaps.config import secrets as config_secrets
from mailmaps.config.secrets import Secret
from mailmaps.database import cluster
from mailmaps.database.cluster import LocalCluster, local_clusters, scram_verifier, with_place
from mailmaps.setup.roles import ROLES, Passwords


def test_a_password_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    passwords = Passwords(tmp_path / "etc")
    made = [passwords.make(role).reveal() for role in ROLES]
    assert len({*made}) == len(ROLES)
    for role, password in zip(ROLES, made, strict=True):
        assert stat.S_IMODE(passwords.file(role).stat().st_mode) == 0o600
        found = passwords.read(role)
        assert found is not None
        assert found.reveal() == password


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n"])
def test_an_unusable_file_is_said(tmp_path: Path, content: bytes) -> None:
    passwords = Passwords(tmp_path)
    passwords.file(ROLES[0]).write_bytes(content)
    with pytest.raises(ValueError, match="database-password"):
        passwords.read(ROLES[0])


def test_a_verifier_is_that_of_rfc_5803() -> None:
    scheme, salted, keys = scram_verifier(Secret("pencil")).split("$")
    iterations, salt = salted.split(":")
    stored, server = keys.split(":")
    both = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(iterations))
    client = hmac.digest(both, b"Client Key", "sha256")
    assert scheme == "SCRAM-SHA-256"
    assert base64.b64decode(stored) == hashlib.sha256(client).digest()
    assert base64.b64decode(server) == hmac.digest(both, b"Server Key", "sha256")


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (
            "postgresql://root:pw@db:5433/postgres?sslmode=require",
            "postgresql://mailauth@db:5433/mail?sslmode=require",
        ),
        ("postgresql://127.0.0.1:5432/", "postgresql://mailauth@127.0.0.1:5432/mail"),
        ("postgresql://me@[::1]:5432,other/x", "postgresql://mailauth@[::1]:5432,other/mail"),
    ],
)
def test_a_roles_dsn(dsn: str, expected: str) -> None:
    assert with_place(dsn, "mail", "mailauth") == expected


def test_no_sockets_no_clusters(tmp_path: Path) -> None:
    (tmp_path / ".s.PGSQL.5432").write_text("not a socket")
    assert local_clusters(tmp_path) == []
    assert local_clusters(tmp_path / "nowhere") == []


def test_the_servers_of_this_machine_are_known_by_their_sockets(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(tmp_path / ".s.PGSQL.5433"))
        other.bind(str(tmp_path / ".s.PGSQL.5432"))
        assert local_clusters(tmp_path) == [
            LocalCluster(tmp_path, port, os.geteuid()) for port in (5432, 5433)
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes the user of PostgreSQL")
@pytest.mark.parametrize(
    ("ports", "words", "said"),
    [
        ([], [], "no PostgreSQL runs here"),
        ([5432, 5433], [], "at ports 5432, 5433: say which with --port"),
        ([5432, 5433], ["--port", "5434"], "no PostgreSQL runs here at port 5434; there are 5432, 5433"),
    ],
)
def test_which_server_is_not_guessed(
    ports: list[int], words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [LocalCluster(tmp_path, port, 0) for port in ports]
    monkeypatch.setattr(cluster, "local_clusters", lambda: found)
    config = tmp_path / "mailmaps.toml"
    result = CliRunner().invoke(main, ["setup", "database", "--config", str(config), *words])
    assert (result.exit_code, config.exists()) == (2, False)
    assert said in result.output


def test_roots_commands_find_what_setup_has_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After whatever else gives a password, and not instead of it."""
    monkeypatch.setattr(config_secrets, "STORE", tmp_path)
    monkeypatch.delenv(config_secrets.ENVIRONMENT, raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert config_secrets.database_password("") is None
    Passwords(tmp_path).file(ROLES[0]).write_text("stored\n")
    found = config_secrets.database_password("")
    assert found is not None
    assert found.reveal() == "stored"
    monkeypatch.setenv(config_secrets.ENVIRONMENT, "given")
    found = config_secrets.database_password("")
    assert found is not None
    assert found.reveal() == "given"
