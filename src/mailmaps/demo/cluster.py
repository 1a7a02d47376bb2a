"""The files of an embedded PostgreSQL: `data/` and the superuser's `password` beside it (mode 0600)."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from mailmaps.demo.launcher import Account, PostgresError, command, run

SUPERUSER = "postgres"
# Letters sort by code point and fold as Unicode does, on any machine: the wheel knows no other locale.
LOCALE = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")


def make(directory: Path, account: Account | None, *, fsync: bool) -> None:
    """Make new data and a new password. Raises `PostgresError`.

    It is made aside and moved into place, so that an interrupted start leaves no half of it.
    """
    unfinished = directory / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    secret = secrets.token_urlsafe(24)
    _write_secret(directory / "password", secret)
    readable = directory / "password.initdb"
    _write_secret(readable, secret)
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
        os.chown(readable, account.uid, account.gid)
    options = [f"--pgdata={unfinished}", f"--username={SUPERUSER}", f"--pwfile={readable}", *LOCALE]
    options += ["--auth=scram-sha-256"] + ([] if fsync else ["--no-sync"])
    try:
        run([*command("initdb", unfinished, account), *options])
    finally:
        readable.unlink()
    unfinished.rename(directory / "data")


def check(directory: Path, account: Account | None) -> None:
    """See that the data is ours to start. Raises `PostgresError`: another major version, no password."""
    data = directory / "data"
    try:
        found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise PostgresError(f"{data} is not a data directory of PostgreSQL") from None
    ours = run([*command("postgres", data, account), "--version"]).split()[2].partition(".")[0]
    if found != ours:
        raise PostgresError(
            f"{data} was made by PostgreSQL {found}, this is {ours}: "
            "remove the directory, or dump its databases with the old version first"
        )
    if not (directory / "password").exists():
        raise PostgresError(f"{directory / 'password'} is missing: remove {data} too and start anew")


def password(directory: Path) -> str:
    """The superuser's password."""
    return (directory / "password").read_text(encoding="ascii")


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
