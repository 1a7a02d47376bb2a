"""A Postfix of our own, beside the system's and knowing nothing of it.

Contract: `PrivatePostfix` lives in one folder below /tmp (configuration, queue, data, log; pytest's
tmp_path is 0700 and the postfix user could not pass it), listens on one port of 127.0.0.1, talks to
nobody but loopback, and after `stop` neither a process nor a file of it is left, whatever happened
before. It reads the installed programs and /etc/postfix/dynamicmaps.cf and writes neither.

`PrivatePostfix(settings)` has the few services of postfix_cf.py and `settings` over its `BASE_SETTINGS`;
`PrivatePostfix.from_example("virtual")` is the complete configuration in postfix/virtual of this repository,
changed by `postconf` in as few places as a second Postfix on this machine needs, so that what a user copies
is what is tested.

It runs `master -c FOLDER` as our own child instead of `postfix start`: the pid is then known without
a pid file, and a master that dies is seen at once. Needs root, as master does.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.system.postfix_cf import (
    BASE_SETTINGS,
    EXAMPLES,
    IN_EXAMPLES,
    MASTER_CF,
    MESSAGE_FOLDERS,
    QUEUE_FOLDERS,
)
from tests.system.processes import end_master, eventually, eventually_async, free_ports

__all__ = ["PrivatePostfix", "eventually", "missing_packages"]

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""Debian keeps Postfix's commands in sbin, which is not on everybody's PATH."""

PACKAGES = {"pgsql": "postfix-pgsql", "cdb": "postfix-cdb", "lmdb": "postfix-lmdb"}
"""Map types that the tests use, and the Debian package that brings each."""

PROGRAMS = {
    "pgbouncer": "pgbouncer",
    "openssl": "openssl",
    "dovecot": "dovecot-core",
    "testsaslauthd": "sasl2-bin",
    "promtool": "prometheus",
    "groff": "groff-base",
    "lexgrog": "man-db",
    "mandoc": "mandoc",
}
FILES = {
    "lib/dovecot/imap": "dovecot-imapd",
    "lib/dovecot/pop3": "dovecot-pop3d",
    "lib/dovecot/lmtp": "dovecot-lmtpd",
    "lib/dovecot/managesieve": "dovecot-managesieved",
    "lib/dovecot/modules/auth/libauthdb_lua.so": "dovecot-auth-lua",
    "lib/dovecot/modules/auth/libdriver_pgsql.so": "dovecot-pgsql",
    "share/lua/5.*/socket.lua": "lua-socket",
    "lib/*/sasl2/libplain.so*": "libsasl2-modules",
}
"""What else the tests with real servers run or load, and the Debian package that brings it."""

START_LIMIT = 30.0
STOP_LIMIT = 10.0
"""Seconds. Both take well under one; a test machine may be busy with its other half."""

COMPLAINT = re.compile(r": (warning|error|fatal|panic): ")

OF_THE_MACHINE = re.compile(r"file system clock is \d+ seconds ahead|resetting file time stamps")
"""What cleanup(8) says of a virtual machine whose clock was set back by some milliseconds just then."""

LIFE_LIMIT = 900
"""Seconds after which master ends itself (`master -e`), should pytest be killed outright. A
parent-death signal cannot do this: master changes its effective uid, and the kernel then forgets it."""


class Postmap(NamedTuple):
    """What `postmap -q` said: exit code 0 found, 1 not found or error; `error` tells these apart."""

    code: int
    value: str
    error: str


def missing_packages() -> list[str]:
    """Name the Debian packages that the tests with real servers miss here; nothing when all is there."""
    others = [
        package for name, package in PROGRAMS.items() if shutil.which(name, path=SEARCH_PATH) is None
    ] + [package for path, package in FILES.items() if not list(Path("/usr").glob(path))]
    postconf = shutil.which("postconf", path=SEARCH_PATH)
    if postconf is None:
        return ["postfix", *PACKAGES.values(), *others]
    known = subprocess.run([postconf, "-m"], capture_output=True, text=True, check=True).stdout.split()
    return [package for map_type, package in PACKAGES.items() if map_type not in known] + others


class PrivatePostfix:
    """One Postfix: `start`, `stop`, `reload`, and what a test asks of it in between."""

    def __init__(self, settings: Mapping[str, str], smtpd_limit: int | None = None) -> None:
        """`settings` are lines of main.cf over `BASE_SETTINGS`; `smtpd_limit` the smtpd processes allowed."""
        self.settings = dict(settings)
        self.smtpd_limit = smtpd_limit
        self.port = free_ports(1)[0]
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._example: Path | None = None
        self._moved: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.submission_port = self.submissions_port = 0

    @classmethod
    def from_example(
        cls, name: str, moved: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None
    ) -> Self:
        """The complete configuration in the folder postfix/`name`, as a user copies it.

        `moved` says which path in it is where here ({"/var/local/mail": ...}), in main.cf and in the options
        of master.cf; `settings` are lines of main.cf besides. What else differs: the ports (25 is `port`,
        587 `submission_port`, 465 `submissions_port`), the folders of queue, data and log, `IN_EXAMPLES`, and
        a certificate made now.
        The services are those of the example, chroot included; `options` may get options of master.cf
        ("submission/inet/smtpd_sasl_type": "cyrus").
        """
        postfix = cls(settings or {})
        postfix.submission_port, postfix.submissions_port = free_ports(2)
        postfix._example = EXAMPLES / name
        postfix._moved = dict(moved or {})
        return postfix

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Start without stopping the event loop: smtpd greets only after it has met its SASL server, which
        may be one of the test's own tasks."""
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def folder(self) -> Path:
        """The private folder: made when first asked for, gone after `stop`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mailmaps-postfix-", dir="/tmp"))
            self._folder.chmod(0o755)
        return self._folder

    def move(self, moved: Mapping[str, str]) -> None:
        """More of what `from_example` takes, before the start."""
        self._moved.update(moved)

    def roots(self) -> dict[str, set[str]]:
        """What each program that runs now sees as its root folder, by the program's name."""
        assert self._master is not None, "it does not run"
        found: dict[str, set[str]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            # proc(5): pid (comm) state ppid pgrp ...; master's process group is that of all its programs.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
                if int(rest.split()[2]) == self._master.pid:
                    found.setdefault(name, set()).add(str((process / "root").readlink()))
        return found

    @property
    def log_file(self) -> Path:
        return self.folder / "log" / "mail.log"

    def start(self) -> None:
        """Start and wait until smtpd greets; whatever goes wrong, stop and tell with the log."""
        if os.geteuid() != 0:
            raise PermissionError("a private Postfix needs root: master(8) gives up privileges it must have")
        try:
            self._make_folders()
            self.configure({})
            self._run_master()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of this Postfix and remove the folder. Safe to call at any time."""
        master, self._master = self._master, None
        if master is not None:
            end_master(master, STOP_LIMIT)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def restart(self) -> None:
        """New processes on the same queue, log and port: what they kept in memory is gone."""
        master, self._master = self._master, None
        if master is not None:
            end_master(master, STOP_LIMIT)
        self._run_master()

    def configure(self, settings: Mapping[str, str]) -> None:
        """Change settings in main.cf; Postfix reads them at `reload` or `restart`."""
        self.settings.update(settings)
        own = {
            "queue_directory": str(self.folder / "queue"),
            "data_directory": str(self.folder / "data"),
            "maillog_file": str(self.log_file),
            "maillog_file_prefixes": str(self.folder),
        }
        if self._example is not None:
            self._configure_example(self._example, own)
            return
        lines = {**BASE_SETTINGS, **self.settings, **own}
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        self.write("main.cf", text)
        limit = "-" if self.smtpd_limit is None else str(self.smtpd_limit)
        self.write("master.cf", MASTER_CF.format(port=self.port, smtpd_limit=limit))

    def _configure_example(self, example: Path, own: Mapping[str, str]) -> None:
        """Copies of the example's files, edited with postconf as its user would, then put in place.

        Nothing of this Postfix ever reads the example as it is: it names the system's queue.
        """
        draft = self.folder / "draft"
        draft.mkdir(exist_ok=True)
        for name in ("main.cf", "master.cf"):
            shutil.copyfile(example / name, draft / name)
        given = {name: self._at_home(value) for name, value in self._shown(draft, "-n").items()}
        certificate = str(self._certificate())
        settings = {
            **given,
            **{name: BASE_SETTINGS[name] for name in IN_EXAMPLES},
            "smtpd_tls_cert_file": certificate,
            "smtpd_tls_key_file": certificate,
            **self.settings,
            **own,
        }
        self._postconf(draft, "-e", *(f"{name}={value}" for name, value in settings.items()))
        options = {name: self._at_home(value) for name, value in self._shown(draft, "-P").items()}
        options |= self.options
        self._postconf(draft, "-P", *(f"{name}={value}" for name, value in options.items()))
        for service, port in (
            ("smtp/inet", self.port),
            ("submission/inet", self.submission_port),
            ("submissions/inet", self.submissions_port),
        ):
            self._postconf(draft, "-F", f"{service}/service=127.0.0.1:{port}")
        for name in ("main.cf", "master.cf"):
            (draft / name).replace(self.folder / name)

    def _shown(self, folder: Path, option: str) -> dict[str, str]:
        """What postconf lists; it reports `config_directory`, which it was told, as a setting."""
        lines = (line.partition(" =") for line in self._postconf(folder, option).splitlines())
        return {name: value.strip() for name, _, value in lines if name != "config_directory"}

    def _at_home(self, value: str) -> str:
        for there, here in self._moved.items():
            value = value.replace(there, here)
        return value

    @staticmethod
    def _postconf(folder: Path, *words: str) -> str:
        """Run postconf on the files in `folder`."""
        for name in ("main.cf", "master.cf"):
            (folder / name).chmod(0o644)
            os.utime(folder / name, (0, 0))  # as in `write`
        program = shutil.which("postconf", path=SEARCH_PATH) or "postconf"
        done = subprocess.run(
            [program, "-c", str(folder), *words], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0 or done.stderr:
            raise RuntimeError(f"postconf {' '.join(words)}: {done.stderr}")
        for name in ("main.cf", "master.cf"):
            os.utime(folder / name, (0, 0))
        return done.stdout

    def _certificate(self) -> Path:
        """A key with its certificate, in one file."""
        file = self.folder / "certificate.pem"
        if not file.exists():
            words = (
                "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mx.example.com -keyout - -out -"
            )
            made = subprocess.run(words.split(), capture_output=True, text=True, check=True, timeout=60)
            file.write_text(made.stdout)
            file.chmod(0o600)
        return file

    def write(self, name: str, text: str) -> Path:
        """Put a configuration file (say the `.cf` of a pgsql: table) beside main.cf.

        It is dated back: Postfix waits until a file has not changed for a second (util/dict.c,
        dict_load_file_xt), lest it read half of one.
        """
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o644)
        os.utime(file, (0, 0))
        return file

    def reload(self) -> None:
        """Have main.cf read again. A session already open keeps the process, and the settings, it has."""
        seen = self.log().count("reload -- version")
        assert self._master is not None
        self._master.send_signal(signal.SIGHUP)
        if not eventually(lambda: self.log().count("reload -- version") > seen, START_LIMIT):
            raise RuntimeError(f"Postfix did not reload\n{self.log()}")

    def log(self) -> str:
        """The mail log so far."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_file.read_text(errors="replace")
        return ""

    def complaints(self) -> list[str]:
        """Lines of the log that no healthy Postfix writes."""
        lines = self.log().splitlines()
        return [line for line in lines if COMPLAINT.search(line) and not OF_THE_MACHINE.search(line)]

    def postmap(self, table: str, key: str) -> Postmap:
        """Ask `table` ("tcp:127.0.0.1:17011") for `key`, exactly as `postmap -q` does: once, unfolded."""
        done = self._command("postmap", "-q", key, table)
        return Postmap(done.returncode, done.stdout.removesuffix("\n"), done.stderr)

    def flush(self) -> None:
        """Try all deferred mail now."""
        self._command("postqueue", "-f").check_returncode()

    def delete(self, queue_id: str) -> None:
        """Remove a message from the queue."""
        self._command("postsuper", "-d", queue_id).check_returncode()

    def queue(self) -> list[str]:
        """The queue ids of all messages that are not yet delivered or returned."""
        return [path.name for folder in MESSAGE_FOLDERS for path in self._files(folder)]

    def queue_is_empty(self) -> bool:
        return not self.queue()

    async def removed(self, queue_id: str, limit: float = 30.0) -> None:
        """Wait until the queue manager has done with a message. Raises `AssertionError`, with log."""
        line = f"{queue_id}: removed"
        if not await eventually_async(lambda: line in self.log(), limit):
            about = [text for text in self.log().splitlines() if queue_id in text or COMPLAINT.search(text)]
            raise AssertionError("\n".join([f"{queue_id} is still queued after {limit} s", *about]))

    async def drained(self, limit: float = 60.0) -> None:
        """Wait until no message is left in the queue."""
        if not await eventually_async(self.queue_is_empty, limit, every=0.05):
            raise AssertionError(f"still queued after {limit} s: {self.queue()}\n{self.log()[-4000:]}")

    def _files(self, queue: str) -> Iterator[Path]:
        folder = self.folder / "queue" / queue
        # A subfolder (deferred is hashed) or a file may go while we look.
        for where, _, names in os.walk(folder, onerror=lambda _: None):
            yield from (Path(where) / name for name in names)

    def _command(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which(name, path=SEARCH_PATH)
        assert program is not None, f"{name} is not installed"
        words = ("-c", str(self.folder), *words)
        return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)

    def _make_folders(self) -> None:
        """Folders with the owners and modes that /etc/postfix/postfix-files gives them."""
        postfix, postdrop = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
        for name in ("queue", "queue/pid", "log"):
            (self.folder / name).mkdir(mode=0o755)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, postfix, -1)
        for name in (*QUEUE_FOLDERS, "saved", "trace", "public", "maildrop"):
            folder = self.folder / "queue" / name
            folder.mkdir(mode=0o700)
            os.chown(folder, postfix, 0)
        for name, mode in (("public", 0o2710), ("maildrop", 0o1730)):
            folder = self.folder / "queue" / name
            os.chown(folder, postfix, postdrop)
            folder.chmod(mode)

    def _run_master(self) -> None:
        daemons = self._command("postconf", "-h", "daemon_directory").stdout.strip()
        words = [f"{daemons}/master", "-c", str(self.folder), "-e", str(LIFE_LIMIT)]
        self._master = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        if not eventually(self._greets_or_died, START_LIMIT) or self._master.poll() is not None:
            raise RuntimeError(f"Postfix did not start (master: {self._master.poll()})\n{self.log()}")

    def _greets_or_died(self) -> bool:
        assert self._master is not None
        if self._master.poll() is not None:
            return True
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_LIMIT) as probe:
                greets = probe.recv(3) == b"220"
                probe.sendall(b"QUIT\r\n")
                return greets
        except ConnectionError:
            return False
