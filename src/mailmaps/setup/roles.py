"""The roles of the daemon and its commands, and where the password of each lies.

A password is a file beside mailmaps.toml, mode 0600 of whoever runs the setup (root). systemd hands the
daemon those it needs (LoadCredential=, systemd.exec(5)); what root runs reads them itself. A file is
written before the role gets its password: a setup that is cut off in between finds both as they must be when
it is run again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from mailmaps.config.secrets import (
    ADMIN_CREDENTIAL,
    AUTH_CREDENTIAL,
    CREDENTIAL,
    WRITE_CREDENTIAL,
    Secret,
)
from mailmaps.setup import files

# 256 bits, in characters that need no quotes in a file, a URI or a shell.
PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Role:
    """One role: the setting that has its DSN, that of its password file, the file, and what it is for."""

    name: str
    dsn: str
    password_file: str
    credential: str
    purpose: str


ROLES = (
    Role("mailreader", "dsn", "password_file", CREDENTIAL, "looks up tables"),
    Role("mailauth", "auth_dsn", "auth_password_file", AUTH_CREDENTIAL, "looks up logins"),
    Role("mailwriter", "write_dsn", "write_password_file", WRITE_CREDENTIAL, "counts what is sent"),
    Role("mailadmin", "admin_dsn", "admin_password_file", ADMIN_CREDENTIAL, "makes domains and accounts"),
)

# Who owns the tables of a database that setup made; nobody can log in as it.
OWNER = "mailowner"


class Passwords:
    """The folder of the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, role: Role) -> Path:
        """Where the password of a role is, or would be."""
        return self.folder / role.credential

    def read(self, role: Role) -> Secret | None:
        """The password, or None where there is no file. Raises `OSError`, `ValueError` (unusable)."""
        try:
            lines = self.file(role).read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise ValueError(f"{self.file(role)}: not ASCII") from None
        if not lines or not lines[0]:
            raise ValueError(f"{self.file(role)}: the first line is empty")
        return Secret(lines[0])

    def make(self, role: Role) -> Secret:
        """A new random password, in its file. Raises `OSError`."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        password = Secret(secrets.token_urlsafe(PASSWORD_BYTES))
        files.write(self.file(role), f"{password.reveal()}\n", files.PRIVATE)
        return password
