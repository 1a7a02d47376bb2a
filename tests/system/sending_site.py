"""A site where people log in and send: Postfix with many doors, each asking mailmaps in its own way.

Contract: `SendingPostfix` is a private Postfix whose `doors` are further smtpd services, each with a port of
its own and its options of master.cf; whoever logs in there asks mailmaps (no TLS, so that `Sender` can talk
plainly). `insert` makes rows that lead to an account in every way there is, over those of `login_site`. All
mail goes to discard(8), and outside.test is a domain that everybody may send to.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import asyncpg
from tests.system import login_site
from tests.system.daemon import Daemon
from tests.system.login_site import SECRET
from tests.system.postfix import PrivatePostfix
from tests.system.processes import free_ports
from tests.system.smtp import Dialog, Reply

from mailmaps.database.migrations import Site, create
from mailmaps.demo.postgres import EmbeddedPostgres

OUTSIDE = "somebody@outside.test"

ROWS = """
INSERT INTO domains (gid, domain) VALUES (5002, 'catch.test');
INSERT INTO user_addresses (username, alias) VALUES
   ('jawi_lx', 'jürgen@lxtreme.nl'), ('anna', '"anna x"@lxtreme.nl'), ('gone', 'left@lxtreme.nl');
INSERT INTO mailmaps.forwards VALUES
   ('info@lxtreme.nl', 'first@lxtreme.nl'), ('first@lxtreme.nl', 'anna@lxtreme.nl'),
   ('@catch.test', 'bert@lxtreme.nl'), ('anna@catch.test', 'anna@lxtreme.nl'),
   ('away@lxtreme.nl', 'somebody@outside.test');
INSERT INTO mailmaps.domain_aliases VALUES ('alias.test', 'lxtreme.nl');
"""


async def insert(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Everybody of `login_site`, and `ROWS`."""
    await login_site.insert(connection)
    await connection.execute(
        "UPDATE mailmaps.settings SET login_realm = 'lxtreme.nl', login_addresses = true"
    )
    await connection.execute(ROWS)


ASKS = {
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sasl_type": "dovecot",
    "smtpd_sasl_path": "mailmaps/auth",
    "smtpd_relay_restrictions": "permit_sasl_authenticated,reject_unauth_destination",
}

SETTINGS = {
    "relay_domains": "outside.test",
    "default_transport": "discard:",
    "relay_transport": "discard:",
    "recipient_delimiter": "+",
    "smtpd_junk_command_limit": "100000",
    "smtpd_sasl_local_domain": "",
}


class SendingPostfix(PrivatePostfix):
    """`doors` are options of master.cf by the door's name, over `ASKS`; `ports` says where each is."""

    def __init__(self, doors: Mapping[str, Mapping[str, str]], settings: Mapping[str, str]) -> None:
        super().__init__(SETTINGS | dict(settings))
        self.doors = {name: ASKS | dict(options) for name, options in doors.items()}
        self.ports = dict(zip(doors, free_ports(len(doors)), strict=True))

    def configure(self, settings: Mapping[str, str]) -> None:
        super().configure(settings)
        lines = (self.folder / "master.cf").read_text()
        for name, options in self.doors.items():
            lines += f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n"
            lines += f"  -o syslog_name=postfix/{name}\n"
            lines += "".join(f"  -o {{ {option} = {value} }}\n" for option, value in options.items())
        self.write("master.cf", lines)

    def held(self) -> list[str]:
        """The queue ids in the hold queue."""
        return [path.name for path in self._files("hold")]


class Sender(Dialog):
    """A session of one who logs in, or, with an empty login, of one who does not."""

    def __init__(self, port: int, login: str = "", smtputf8: bool = False, client: str = "") -> None:
        """`client` is the address to come from, one of 127.0.0.0/8."""
        super().__init__(port, smtputf8, client)
        self._login = login

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._login:
            resp = base64.b64encode(f"\0{self._login}\0{SECRET}".encode()).decode()
            reply = await self.say(f"AUTH PLAIN {resp}")
            assert reply.code == 235, reply
        return self

    async def verdict(self, sender: str, recipient: str = OUTSIDE) -> Reply:
        """What is said to MAIL, or else to RCPT."""
        return await self.rcpt(recipient, sender)

    async def send(self, sender: str, recipients: Sequence[str]) -> list[Reply]:
        """One mail; the replies to each RCPT, to DATA and to the end of the message, as far as it comes."""
        await self.say("RSET")
        assert (reply := await self.mail(sender)).code == 250, reply
        replies = [await self.say(f"RCPT TO:<{one}>") for one in recipients]
        replies.append(await self.say("DATA"))
        if replies[-1].code == 354:
            replies.append(await self.say("Subject: a test\r\n\r\nhello\r\n."))
        return replies

    async def verdicts(self, mails: Sequence[Typed]) -> list[Reply]:
        """The same as `verdict` for many, sent without waiting."""
        found: list[Reply] = []
        for begin in range(0, len(mails), IN_FLIGHT):
            some = mails[begin : begin + IN_FLIGHT]
            lines = "".join(
                f"RSET\r\nMAIL FROM:<{one.sender}>{' SMTPUTF8' if one.smtputf8 else ''}\r\n"
                f"RCPT TO:<{OUTSIDE}>\r\n"
                for one in some
            )
            self._writer.write(lines.encode())
            for _ in some:
                await self._reply()
                mail, rcpt = await self._reply(), await self._reply()
                found.append(rcpt if mail.code == 250 else mail)
        return found


class Typed(NamedTuple):
    """A sender as typed; `smtputf8`: whether the client says so."""

    sender: str
    smtputf8: bool = False


IN_FLIGHT = 20
"""Mails sent before a reply is read: what is in flight both ways must fit into socket buffers."""


async def all_verdicts(
    ports: Sequence[int], logins: Sequence[str], mails: Mapping[str, Sequence[Typed]]
) -> list[dict[str, list[Reply]]]:
    """For each port what each login hears to its mails, by one session for each."""

    async def talk(port: int, login: str) -> list[Reply]:
        async with Sender(port, login) as session:
            return await session.verdicts(mails[login])

    jobs = [(port, login) for port in ports for login in logins]
    replies = dict(zip(jobs, await asyncio.gather(*(talk(*job) for job in jobs)), strict=True))
    return [{login: replies[port, login] for login in logins} for port in ports]


def mailmaps(daemon: Daemon, *words: str, code: int = 0) -> str:
    """What a command prints about this daemon; it ends with `code`."""
    command = [sys.executable, "-m", "mailmaps", *words, "--config", str(daemon.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


async def own_database(postgres: EmbeddedPostgres) -> tuple[str, str, str]:
    """Roles, schema and rows in a server that may be stopped: the DSNs of the three `ROLES`."""
    connection = await asyncpg.connect(postgres.dsn())
    try:
        for role in ROLES:
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
        await connection.execute("CREATE DATABASE sending")
    finally:
        await connection.close()
    owner = await asyncpg.connect(postgres.dsn("sending"))
    try:
        await create(owner, Site(recipient_delimiter="+"), lambda _: None)
        await insert(owner)
    finally:
        await owner.close()
    reader, auth, writer = (postgres.dsn("sending", role, SECRET) for role in ROLES)
    return reader, auth, writer


ROLES = ("mailreader", "mailauth", "mailwriter")
