"""A site with logins: rows, the daemon with every door open, and a client for each door.

Contract: `ACCOUNTS` are the accounts, one for each result and for each kind of hash, and `insert` makes them.
`LoginSite` starts the real daemon with its doors in a private folder, and knows what each door says to a
login: "accepted NAME", "rejected" or "later". Nothing of it is left after `close`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import asyncpg
from tests.system.daemon import Daemon

from mailmaps.auth import passwords
from mailmaps.protocols.tab_escaped import escape

LIMIT = 60.0
"""Seconds for one reply; the daemon promises 8."""

SECRET = "corr3ct-horse"
"""Everybody's password."""

REALM = "lxtreme.nl"


@dataclass(frozen=True, slots=True)
class Person:
    """An account: `denied` are rights it does not have."""

    username: str
    email: str
    uid: int
    scheme: str = "SSHA512"
    active: bool = True
    denied: tuple[str, ...] = ()
    quota: int = 25

    @property
    def mailbox(self) -> str:
        local, _, domain = self.email.partition("@")
        return f"{domain}/{local}"


JAN = Person("jawi_lx", "janwillem.janssen@lxtreme.nl", 5001, "DES-CRYPT")
ANNA = Person("anna", "anna@lxtreme.nl", 5002, "YESCRYPT", quota=0)
BERT = Person("bert@lxtreme.nl", "bert@lxtreme.nl", 5003, "ARGON2ID", quota=1)
GONE = Person("gone", "gone@lxtreme.nl", 5004, active=False)
NO_IMAP = Person("noimap", "noimap@lxtreme.nl", 5005, denied=("imap",))
NO_SMTP = Person("nosmtp", "nosmtp@lxtreme.nl", 5006, denied=("smtp",))
NO_MAIL = Person("nomail", "nomail@lxtreme.nl", 5007, denied=("receive",))
IMAP_ONLY = Person("imaponly", "imaponly@lxtreme.nl", 5009, denied=("pop3", "sieve", "smtp"))
BROKEN = Person("broken", "broken@lxtreme.nl", 5008, "BROKEN")
ACCOUNTS = (JAN, ANNA, BERT, GONE, NO_IMAP, NO_SMTP, NO_MAIL, IMAP_ONLY, BROKEN)

OTHERS = {"j.w.janssen@lxtreme.nl": JAN, "postmaster@lxtreme.nl": JAN}
"""Further addresses."""


def stored(person: Person) -> str:
    """The password as the database has it: DES knows 8 characters of it, as of what is typed."""
    if person.scheme == "BROKEN":
        return "{NO-SUCH-SCHEME}x"
    password = SECRET.encode()[:8] if person.scheme == "DES-CRYPT" else SECRET.encode()
    made = passwords.make(password, person.scheme)
    return made.rpartition("}")[2] if person.scheme == "DES-CRYPT" else made  # the how-to has no prefix


async def insert(connection: asyncpg.Connection[asyncpg.Record], gid: int = 5001) -> None:
    """The rows of `ACCOUNTS`."""
    await connection.execute("INSERT INTO domains (gid, domain) VALUES ($1, $2)", gid, REALM)
    for person in ACCOUNTS:
        await connection.execute(
            "INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, quota, active)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            person.username,
            person.uid,
            gid,
            stored(person),
            person.email,
            person.mailbox,
            person.quota,
            "1" if person.active else "0",
        )
        if person.denied:
            columns = ", ".join(person.denied)
            await connection.execute(
                f"INSERT INTO mailmaps.rights (username, {columns})"
                f" VALUES ($1, {', '.join('false' for _ in person.denied)})",
                person.username,
            )
    addresses = {person.email: person for person in ACCOUNTS} | OTHERS
    await connection.executemany(
        "INSERT INTO user_addresses (username, alias) VALUES ($1, $2)",
        [(person.username, address) for address, person in addresses.items()],
    )


class LoginSite:
    """The daemon with all doors, over a database that has the rows: `with LoginSite(...) as site`."""

    def __init__(
        self,
        dsn: str,
        auth_dsn: str,
        settings: Mapping[str, Mapping[str, str | bool | int | float | list[str]]] | None = None,
        queue: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """`settings` are sections over the site's own; `queue` is the queue directory of a Postfix.

        `wrapper` is a command that executes the daemon.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="mailmaps-logins-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.base = self.folder / "mail"
        self.base.mkdir(mode=0o755)
        doors = queue or self.folder
        self.login_socket = self.folder / "doors" / "login.sock"
        self.auth_socket = doors / "mailmaps" / "auth"
        self.mux = doors / "mailmaps" / "mux"
        sections: dict[str, dict[str, str | bool | int | float | list[str]]] = {
            "database": {"dsn": dsn, "auth_dsn": auth_dsn, "lookup_deadline": 2.0, "connect_timeout": 2.0},
            "auth": {"realm": REALM},
            "login": {"unix": str(self.login_socket)},
            "dovecot_auth": {"unix": str(self.auth_socket)},
            "saslauthd": {"unix": str(self.mux)},
            "postfix": {"recipient_delimiter": "+", "virtual_mailbox_base": str(self.base)},
        }
        for name, values in (settings or {}).items():
            sections[name] = sections.get(name, {}) | dict(values)
        top = {"delivery": "lmtp:unix:private/dovecot-lmtp"}
        self.daemon = Daemon({**top, **sections}, wrapper=wrapper)

    def __enter__(self) -> Self:
        try:
            self.daemon.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def make_maildir(self, mailbox: str, uid: int) -> Path:
        """As `mailmaps maildirs` does: its owner can write into it, and not above."""
        folder = self.base / mailbox
        folder.mkdir(parents=True, mode=0o755)
        os.chown(folder, uid, 5001)
        folder.chmod(0o700)
        return folder

    def close(self) -> None:
        """End the daemon, remove everything."""
        self.daemon.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def by_login(
        self, user: str, password: str = SECRET, service: str = "imap", client: str = ""
    ) -> str:
        """What the login socket says to a login."""
        fields = {"user": user, "password": password, "service": service, "rip": client, "dovecot": "2.3"}
        [reply] = await self.lines("LOGIN", fields)
        return _told(reply)

    async def lines(self, command: str, fields: Mapping[str, str]) -> list[bytes]:
        """What the login socket replies to one question: all lines of it."""
        line = b"\t".join(
            [command.encode(), *(b"%s=%s" % (k.encode(), escape(v.encode())) for k, v in fields.items())]
        )
        reader, writer = await asyncio.open_unix_connection(str(self.login_socket))
        try:
            writer.write(line + b"\n")
            found: list[bytes] = []
            async with asyncio.timeout(LIMIT):
                while not found or found[-1].startswith(b"USER\t"):
                    found.append((await reader.readline()).removesuffix(b"\n"))
            return found
        finally:
            writer.close()

    async def by_auth(
        self, user: str, password: str = SECRET, service: str = "smtp", client: str = ""
    ) -> str:
        """What the auth socket says to a login with PLAIN; "later" is the end of the connection."""
        reader, writer = await asyncio.open_unix_connection(str(self.auth_socket))
        try:
            resp = base64.b64encode(f"\0{user}\0{password}".encode())
            writer.write(b"VERSION\t1\t0\nCPID\t1\n")
            async with asyncio.timeout(LIMIT):
                while (await reader.readline()) != b"DONE\n":
                    pass
                line = b"AUTH\t1\tPLAIN\tservice=%s\trip=%s\tresp=%s\n"
                writer.write(line % (service.encode(), client.encode(), resp))
                return _told((await reader.readline()).removesuffix(b"\n"))
        finally:
            writer.close()

    async def by_mux(self, user: str, password: str = SECRET, service: str = "smtp", realm: str = "") -> str:
        """What the socket of saslauthd says; "later" is the end of the connection."""
        return await asyncio.to_thread(ask_mux, self.mux, user, password, service, realm)


def ask_mux(path: Path, *strings: str) -> str:
    """Ask as libsasl does: all in one write, then read at most 1023 bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(LIMIT)
        client.connect(str(path))
        encoded = [one.encode() for one in strings]
        client.sendall(b"".join(len(one).to_bytes(2, "big") + one for one in encoded))
        with client.makefile("rb") as replies:
            reply = replies.read(1023)
    return {b"\0\2OK": "accepted", b"\0\2NO": "rejected", b"": "later"}[reply]


def _told(reply: bytes) -> str:
    word, *fields = reply.decode().split("\t")
    names = [one.removeprefix("user=") for one in fields if one.startswith("user=")]
    words = {
        "OK": "accepted",
        "NO": "rejected",
        "FAIL": "rejected",
        "UNKNOWN": "unknown",
        "LATER": "later",
        "": "later",
    }
    return f"accepted {names[0]}" if word == "OK" else words[word]
