"""`mailmaps setup database` against a real server: what it makes, what it leaves alone, what it refuses.

Roles belong to a whole server, so these tests have one of their own.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner, Result

from mailmaps.cli import main
from mailmaps.config import load
from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres

NAMES = ("database", "auth-database", "write-database", "admin-database")
ROLES = ("mailreader", "mailauth", "mailwriter", "mailadmin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("setup"), fsync=False) as found:
        yield found


class Site:
    """One run after another against the server, with a folder in the place of /etc/mailmaps."""

    def __init__(self, server: EmbeddedPostgres, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.config = folder / "mailmaps.toml"

    def run(self, *words: str, code: int = 0, typed: str = "") -> Result:
        result = CliRunner().invoke(
            main,
            ["setup", "database", "--config", str(self.config), "--dsn", self.server.dsn(), *words],
            input=typed,
        )
        assert result.exit_code == code, result.output
        return result

    def password(self, name: str) -> str:
        return (self.folder / f"{name}-password").read_text().strip()

    def sql(self, statement: str, dsn: str | None = None) -> list[asyncpg.Record]:
        return asyncio.run(fetch(dsn or self.server.dsn(), statement))

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


async def fetch(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


@pytest.fixture
def site(server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server without our database and roles, before and after; and no Postfix to ask."""
    monkeypatch.setenv("PATH", "/nonexistent")
    folder = tmp_path / "etc"
    folder.mkdir()
    found = Site(server, folder)
    yield found
    found.sql("DROP DATABASE IF EXISTS mail WITH (FORCE)")
    for role in (*ROLES, "mailowner"):
        found.sql(f"DROP ROLE IF EXISTS {role}")


def test_everything_is_made(site: Site) -> None:
    said = site.run().output
    settings = load(site.config)
    for name, role in zip(NAMES, ROLES, strict=True):
        file = site.folder / f"{name}-password"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        dsn = site.server.dsn("mail", role, site.password(name))
        assert site.sql("SELECT current_user AS name", dsn)[0]["name"] == role
        assert site.password(name) not in said
    assert settings.database.dsn.endswith("/mail")
    assert settings.database.admin_password_file == str(site.folder / "admin-database-password")
    reader = site.server.dsn("mail", "mailreader", site.password("database"))
    assert site.sql("SELECT * FROM mailmaps.virtual_alias_maps", reader) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        site.sql("SELECT password FROM user_accounts", reader)


def test_a_password_on_the_command_line_is_told_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "list of processes" in site.run().stderr
    parts = urlsplit(site.server.dsn())
    monkeypatch.setenv("PGPASSWORD", parts.password or "")
    without = parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}").geturl()
    again = site.run("--dsn", without)  # the last one counts
    assert "list of processes" not in again.output


def test_settings_that_are_not_utf_8_are_named(site: Site) -> None:
    site.config.write_bytes("# Grüße\n".encode("latin-1"))
    before = site.files()
    assert f"{site.config}: not UTF-8 text (byte 4)" in site.run(code=2).output
    assert site.files() == before


def test_nobody_can_log_in_as_who_owns_the_tables(site: Site) -> None:
    site.run()
    row = site.sql(
        "SELECT rolcanlogin, rolsuper FROM pg_roles JOIN pg_class ON pg_roles.oid = relowner "
        "WHERE relname = 'user_accounts'",
        site.server.dsn("mail"),
    )[0]
    assert tuple(row) == (False, False)


def test_no_password_reaches_the_servers_log(site: Site) -> None:
    site.sql("ALTER SYSTEM SET log_statement = 'all'")
    site.sql("SELECT pg_reload_conf()")
    try:
        site.run()
    finally:
        site.sql("ALTER SYSTEM RESET log_statement")
        site.sql("SELECT pg_reload_conf()")
    log = (site.server.directory / "log").read_text()
    assert "CREATE ROLE mailreader" in log
    assert not [name for name in NAMES if site.password(name) in log]


def test_run_again_it_changes_nothing(site: Site) -> None:
    site.run()
    before = site.files()
    verifiers = site.sql("SELECT rolname, rolpassword FROM pg_authid ORDER BY rolname")
    said = site.run().output  # and nobody is there to answer a question
    assert "has all of it already" in said
    assert site.files() == before
    assert site.sql("SELECT rolname, rolpassword FROM pg_authid ORDER BY rolname") == verifiers


def test_run_again_it_mends_what_is_missing(site: Site) -> None:
    site.run()
    reader = site.server.dsn("mail", "mailreader", site.password("database"))
    site.sql("REVOKE ALL ON mailmaps.transport_maps FROM mailreader", site.server.dsn("mail"))
    (site.config).unlink()
    site.run()
    assert site.sql("SELECT * FROM mailmaps.transport_maps", reader) == []
    assert load(site.config).database.dsn.endswith("/mail")


def test_a_setup_that_was_cut_off_goes_on(site: Site) -> None:
    """The password is in its file before the role is made."""
    (site.folder / "auth-database-password").write_text("kept-from-before\n")
    site.run()
    assert site.password("auth-database") == "kept-from-before"
    dsn = site.server.dsn("mail", "mailauth", "kept-from-before")
    assert site.sql("SELECT 1 AS one", dsn)[0]["one"] == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_role_with_an_unknown_password_stops_it(site: Site, known: bool) -> None:
    site.sql("CREATE ROLE mailreader LOGIN PASSWORD 'of-somebody'")
    if known:
        (site.folder / "database-password").write_text("another\n")
    before = site.files()
    said = site.run(code=2).output
    assert "mailreader" in said
    assert "--new-passwords" in said
    assert "nothing was done" in said
    assert site.files() == before
    assert site.sql("SELECT FROM pg_database WHERE datname = 'mail'") == []
    assert site.sql("SELECT FROM pg_roles WHERE rolname = 'mailauth'") == []


def test_the_password_of_a_role_that_is_there_can_be_given(site: Site) -> None:
    site.sql("CREATE ROLE mailreader LOGIN PASSWORD 'of-somebody'")
    (site.folder / "database-password").write_text("of-somebody\n")
    site.run()
    assert site.sql("SELECT 1 AS one", site.server.dsn("mail", "mailreader", "of-somebody"))


def test_new_passwords(site: Site) -> None:
    site.run()
    before = site.password("database")
    site.run("--new-passwords")
    after = site.password("database")
    assert before != after
    with pytest.raises(asyncpg.InvalidPasswordError):
        site.sql("SELECT", site.server.dsn("mail", "mailreader", before))
    assert site.sql("SELECT 1 AS one", site.server.dsn("mail", "mailreader", after))


def test_a_database_with_other_tables_is_left_alone(site: Site) -> None:
    site.sql("CREATE DATABASE mail TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    site.sql("CREATE TABLE mailbox (username text)", site.server.dsn("mail"))
    said = site.run(code=2).output
    assert "public.mailbox" in said
    assert site.files() == {}
    assert site.sql("SELECT FROM pg_namespace WHERE nspname = 'mailmaps'", site.server.dsn("mail")) == []


def test_the_howtos_tables_are_for_schema_upgrade(site: Site) -> None:
    site.sql("CREATE DATABASE mail TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    site.sql("CREATE ROLE mailreader")
    howto = (Path(__file__).parent.parent / "database" / "howto.sql").read_text()
    asyncio.run(execute(site.server.dsn("mail"), howto))
    said = site.run(code=2).output
    assert "mailmaps schema upgrade" in said
    assert site.files() == {}


async def execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def test_a_database_in_another_encoding(site: Site) -> None:
    site.sql("CREATE DATABASE mail TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")
    assert "UTF8" in site.run(code=2).output
    assert site.files() == {}


def test_settings_that_are_there_are_kept(site: Site) -> None:
    site.config.write_text("# ours\n[log]\nlevel = 'debug'  # while we look\n[database]\nconnections = 7\n")
    before = site.config.read_bytes()
    said = site.run(typed="y\n").output
    assert "+dsn = " in said
    text = site.config.read_text()
    assert text.startswith("# ours\n[log]\nlevel = 'debug'  # while we look\n")
    assert load(site.config).database.connections == 7
    copies = list(site.folder.glob("mailmaps.toml.before-*"))
    assert [copy.read_bytes() for copy in copies] == [before]


def test_no_at_the_question_does_nothing(site: Site) -> None:
    site.config.write_text("[log]\nlevel = 'debug'\n")
    before = site.files()
    assert "nothing was done" in site.run(typed="n\n", code=2).output
    assert site.files() == before
    assert site.sql("SELECT FROM pg_roles WHERE rolname = 'mailreader'") == []


def test_settings_of_another_database_stop_it(site: Site) -> None:
    site.config.write_text('[database]\ndsn = "postgresql://me:secret-word@db.example/other"\n')
    before = site.files()
    said = site.run("--yes", code=2).output
    assert "database.dsn" in said
    assert "secret-word" not in said
    assert site.files() == before


def test_what_pg_hba_conf_lacks_is_said(site: Site) -> None:
    file = site.server.data / "pg_hba.conf"
    before = file.read_text()
    file.write_text(f"host all mailauth 127.0.0.1/32 reject\n{before}")
    site.sql("SELECT pg_reload_conf()")
    try:
        said = site.run(code=1).output
        assert str(file) in said
        assert "host  mail  mailauth  " in said
        assert "scram-sha-256" in said
    finally:
        file.write_text(before)
        site.sql("SELECT pg_reload_conf()")
    site.run()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    words = ["--config", str(tmp_path / "m.toml"), "--dsn", "postgresql://postgres@127.0.0.1:9/postgres"]
    result = CliRunner().invoke(main, ["setup", "database", *words])
    assert result.exit_code == 2
    assert "127.0.0.1:9" in result.output
    assert list(tmp_path.iterdir()) == []
