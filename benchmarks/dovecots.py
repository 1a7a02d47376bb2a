"""Private Dovecots, one for each way to ask for a password, and IMAP clients for them.

All have the configuration that `mailmaps dovecot-config` prints; only passdb and the last userdb differ. The
peer is Dovecot's own `passdb sql` (`driver = pgsql`) with the cheapest question there is: one row by its
primary key, which brings all that userdb prefetch needs. It knows no addresses, no domain aliases, no rights.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from tests.system import dovecot as private_dovecot
from tests.system.dovecot import PrivateDovecot, installed_version
from tests.system.postfix import missing_packages

from benchmarks.clients import Door, WrongAnswers
from benchmarks.dataset import DOVECOT_READER
from benchmarks.suite import IS_ROOT, Suite

CHECKPASSWORD, LUA, SQL, CONSTANT = "checkpassword", "Lua", "sql", "constant program"

FLOOR = Path(__file__).parent / "constant_checkpassword.py"

PACKAGES = ("dovecot-core", "dovecot-imapd", "dovecot-auth-lua", "lua-socket", "dovecot-pgsql")

ANSWER_LIMIT = 60.0
"""Seconds for one line of an IMAP server."""

# A Dovecot of the tests ends itself after 15 minutes, should nobody else; a row takes that on a slow machine.
private_dovecot.LIFE_LIMIT = "3600"


def cannot_run() -> str:
    """Why no Dovecot can be measured here; empty if it can."""
    if missing := sorted(set(PACKAGES).intersection(missing_packages())):
        return f"run `make test-packages` as root (missing: {', '.join(missing)})"
    if not installed_version().startswith("2.3"):
        return f"checkpassword wants Dovecot 2.3, here is {installed_version()}"
    return "" if IS_ROOT else "it wants root: a private Dovecot gives up privileges it must have"


class Dovecot(PrivateDovecot):
    """One Dovecot that asks by `way`."""

    def __init__(self, suite: Suite, config: Path, way: str, base: Path) -> None:
        """`config` is the mailmaps.toml of a running daemon, `base` its virtual_mailbox_base."""
        super().__init__(config, "lua" if way == LUA else "checkpassword")
        self._way = way
        self._suite = suite
        self._base = base

    @property
    def auth_client(self) -> Door:
        """Where it is asked as its imap-login asks, without an IMAP process behind it."""
        return Door("auth", self.folder / "run" / "auth-client")

    def sessions(self, logins: list[str], clients: int, seconds: float) -> float:
        """IMAP sessions a second of so many clients: connect, TLS, greeting, LOGIN, LOGOUT, the end.

        Raises `WrongAnswers` when one is not let in.
        """
        context = ssl.create_default_context(cafile=str(self._certificate()))
        context.check_hostname = False
        turn = count()
        began = time.perf_counter()

        def client() -> int:
            done = 0
            while time.perf_counter() - began < seconds:
                self._session(context, *logins[next(turn) % len(logins)].split("\t"))
                done += 1
            return done

        with ThreadPoolExecutor(clients) as pool:
            done = sum(running.result() for running in [pool.submit(client) for _ in range(clients)])
        return done / (time.perf_counter() - began)

    def _session(self, context: ssl.SSLContext, user: str, password: str) -> None:
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_LIMIT) as bare,
            context.wrap_socket(bare) as link,
            link.makefile("rb") as replies,
        ):
            replies.readline()  # the greeting
            link.sendall(f"a LOGIN {user} {password}\r\n".encode())
            while not (line := replies.readline()).startswith(b"a OK"):
                if line.startswith(b"a ") or not line:
                    raise WrongAnswers(f"Dovecot {self._way}: {line!r}\n{self.log()}")
            link.sendall(b"b LOGOUT\r\n")
            while replies.readline():
                pass

    def _here(self, printed: str) -> str:
        """The tests' own Dovecot, with another passdb where the way is none of mailmaps'."""
        text = super()._here(printed)
        program = f"args = /usr/bin/python3 -IS {self.library}/checkpassword.py"
        if self._way == CONSTANT:
            floor = self.folder / FLOOR.name
            shutil.copyfile(FLOOR, floor)
            return text.replace(program, f"args = /usr/bin/python3 -IS {floor}")
        if self._way == SQL:
            file = self.folder / "dovecot-sql.conf.ext"
            file.write_text(self._sql())
            text = text.replace(program, f"args = {file}")
            return text.replace("driver = checkpassword", "driver = sql")
        return text

    def _sql(self) -> str:
        """dovecot-sql.conf.ext; the fields are those that mailmaps gives."""
        port, database = self._suite.cluster.postgres.port, self._suite.dataset.database
        fields = {
            "uid": "uid",
            "gid": "gid",
            "home": f"'{self._base}/' || mailbox || '/home'",
            "mail": f"'maildir:{self._base}/' || mailbox",
            "quota_rule": "'*:storage=' || quota || 'M'",
        }
        rows = "FROM user_accounts WHERE username = '%u' AND active = '1'"
        prefetched = ", ".join(f"{value} AS userdb_{name}" for name, value in fields.items())
        looked_up = ", ".join(f"{value} AS {name}" for name, value in fields.items())
        return f"""driver = pgsql
connect = host=127.0.0.1 port={port} dbname={database} user={DOVECOT_READER}
default_pass_scheme = CRYPT
password_query = SELECT username AS user, password, {prefetched} {rows}
user_query = SELECT {looked_up} {rows}
"""
