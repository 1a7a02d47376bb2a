"""The policy service of the real daemon on plain sockets: requests cut anywhere, broken, hostile."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.conftest import new_database
from tests.system import login_site
from tests.system.daemon import Daemon
from tests.system.hostile_clients import memory
from tests.system.login_site import ANNA, JAN

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.protocols.policy import LONGEST_REQUEST

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 30.0
"""Seconds until an answer that does not come is a failed test."""

# Nothing that permits, and with everything else a text.
ALLOWED = re.compile(
    rb"action=(DUNNO|(DEFER_IF_PERMIT|451) 4\.3\.0 [^\n]+|553 5\.7\.1 [^\n]+|450 4\.7\.1 [^\n]+)\n\n"
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def daemon(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Daemon]:
    async with new_database(postgres, f"TEMPLATE {template}") as database:
        await login_site.insert(database.connection)
        dsns = {"dsn": database.reader_dsn, "write_dsn": database.write_dsn}
        with Daemon({"database": dsns, "limits": {"login_messages_hour": 100_000}}) as daemon:
            yield daemon


class Client:
    """A connection to the policy service."""

    def __init__(self, daemon: Daemon) -> None:
        self._socket = socket.create_connection(("127.0.0.1", daemon.ports["policy"]), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> bytes:
        """The next one, or what came before the end of the connection."""
        return self._replies.readline() + self._replies.readline()

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.reply()

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    client = Client(daemon)
    yield client
    client.close()


def request(sender: str, login: str = JAN.username, /, **more: str) -> bytes:
    """A request at RCPT, or at the state given."""
    attributes = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "client_address": "127.0.0.1",
        "sender": sender,
        "sasl_username": login,
        "recipient_count": "0",
        "instance": "1.2.3",
    } | more
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


MINE, HERS = request(JAN.email), request(ANNA.email)
DUNNO = b"action=DUNNO\n\n"
REFUSED = b"action=553 5.7.1 You are logged in as jawi_lx, which may not send as anna@lxtreme.nl.\n\n"


async def test_two_requests_in_one_segment(client: Client) -> None:
    client.send(HERS + MINE)
    assert [client.reply(), client.reply()] == [REFUSED, DUNNO]
    client.send(MINE * 500 + HERS)
    assert [client.reply() for _ in range(501)] == [DUNNO] * 500 + [REFUSED]


async def test_a_request_split_at_every_byte(client: Client, daemon: Daemon) -> None:
    other = Client(daemon)
    both = HERS + MINE
    for place in range(1, len(both)):
        client.send(both[:place])
        assert other.ask(MINE) == DUNNO  # the daemon has had time to read the first part
        client.send(both[place:])
        assert [client.reply(), client.reply()] == [REFUSED, DUNNO], place
    other.close()


async def test_a_request_byte_by_byte(client: Client) -> None:
    for byte in HERS:
        client.send(bytes([byte]))
    assert client.reply() == REFUSED


async def test_no_attribute_of_one_request_is_seen_by_the_next(client: Client) -> None:
    assert client.ask(HERS) == REFUSED
    bare = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=anna@lxtreme.nl\n\n"
    assert client.ask(bare) == DUNNO, "nobody is logged in, and that is only observed"
    assert client.ask(b"request=smtpd_access_policy\nprotocol_state=RCPT\n\n").startswith(
        b"action=DEFER_IF_PERMIT 4.3.0 "
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"\n",
        b"hello\n\n",
        b"=\n\n",
        b"request=other\n\n",
        b"request=smtpd_access_policy\n\n",
        b"request=smtpd_access_policy\nprotocol_state=rcpt\nsender=\n\n",
        b"request=smtpd_access_policy\r\nprotocol_state=RCPT\r\nsender=x@y\r\n\r\n\n",
        MINE.replace(b"RCPT", b"DATA").replace(b"recipient_count=0", b"recipient_count=-1"),
        MINE.replace(b"RCPT", b"DATA").replace(b"recipient_count=0", b"recipient_count=1e9"),
        MINE.replace(b"RCPT", b"DATA").replace(b"recipient_count=0", b"recipient_count=" + b"9" * 400),
        MINE.replace(b"sender=", b"sender=x@y\nsender="),
        MINE.replace(b"sasl_username=", b"sasl_username\n"),
    ],
)
async def test_what_is_not_understood_is_try_later_and_costs_nobody_his_connection(
    client: Client, broken: bytes
) -> None:
    reply = client.ask(broken)
    assert re.fullmatch(rb"action=(DEFER_IF_PERMIT|451) 4\.3\.0 [^\n]+\n\n", reply), reply
    assert client.ask(HERS) == REFUSED


async def test_a_request_without_end_is_ended(client: Client, daemon: Daemon) -> None:
    client.send(b"sender=" + b"x" * (LONGEST_REQUEST + 5000))
    assert client.reply().startswith(b"action=451 4.3.0 ")
    assert client.reply() == b""
    other = Client(daemon)
    assert other.ask(MINE) == DUNNO
    other.close()


async def test_who_never_reads_fills_no_memory(client: Client, daemon: Daemon) -> None:
    before = memory(daemon.pid)
    client._socket.settimeout(1.0)
    sent = 0
    try:
        while sent < 200_000_000:
            client.send(HERS * 1000)
            sent += len(HERS) * 1000
    except TimeoutError:
        pass
    assert sent < 200_000_000, "somebody took it all"
    assert memory(daemon.pid) - before < 50_000_000
    other = Client(daemon)
    assert other.ask(HERS) == REFUSED
    other.close()


SEED = 3
REQUESTS = 3000
ODD = (
    "",
    "@",
    "<>",
    "a@b",
    '"',
    "\\",
    "%",
    "!",
    "+",
    " ",
    "\t",
    "\0",
    "\x1b[2J",
    "é",
    "ﬀ",
    "=",
    "OK",
    "action=OK",
    "{login}",
    "{",
    "x" * 300,
)
NAMES = (
    "sender",
    "sasl_username",
    "client_address",
    "instance",
    "recipient_count",
    "protocol_state",
    "size",
    "",
)
STATES = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "BDAT")


async def test_whatever_is_asked_nothing_is_permitted(client: Client) -> None:
    chance = random.Random(SEED)
    for _ in range(REQUESTS):
        more = {
            chance.choice(NAMES): "".join(
                chance.choice((*ODD, JAN.email, ANNA.username)) for _ in range(chance.randint(0, 4))
            )
            for _ in range(chance.randint(0, 3))
        }
        state = {"protocol_state": chance.choice(STATES)} if chance.random() < 0.7 else {}
        data = request(chance.choice((JAN.email, "")), **(more | state))
        if chance.random() < 0.1:
            data = data.replace(b"a", b"\xff")
        reply = client.ask(data)
        assert ALLOWED.fullmatch(reply), (data, reply)
