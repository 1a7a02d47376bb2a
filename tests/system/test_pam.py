"""Logins by the real PAM, with service files and system users of the test's own.

/etc/pam.d, /etc/passwd and /etc/shadow are the test's in a mount namespace, which ends with its process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.conftest import Database
from tests.system.login_site import ANNA, GONE, JAN, NO_IMAP, SECRET, LoginSite, insert

from mailmaps.auth import passwords

pytestmark = pytest.mark.postfix  # as root, on Debian

SERVICES = {
    "mail": "auth required pam_unix.so nodelay\naccount required pam_unix.so\n",
    "usual": "@include common-auth\n@include common-account\n",
    "substack": "auth substack mail\naccount include mail\n",
    "permit": "auth required pam_permit.so\naccount required pam_permit.so\n",
    "missing-module": "auth required pam_no_such_module.so\naccount required pam_permit.so\n",
    "refusing-account": "auth required pam_permit.so\naccount required pam_deny.so\n",
    "program": "auth required pam_exec.so quiet /bin/false\naccount required pam_permit.so\n",
    "hanging": "auth required pam_exec.so quiet /bin/sleep 20\naccount required pam_permit.so\n",
}

USERS = (JAN.username, GONE.username, NO_IMAP.username, "expired")


@pytest.fixture(scope="module")
def etc() -> Iterator[Path]:
    """The files that stand for those of /etc, and the command that puts them there for another command."""
    folder = Path(tempfile.mkdtemp(prefix="mailmaps-pam-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        shutil.copytree("/etc/pam.d", folder / "pam.d")
        for name, text in SERVICES.items():
            (folder / "pam.d" / name).write_text(text)
        made = passwords.make(SECRET.encode(), "SHA512-CRYPT").rpartition("}")[2]
        for name in ("passwd", "shadow"):
            shutil.copy(f"/etc/{name}", folder / name)
        with (folder / "passwd").open("a") as passwd, (folder / "shadow").open("a") as shadow:
            for number, user in enumerate(USERS, start=59001):
                passwd.write(f"{user}:x:{number}:59001::/nonexistent:/usr/sbin/nologin\n")
                shadow.write(f"{user}:{made}:19000:0:99999:7::{'1' if user == 'expired' else ''}:\n")
        shutil.chown(folder / "shadow", "root", "shadow")
        (folder / "shadow").chmod(0o640)
        script = "".join(
            f"mount --bind {folder}/{name} /etc/{name}\n" for name in ("pam.d", "passwd", "shadow")
        )
        (folder / "run").write_text(f'set -e\n{script}exec "$@"\n')
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inside(etc: Path) -> tuple[str, ...]:
    return ("unshare", "--mount", "--propagation", "private", "sh", str(etc / "run"))


@pytest_asyncio.fixture
async def site(database: Database, etc: Path) -> AsyncIterator[LoginSite]:
    await insert(database.connection)
    settings = {"auth": {"backend": "pam"}}
    with LoginSite(database.reader_dsn, database.auth_dsn, settings, wrapper=inside(etc)) as site:
        yield site


async def test_each_result_by_pam_with_the_account_of_postgresql(site: LoginSite) -> None:
    for login in (JAN.username, JAN.email):  # PAM knows the username only
        [reply] = await site.lines("LOGIN", {"user": login, "password": SECRET, "service": "imap"})
        assert reply.startswith(f"OK\tuser={JAN.username}\tuid={JAN.uid}\tgid=5001\thome=".encode())
    assert await site.by_auth(JAN.email) == f"accepted {JAN.username}"
    assert await site.by_mux(JAN.username, realm="lxtreme.nl") == "accepted"
    for user, password in (
        (JAN.username, "wrong"),
        (JAN.username, ""),
        (ANNA.username, SECRET),  # PostgreSQL knows her, PAM does not
        ("expired", SECRET),  # the other way round
        (GONE.username, SECRET),
        (NO_IMAP.username, SECRET),
        ("root", "x"),
    ):
        assert await site.by_login(user, password) == "rejected", user
    assert SECRET not in site.daemon.log()


def ask(etc: Path, service: str, user: str, password: str, groups: str | None = None) -> str:
    """What `mailmaps.auth.pam` says as root, or as nobody in these groups; the password comes by stdin."""
    drop = (
        ""
        if groups is None
        else f"os.setgroups([grp.getgrnam(name).gr_gid for name in {groups.split()!r}]); os.setgid(65534); "
        "os.setuid(65534); "
    )
    script = (
        "import grp, os, sys; from mailmaps.auth import pam; from mailmaps.maps.answer import CannotSay\n"
        "password = sys.stdin.buffer.read()\npam.check_service(sys.argv[1])\n"
        f"{drop}\n"
        "try: print(pam.ask(sys.argv[1], sys.argv[2], password))\n"
        "except CannotSay as error: print('cannot say:', error)\n"
    )
    done = subprocess.run(
        [*inside(etc), sys.executable, "-c", script, service, user],
        input=password.encode(),
        capture_output=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": "src"},
    )
    assert password.encode() not in done.stderr
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    ("service", "user", "password", "expected"),
    [
        ("mail", JAN.username, SECRET, "True"),
        ("mail", JAN.username, "wrong", "False"),
        ("mail", "nobody-at-all", SECRET, "False"),
        ("mail", "expired", SECRET, "False"),
        ("permit", "anybody", "x", "True"),
        ("refusing-account", "anybody", "x", "False"),
        ("missing-module", JAN.username, SECRET, "cannot say: PAM:"),
        ("program", JAN.username, SECRET, "cannot say: PAM: System error (4)"),
    ],
)
def test_what_pam_says_means(etc: Path, service: str, user: str, password: str, expected: str) -> None:
    said = ask(etc, service, user, password)
    assert said.startswith(expected)
    assert password not in said


def test_pam_unix_as_an_unprivileged_user_needs_the_group_shadow(etc: Path) -> None:
    """Without it nobody is told "wrong password"."""
    assert ask(etc, "mail", JAN.username, SECRET, "shadow") == "True"
    assert ask(etc, "mail", JAN.username, "wrong", "shadow") == "False"
    assert ask(etc, "mail", JAN.username, SECRET, "").startswith(
        "cannot say: PAM: Authentication service cannot"
    )


@pytest.mark.parametrize("service", ["mail", "usual", "substack"])
@pytest.mark.parametrize(("groups", "said"), [("shadow", "fine"), ("", "needs /etc/shadow")])
def test_a_daemon_that_may_not_read_shadow_does_not_start_with_pam_unix(
    etc: Path, service: str, groups: str, said: str
) -> None:
    """Behind Debian's common-auth it would tell everybody "wrong password"."""
    script = (
        "import grp, os, sys; from mailmaps.auth import pam\n"
        f"os.setgroups([grp.getgrnam(name).gr_gid for name in {groups.split()!r}])\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: pam.check_service(sys.argv[1]); print('fine')\n"
        "except pam.PamError as error: print(error)\n"
    )
    words = [*inside(etc), sys.executable, "-c", script, service]
    environment = os.environ | {"PYTHONPATH": "src"}
    done = subprocess.run(words, capture_output=True, check=True, timeout=120, env=environment, text=True)
    assert said in done.stdout
    if service == "usual" and not groups:
        assert ask(etc, service, JAN.username, SECRET, groups) == "False"  # the reason


async def test_a_module_that_hangs_is_cannot_say_and_does_not_keep_us_from_stopping(
    database: Database, etc: Path
) -> None:
    await insert(database.connection)
    settings: dict[str, dict[str, str | bool | int | float | list[str]]] = {
        "auth": {"backend": "pam", "pam_service": "hanging", "pam_threads": 1}
    }
    with LoginSite(database.reader_dsn, database.auth_dsn, settings, wrapper=inside(etc)) as site:
        assert await site.by_login(JAN.username) == "later"
        assert site.daemon.stop() == 0
