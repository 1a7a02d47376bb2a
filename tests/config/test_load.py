"""Wrong settings: every problem at once, with file, line and path, and never a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailmaps.config import SettingsError, load, parse
from mailmaps.config.dsn import each_host
from mailmaps.config.edit import set_values
from mailmaps.config.locate import line_of
from mailmaps.config.secrets import ENVIRONMENT, database_password
from mailmaps.database.connect import auth_database, find_password


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, "m.toml")
    return caught.value.problems


def test_everything_wrong_is_said_at_once_with_its_line() -> None:
    text = """
[database]
passwrod = "s3cret"
connections = "4"

[tables.virtual_alias_maps]
sources = [
  "builtin",
  "nonsense s3cret",
]
[tables.no_such_table]
[cache]
ttl = -1
"""
    found = problems(text)
    assert "m.toml:4: database.connections: should be a valid integer" in found
    assert "m.toml:3: database.passwrod: there is no such setting" in found
    assert any(line.startswith("m.toml:7: tables.virtual_alias_maps.sources: not a source") for line in found)
    assert any(line.startswith("m.toml:11: tables.no_such_table.parameter: no such table") for line in found)
    assert any(line.startswith("m.toml:13: cache.ttl: ") for line in found)
    assert "s3cret" not in "\n".join(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "m.toml: "),
        ('delivery = "dovecot"', "m.toml:1: delivery: "),
        (
            '[socketmap]\ninet = "localhost:1"',
            "m.toml:2: socketmap.inet: the address before the port must be numeric",
        ),
        ('[socketmap]\ninet = "0.0.0.0:17020"', "socketmap.inet is not a loopback address"),
        ('[socketmap]\ninet = "127.0.0.1:17011"', "the same endpoint"),
        ('[socketmap]\nmode = "rw"', "m.toml:2: socketmap.mode: not an octal mode"),
        ('[control]\nunix = "relative"', "m.toml:2: control.unix: a socket needs an absolute path"),
        (f'[control]\nunix = "/{"x" * 107}"', "at most 107 bytes"),
        ('[listen]\nallow_networks = ["192.0.2.1/24"]', "m.toml:2: listen.allow_networks: not a network"),
        ("tables = 4", "m.toml:1: tables: "),
    ],
)
def test_problems(text: str, said: str) -> None:
    assert said in "\n".join(problems(text))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:s3cret/x@127.0.0.1:5432/mail",
        "postgresql://u:12345/s3cret@127.0.0.1:5432/mail",
        "postgresql://u:s3cret?x@127.0.0.1/mail",
        "postgresql://u:s3cret#x@127.0.0.1/mail",
        "postgresql://u:s3[cret@127.0.0.1/mail",
        "postgresql://u:s3℀cret@127.0.0.1/mail",
        "postgresql://u:s3cret@127.0.0.1:port/mail",
        "postgresql://u:s3cret@127.0.0.1:99999/mail",
        "postgresql://u:s3@cret@127.0.0.1/mail",
        "mysql://u:s3cret@127.0.0.1/mail",
        "host=127.0.0.1 password=s3cret",
        "postgresql://u:s3cret@127.0.0.1/mail?connect_timeout=2",
    ],
)
def test_a_dsn_that_falls_apart_is_refused_and_not_shown(dsn: str) -> None:
    found = "\n".join(problems(f"[database]\ndsn = '{dsn}'"))
    assert found.startswith("m.toml:2: database.dsn: ")
    assert "cret" not in found
    assert "12345" not in found


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p%2Fw@127.0.0.1:5432/mail", ["postgresql://u:p%2Fw@127.0.0.1:5432/mail"]),
        ("postgres://u@[::1]:5432,db.example/mail?sslmode=require",
         ["postgres://u@[::1]:5432/mail?sslmode=require", "postgres://u@db.example/mail?sslmode=require"]),
        ("postgresql:///mail?host=/run/postgresql", ["postgresql:///mail?host=/run/postgresql"]),
        ("postgresql://u@/mail", ["postgresql://u@/mail"]),
        ("postgresql://u@%2Frun%2Fpostgresql/mail", ["postgresql://u@%2Frun%2Fpostgresql/mail"]),
    ],
)  # fmt: skip
def test_a_dsn_is_split_by_host(dsn: str, hosts: list[str]) -> None:
    assert parse(f"[database]\ndsn = '{dsn}'").database.dsn == dsn
    assert each_host(dsn) == hosts


def test_a_public_address_with_networks_is_fine() -> None:
    settings = parse('[listen]\nallow_networks = ["192.0.2.0/24"]\n[socketmap]\ninet = "0.0.0.0:17020"')
    assert settings.socketmap.inet == "0.0.0.0:17020"


def test_a_table_mentioned_keeps_its_default_endpoint() -> None:
    settings = parse('[tables.virtual_uid_maps]\nsources = ["view:public.uids"]')
    assert settings.tables["virtual_uid_maps"].tcp == "127.0.0.1:17015"
    assert settings.tables["virtual_gid_maps"].tcp == "127.0.0.1:17016"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(SettingsError, match="latin.toml: not UTF-8"):
        load(tmp_path / "latin.toml")


def test_lines_are_found_behind_multi_line_values() -> None:
    text = 'a = """\n[cache]\nttl = 1\n"""\nb = [\n "x = 1",\n]\n[cache]\n"ttl" = 5\nsize.x = 3\n'
    assert line_of(text, ("cache", "ttl")) == 9
    assert line_of(text, ("cache",)) == 8
    assert line_of(text, ("cache", "size", "x")) == 10
    assert line_of(text, ("cache", "nothing")) == 8
    assert line_of(text, ("nothing",)) is None


def test_values_are_set_and_everything_else_stays() -> None:
    text = '# top\n[postfix]\n# about\nmyorigin = "" # was\nmydestination = [\n  "a",\n]\n[cache]\nttl = 1\n'
    changed = set_values(text, "postfix", {"mydestination": '["b"]', "myorigin": '"x"', "new": "true"})
    assert changed == (
        '# top\n[postfix]\nnew = true\n# about\nmyorigin = "x"\nmydestination = ["b"]\n[cache]\nttl = 1\n'
    )
    assert set_values("a = 1\n", "postfix", {"b": "2"}) == "a = 1\n\n[postfix]\nb = 2\n"


def test_passwords_are_found_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert database_password("") is None
    monkeypatch.setenv(ENVIRONMENT, "from-environment")
    secret = database_password("")
    assert secret is not None
    assert secret.reveal() == "from-environment"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "database-password").write_text("from-credential\n")
    secret = database_password("")
    assert secret is not None
    assert secret.reveal() == "from-credential"
    (tmp_path / "file").write_text("from-file\nsecond line\n")
    secret = database_password(str(tmp_path / "file"))
    assert secret is not None
    assert secret.reveal() == "from-file"
    assert "from-file" not in repr(secret) + str(secret)
    with pytest.raises(SettingsError, match=r"none\): No such file"):
        database_password(str(tmp_path / "none"))


def test_the_dsn_is_not_in_the_repr_of_the_settings() -> None:
    assert "s3cret" not in repr(parse('[database]\ndsn = "postgresql://u:s3cret@127.0.0.1/mail"'))


@pytest.mark.parametrize("section", ["login", "dovecot_auth", "saslauthd"])
@pytest.mark.parametrize("mode", ["0666", "0662", "777"])
def test_nobody_may_leave_a_login_socket_open_to_everybody(section: str, mode: str) -> None:
    with pytest.raises(SettingsError, match=rf"{section}: mode lets everybody connect"):
        parse(f'[{section}]\nmode = "{mode}"\n')
    assert parse(f'[{section}]\nmode = "0660"\n').has_logins is False
    assert parse(f'[{section}]\nunix = "/run/x"\n').has_logins


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('backend = "ldap"', "auth.backend"),
        ('source = "pgsql:/etc/x.cf"', "not a source of logins"),
        ("names = []", "auth.names"),
        ('names = ["uid"]', "auth.names"),
        ('default_scheme = "ROT13"', "not a scheme of password hashes"),
        ('default_scheme = "plain"', "counts with allow_plain"),
        ('home_base = "homes"', "a directory needs an absolute path"),
        ('pam_service = "../../etc/passwd"', "not the name of a file in /etc/pam.d"),
        ('shared_clients = ["192.0.2.1/24"]', "not a network"),
        ("threads = -1", "auth.threads"),
    ],
)
def test_settings_of_logins_that_make_no_sense(line: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as error:
        parse(f"[auth]\n{line}\n")
    assert "mailmaps.toml:" in str(error.value)


def test_settings_of_logins_that_do() -> None:
    auth = parse('[auth]\ndefault_scheme = "ssha256.hex"\nnames = ["address"]\n').auth
    assert (auth.default_scheme, auth.names) == ("ssha256.hex", ["address"])
    assert parse('[auth]\ndefault_scheme = "PLAIN"\nallow_plain = true\n').auth.allow_plain


def test_the_password_of_auth_dsn_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "database-password").write_text("of-the-reader\n")
    (tmp_path / "auth-database-password").write_text("of-the-authenticator\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    same = parse("").database
    assert auth_database(same) is same
    other = auth_database(parse('[database]\nauth_dsn = "postgresql://mailauth@127.0.0.1/mail"').database)
    assert other.dsn == "postgresql://mailauth@127.0.0.1/mail"
    found = [find_password(one) for one in (same, other)]
    assert [one.reveal() for one in found if one] == ["of-the-reader", "of-the-authenticator"]
    (tmp_path / "file").write_text("of-the-file\n")
    text = '[database]\nauth_dsn = "postgresql://mailauth@127.0.0.1/mail"\n'
    secret = find_password(auth_database(parse(f'{text}auth_password_file = "{tmp_path}/file"').database))
    assert secret is not None
    assert secret.reveal() == "of-the-file"
