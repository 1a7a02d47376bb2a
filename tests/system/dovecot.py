"""A Dovecot of our own, beside the system's and knowing nothing of it.

Contract: `PrivateDovecot` lives in one folder below /tmp (mode 0755: pytest's tmp_path is 0700, and Dovecot's
users could not pass it), listens for IMAP by TLS on one port of 127.0.0.1 and for LMTP in its folder, and
after `stop` neither a process nor a file of it is left. Its configuration is what `mailmaps dovecot-config`
prints for the settings given, its programs what `mailmaps dovecot-files` writes, so that what a user copies
is what is tested; only places, ports, the certificate and Dovecot's delays differ (`_here`, `_besides`).

It runs `dovecot -F` as our own child, and speaks to whichever Dovecot is installed: 2.3 or 2.4.
"""

from __future__ import annotations

import base64
import contextlib
import os
import poplib
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

from click import Command
from click.testing import CliRunner
from tests.system.processes import end_master, eventually, free_ports

from mailmaps.cli.dovecot import dovecot_config, dovecot_files
from mailmaps.dovecot.configuration import LIBRARY

START_LIMIT = 30.0
STOP_LIMIT = 10.0
"""Seconds. Both take well under one; a test machine may be busy with its other half."""

ANSWER_LIMIT = 60.0
"""Seconds for one answer of Dovecot; its programs give up after 9."""

LIFE_LIMIT = "900"
"""Seconds after which timeout(1) ends it, should pytest be killed outright."""

COMPLAINT = re.compile(r"\b(Warning|Error|Fatal|Panic): ")

CERTIFICATE = re.compile(r"/etc/ssl/\S+")
POSTFIX_SOCKET = re.compile(r"/var/spool/postfix/\S+")


@cache
def installed_version() -> str:
    """Which Dovecot is installed, "2.3.19.1" or "2.4.1"; empty when there is none."""
    try:
        said = subprocess.run(
            ["dovecot", "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except FileNotFoundError:
        return ""
    found = re.match(r"\d+(\.\d+)+", said.stdout)
    return found[0] if found else ""


class PrivateDovecot:
    """One Dovecot: `start`, `stop`, and what a test asks of it in between."""

    def __init__(self, config: Path, door: str, version: str = "", queue: Path | None = None) -> None:
        """`config` is a mailmaps.toml with [login] unix; `door` is "checkpassword" or "lua".

        `version` is what `mailmaps dovecot-config --dovecot` is told: "2.3" or "2.4", as is installed, unless
        given. `queue` is the queue directory of a private Postfix, whose lmtp(8) then may connect.
        """
        self.queue = queue
        self.config = config
        self.door = door
        self.version = version or ".".join(installed_version().split(".")[:2])
        self.port, self.plain_port, self.pop3_port, self.sieve_port = free_ports(4)
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The private folder: made when first asked for, gone after `stop`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mailmaps-dovecot-", dir="/tmp"))
            self._folder.chmod(0o755)
        return self._folder

    @property
    def lmtp_socket(self) -> Path:
        """Where it takes mail, in place of the socket below the system's queue directory."""
        return self.queue / "private/dovecot-lmtp" if self.queue else self.folder / "lmtp.sock"

    @property
    def library(self) -> Path:
        """In place of /usr/lib/mailmaps."""
        return self.folder / "lib"

    @property
    def conf(self) -> Path:
        return self.folder / "dovecot.conf"

    def start(self) -> None:
        """Start and wait until IMAP greets; whatever goes wrong, stop and tell with the log."""
        if os.geteuid() != 0:
            raise PermissionError("a private Dovecot needs root: it gives up privileges it must have")
        try:
            self.library.mkdir()
            _run_command(dovecot_files, "--config", str(self.config), str(self.library))
            words = ["--config", str(self.config), "--dovecot", self.version, "--door", self.door]
            printed = _run_command(dovecot_config, *words)
            self.conf.write_text(self._here(printed) + self._besides())
            words = ["timeout", LIFE_LIMIT, "dovecot", "-F", "-c", str(self.conf)]
            with (self.folder / "stderr").open("wb") as stderr:
                self._master = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
                )
            if not eventually(self._greets_or_died, START_LIMIT) or self._master.poll() is not None:
                said = (self.folder / "stderr").read_text(errors="replace")
                raise RuntimeError(f"Dovecot did not start: {said}\n{self.log()}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of this Dovecot and remove the folder. Safe to call at any time."""
        master, self._master = self._master, None
        if master is not None:
            end_master(master, STOP_LIMIT)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def imap(self, user: str, password: str, *commands: str) -> list[str]:
        """The server's lines to LOGIN (a) and to each command (b...), until the last or until it hangs up."""
        context = ssl.create_default_context(cafile=str(self._certificate()))
        context.check_hostname = False
        # LITERAL+ (RFC 7888): any byte but NUL may be in a name or a password.
        words = [f"{{{len(word.encode())}+}}\r\n{word}" for word in (user, password)]
        tagged = zip("abcdefghijklmnop", (f"LOGIN {' '.join(words)}", *commands), strict=False)
        lines: list[str] = []
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_LIMIT) as bare,
            context.wrap_socket(bare) as link,
            link.makefile("rb") as replies,
        ):
            replies.readline()  # the greeting
            with contextlib.suppress(ssl.SSLZeroReturnError, ConnectionError):  # it hung up
                for tag, command in (*tagged, ("z", "LOGOUT")):
                    link.sendall(f"{tag} {command}\r\n".encode())
                    while line := replies.readline().decode(errors="replace").rstrip("\r\n"):
                        lines.append(line)
                        if line.startswith(f"{tag} "):
                            break
        return lines

    def imap_login(self, user: str, password: str) -> str:
        """The reply to LOGIN, without its tag: "OK [CAPABILITY ...] Logged in"."""
        return next(line for line in self.imap(user, password) if line.startswith("a ")).removeprefix("a ")

    def pop3_login(self, user: str, password: str) -> str:
        """The reply to PASS."""
        client = poplib.POP3_SSL("127.0.0.1", self.pop3_port, timeout=ANSWER_LIMIT, context=self._context())
        try:
            client.user(user)
            return client.pass_(password).decode()
        except poplib.error_proto as error:
            return bytes(error.args[0]).decode()
        finally:
            client.close()

    def sieve_login(self, user: str, password: str) -> str:
        """The reply to AUTHENTICATE, after STARTTLS (RFC 5804)."""
        resp = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        with socket.create_connection(("127.0.0.1", self.sieve_port), timeout=ANSWER_LIMIT) as bare:
            _until_answer(bare)
            bare.sendall(b"STARTTLS\r\n")
            _until_answer(bare)
            with self._context().wrap_socket(bare) as link:
                _until_answer(link)
                link.sendall(f'AUTHENTICATE "PLAIN" "{resp}"\r\n'.encode())
                return _until_answer(link)

    def login_without_tls(self, user: str, password: str) -> str:
        """The reply to LOGIN on the port without TLS, from another address: one's own counts as secure."""
        with (
            socket.create_connection(
                ("127.0.0.1", self.plain_port), timeout=ANSWER_LIMIT, source_address=("127.0.0.2", 0)
            ) as link,
            link.makefile("rwb") as stream,
        ):
            stream.readline()
            stream.write(f"a LOGIN {user} {password}\r\n".encode())
            stream.flush()
            while not (line := stream.readline()).startswith(b"a "):
                assert line, "the connection ended"
            return line.decode().strip()

    def lmtp(self, recipient: str, message: str = "") -> list[str]:
        """The replies to RCPT and, when there is a message and the recipient was taken, to its end."""
        with smtplib.LMTP(str(self.lmtp_socket), timeout=ANSWER_LIMIT) as client:
            client.ehlo("mx.example.com")
            client.mail("sender@example.com")
            replies = [client.rcpt(recipient)]
            if message and replies[0][0] == 250:
                replies.append(client.data(message))
        return [f"{code} {said.decode()}" for code, said in replies]

    def doveadm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What doveadm says; its exit codes are those of sysexits.h."""
        return subprocess.run(
            ["doveadm", "-c", str(self.conf), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_LIMIT,
        )

    def log(self) -> str:
        """The log so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "dovecot.log").read_text(errors="replace")
        return ""

    def complaints(self) -> list[str]:
        """Lines of the log that no healthy Dovecot with a healthy mailmaps writes."""
        return [line for line in self.log().splitlines() if COMPLAINT.search(line)]

    def _here(self, printed: str) -> str:
        """The printed text with the places of the system replaced by ours; there may be no Postfix here."""
        text = POSTFIX_SOCKET.sub(str(self.lmtp_socket), printed).replace(LIBRARY, str(self.library))
        text = CERTIFICATE.sub(str(self._certificate()), text)
        if self.queue:
            return text
        return text.replace("user = postfix", "user = root").replace("group = postfix", "group = root")

    def _besides(self) -> str:
        """What a second Dovecot needs, and no waiting for those who failed (facts/dovecot.md 1.1)."""
        of_23 = self.version.startswith("2.3")
        patience = "" if of_23 else "auth_internal_failure_delay = 0"
        more = "protocols = imap pop3 sieve lmtp" if of_23 else "protocols {\n  pop3 = yes\n  sieve = yes\n}"
        return f"""
# From here on: the private Dovecot of a test.
{more}
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/dovecot.log
instance_name = mailmaps-test
listen = 127.0.0.1
auth_failure_delay = 0
{patience}
service imap-login {{
  inet_listener imap {{
    port = {self.plain_port}
  }}
  inet_listener imaps {{
    port = {self.port}
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
  inet_listener pop3s {{
    port = {self.pop3_port}
  }}
}}
service managesieve-login {{
  inet_listener sieve {{
    port = {self.sieve_port}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._certificate()))
        context.check_hostname = False
        return context

    def _certificate(self) -> Path:
        """A key with its certificate, in one file."""
        file = self.folder / "certificate.pem"
        if not file.exists():
            words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=imap.example.com"
            made = subprocess.run(
                [*words.split(), "-keyout", "-", "-out", "-"],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            file.write_text(made.stdout)
            file.chmod(0o600)
        return file

    def _greets_or_died(self) -> bool:
        assert self._master is not None
        if self._master.poll() is not None:
            return True
        context = self._context()
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=START_LIMIT) as bare,
                context.wrap_socket(bare) as link,
            ):
                return link.recv(4) == b"* OK"
        except OSError:
            return False


def _until_answer(link: socket.socket) -> str:
    """The line of ManageSieve that ends an answer: OK, NO or BYE."""
    text = ""
    while not re.search(r"^(OK|NO|BYE)\b.*\r\n", text, re.MULTILINE):
        data = link.recv(4096)
        assert data, f"the connection ended after {text!r}"
        text += data.decode(errors="replace")
    return text.splitlines()[-1]


def _run_command(command: Command, *words: str) -> str:
    """What a command of ours prints. Raises `RuntimeError` when it fails."""
    result = CliRunner().invoke(command, list(words))
    if result.exit_code != 0:
        raise RuntimeError(result.output)
    return result.output
