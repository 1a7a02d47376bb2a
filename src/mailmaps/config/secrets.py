"""Finds the database password without it ever being printed.

Asked in this order: the file named by `database.password_file`, the systemd credential
`database-password` (systemd.exec(5) LoadCredential=), the environment variable
MAILMAPS_DATABASE_PASSWORD, the file `database-password` in /etc/mailmaps, where the credential comes from,
for a command that root runs. None of them: the DSN's own, or libpq's (PGPASSWORD, ~/.pgpass). For
`database.auth_dsn` the names begin with `auth`, for `database.write_dsn` with `write`, for
`database.admin_dsn` with `admin`.
"""

from __future__ import annotations

import os
from pathlib import Path

from mailmaps.config.load import SettingsError

ENVIRONMENT = "MAILMAPS_DATABASE_PASSWORD"
CREDENTIAL = "database-password"
AUTH_ENVIRONMENT = "MAILMAPS_AUTH_DATABASE_PASSWORD"
AUTH_CREDENTIAL = "auth-database-password"
WRITE_ENVIRONMENT = "MAILMAPS_WRITE_DATABASE_PASSWORD"
WRITE_CREDENTIAL = "write-database-password"
ADMIN_ENVIRONMENT = "MAILMAPS_ADMIN_DATABASE_PASSWORD"
ADMIN_CREDENTIAL = "admin-database-password"

# Where `mailmaps setup database` keeps the passwords and the systemd units take the credentials from.
STORE = Path("/etc/mailmaps")


class Secret:
    """A password that does not show itself in a log, a repr or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"


def database_password(password_file: str) -> Secret | None:
    """Return the password, or None where none is given. Raises `SettingsError` for an unreadable file."""
    return _find(password_file, "database.password_file", CREDENTIAL, ENVIRONMENT)


def auth_database_password(password_file: str) -> Secret | None:
    """The same for `database.auth_dsn`, with `database.auth_password_file`."""
    return _find(password_file, "database.auth_password_file", AUTH_CREDENTIAL, AUTH_ENVIRONMENT)


def write_database_password(password_file: str) -> Secret | None:
    """The same for `database.write_dsn`, with `database.write_password_file`."""
    return _find(password_file, "database.write_password_file", WRITE_CREDENTIAL, WRITE_ENVIRONMENT)


def admin_database_password(password_file: str) -> Secret | None:
    """The same for `database.admin_dsn`, with `database.admin_password_file`."""
    return _find(password_file, "database.admin_password_file", ADMIN_CREDENTIAL, ADMIN_ENVIRONMENT)


def _find(password_file: str, setting: str, credential: str, environment: str) -> Secret | None:
    if password_file:
        return _read(Path(password_file), setting)
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(directory) / credential
        if _is_given(path):
            return _read(path, f"the credential {credential}")
    if (value := os.environ.get(environment)) is not None:
        return Secret(value)
    return _stored(STORE / credential)


def _stored(path: Path) -> Secret | None:
    """What root's commands have; for everybody else there is nothing here."""
    return _read(path, "the stored password") if os.access(path, os.R_OK) else None


def _is_given(path: Path) -> bool:
    """Whether there is a credential: our units have an empty line in place of a missing file."""
    try:
        return path.read_bytes() != b"\n"
    except FileNotFoundError:
        return False
    except OSError:
        return True  # whoever reads it says why it cannot be


def _read(path: Path, what: str) -> Secret:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError([f"{what} ({path}): {reason}"]) from None
    if not lines or not lines[0]:
        raise SettingsError([f"{what} ({path}): the first line is empty"])
    return Secret(lines[0])
