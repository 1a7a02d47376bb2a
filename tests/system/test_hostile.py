"""The daemon as a process against clients that mean no good: crowds, never-readers, trickles, lies, garbage.

The rules under test: memory is bounded by what is said here, everybody else gets the right answers meanwhile,
and afterwards the daemon is as it was: it answers, counts no connection, and its log tells of no fault.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread

import asyncpg
import pytest
from tests.system import hostile_clients as hostile
from tests.system.daemon import Daemon
from tests.system.processes import eventually

from mailmaps.client import SocketmapClient, TcpTableClient
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.answer import NOT_FOUND, Answer, Found
from mailmaps.protocols.netstring import NetstringReader, netstring
from mailmaps.protocols.socketmap import LONGEST_REPLY, LONGEST_REQUEST
from mailmaps.protocols.tcp_table import LONGEST_LINE

LIMIT = 30.0  # seconds within which a condition must come about
TABLE = "virtual_alias_maps"
KEYS = 1000
KNOWN = Found("v1@x.test")

KB, MB = 1024, 1024 * 1024
IDLE = 12 * KB
"""What an idle connection may cost, all in all; it is about 4 kB."""
NEVER_READER = 2 * MB
"""What one client that pipelines and never reads may cost: one read, and a few requests and replies."""
ENDLESS = 16 * MB
"""What is sent of something that never ends; the kernel's buffers take some of it."""

OUR_FAULT = re.compile("Traceback|internal error|never retrieved|exception was never|Task was destroyed")


@pytest.fixture(scope="module")
def server(mail_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server, with KEYS rows k0@a.test, k1@a.test, ... and one that is long."""
    asyncio.run(_insert_rows(mail_postgres.dsn()))
    return mail_postgres


async def _insert_rows(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE hostile (key text PRIMARY KEY, value text)")
    rows = [(f"k{n}@a.test", f"v{n}@x.test") for n in range(KEYS)]
    await connection.executemany("INSERT INTO hostile VALUES ($1, $2)", [*rows, ("long@a.test", "x" * 3000)])
    await connection.close()


@pytest.fixture
def daemon(server: EmbeddedPostgres) -> Iterator[Daemon]:
    """A daemon of this test alone: what one that served others has freed would hide what this one costs.

    When the test is over it must be as before.
    """
    tables = {TABLE: ["view:public.hostile"]}
    settings = {"database": {"dsn": server.dsn()}, "postfix": {"recipient_delimiter": "+"}}
    with Daemon(settings, tables=tables) as daemon:
        for number in range(50):
            assert ask(daemon, f"k{number}@a.test") == Found(f"v{number}@x.test"), daemon.log()
        before = daemon.status()["connections"]
        yield daemon
        assert eventually(lambda: daemon.status()["connections"] == before, LIMIT)
        assert ask(daemon, "k1@a.test") == KNOWN
        assert not OUR_FAULT.search(daemon.log()), daemon.log()


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """How many connections may be open: ten thousand, or what the hard limit leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(10_000, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def tcp(daemon: Daemon) -> socket.socket:
    return hostile.connect(daemon.ports[TABLE])


def ask(daemon: Daemon, key: str) -> Answer:
    with tcp(daemon) as sock:
        return TcpTableClient(sock).ask(key)


def exchange(daemon: Daemon, port: int) -> tuple[bytes, bytes]:
    """A question of the protocol of `port`, and the reply to it."""
    if port == daemon.ports["socketmap"]:
        return netstring(TABLE.encode() + b" k1@a.test"), netstring(b"OK v1@x.test")
    return b"get k1@a.test\n", b"200 v1@x.test\n"


def serve(daemon: Daemon, sock: socket.socket) -> None:
    question, reply = exchange(daemon, sock.getpeername()[1])
    sock.sendall(question)
    assert hostile.read_exactly(sock, len(reply)) == reply


def others_are_served(daemon: Daemon, count: int) -> None:
    """`count` answers in order on one connection of each protocol, known keys and unknown ones."""
    with tcp(daemon) as one, hostile.connect(daemon.ports["socketmap"]) as other:
        clients = TcpTableClient(one), SocketmapClient(other, TABLE)
        for number in range(count // 2):
            expected = Found(f"v{number}@x.test") if number < KEYS else NOT_FOUND
            assert [client.ask(f"k{number}@a.test") for client in clients] == [expected] * 2


def test_ten_thousand_idle_connections(daemon: Daemon, many_descriptors: int) -> None:
    ports = [daemon.ports[TABLE], daemon.ports["socketmap"]]
    before = hostile.memory(daemon.pid)
    with hostile.crowd(ports, many_descriptors, lambda sock: serve(daemon, sock)) as socks:
        assert daemon.status()["connections"] == len(socks)
        assert hostile.memory(daemon.pid) - before < IDLE * len(socks)
        others_are_served(daemon, 2000)
        for sock in socks:
            serve(daemon, sock)
        assert hostile.memory(daemon.pid) - before < IDLE * len(socks)


@pytest.mark.parametrize(("key", "clients", "count"), [("long@a.test", 4, 2000), ("nobody@b.test", 1, 500)])
def test_clients_that_never_read(daemon: Daemon, key: str, clients: int, count: int) -> None:
    requests = {
        daemon.ports[TABLE]: f"get {key}\n".encode(),
        daemon.ports["socketmap"]: netstring(f"{TABLE} {key}".encode()),
    }
    before = hostile.memory(daemon.pid)
    with ExitStack() as stack:
        deaf = [
            stack.enter_context(hostile.NeverReader(port, request))
            for port, request in requests.items()
            for _ in range(clients)
        ]
        others_are_served(daemon, count)
        assert all(client.stalled.wait(LIMIT) for client in deaf), "the daemon reads on and on"
        assert hostile.memory(daemon.pid) - before < NEVER_READER * len(deaf)
        others_are_served(daemon, 200)


def test_a_client_that_reads_slowly_is_not_read_ahead_of(daemon: Daemon) -> None:
    """Whenever it takes some replies there is room to write; that is no reason to read as much again."""
    before = hostile.memory(daemon.pid)
    with hostile.NeverReader(daemon.ports[TABLE], b"get long@a.test\n") as client:
        assert client.stalled.wait(LIMIT)
        received = 0
        client.sock.settimeout(hostile.PATIENCE)
        while received < 16 * MB:
            received += len(client.sock.recv(16 * KB))
        assert hostile.memory(daemon.pid) - before < NEVER_READER
        others_are_served(daemon, 200)


def test_a_client_that_asks_without_end_leaves_the_others_their_turns(daemon: Daemon) -> None:
    """One read brings 50,000 of the shortest requests. If it were answered in one go, the other client would
    have one answer, or two, for each 50,000 of this one."""
    asked, ended = 250_000, Event()
    with tcp(daemon) as flooding, tcp(daemon) as other:
        reply = hostile.ask_once(flooding, b"get \n")
        sender = Thread(target=flooding.sendall, args=(b"get \n" * asked,))
        reader = Thread(target=hostile.count_down, args=(flooding, len(reply) * asked, ended))
        sender.start()
        reader.start()
        client, answers = TcpTableClient(other), 0
        while not ended.is_set():
            assert client.ask("k1@a.test") == KNOWN
            answers += 1
        sender.join()
        reader.join()
    assert answers > 50


def test_a_byte_at_a_time(daemon: Daemon) -> None:
    ports = [daemon.ports[TABLE], daemon.ports["socketmap"]]
    hostile.trickle({port: exchange(daemon, port) for port in ports}, clients=50)


LINES = [(b"get ", b"x" * 1000), (b"get ", b"%41" * 300), (b"", b"\0" * 1000), (b"", b"\r" * 999)]


def test_a_line_without_end(daemon: Daemon) -> None:
    refusal = f"400 a%20line%20is%20longer%20than%20{LONGEST_LINE}%20bytes\n".encode()
    for number, (start, forever) in enumerate(LINES, 1):
        sent, received = hostile.send_until_refused(daemon.ports[TABLE], start, forever, ENDLESS)
        assert received in (b"", refusal), "a reset may overtake the reply"
        assert sent < ENDLESS
        assert eventually(lambda: daemon.log().count("a line is longer than") == number, 30)  # noqa: B023


LIES = [
    (b"99999999999:", b"x" * 1000),
    (b"", b"1" * 1000),
    (f"{LONGEST_REQUEST + 1}:".encode(), b"x" * 1000),
    (f"{LONGEST_REQUEST}:".encode(), b"x" * 1000),
    (b"3:", b"a key"),
    (b"-5:", b"a key,"),
    (b"00005:", b"a key,"),
    (b"0:,", b"0:,"),
]


def test_netstrings_that_lie(daemon: Daemon) -> None:
    for number, (lie, forever) in enumerate(LIES, 1):
        sent, received = hostile.send_until_refused(daemon.ports["socketmap"], lie, forever, ENDLESS)
        assert received == b"" or re.fullmatch(rb"\d+:PERM [^,]+,", received)
        assert sent < ENDLESS
        said = "protocol error protocol=socketmap client=127.0.0.1:"
        assert eventually(lambda: daemon.log().count(said) == number, 30)  # noqa: B023


def test_clients_that_promise_more_than_they_send(daemon: Daemon) -> None:
    """Half a request is kept as long as its client stays, and is no reason to close."""
    before = hostile.memory(daemon.pid)
    wires = {
        daemon.ports[TABLE]: b"get " + b"x" * (LONGEST_LINE - 4),
        daemon.ports["socketmap"]: b"%d:%b" % (LONGEST_REQUEST, b"x" * (LONGEST_REQUEST - 1)),
    }
    with ExitStack() as stack:
        for port, wire in wires.items():
            for _ in range(200):
                stack.enter_context(hostile.connect(port)).sendall(wire)
        others_are_served(daemon, 200)
        assert hostile.memory(daemon.pid) - before < 400 * 3 * LONGEST_LINE
        assert daemon.status()["connections"] == 400


@pytest.mark.parametrize("endpoint", [TABLE, "socketmap"])
def test_garbage_floods(daemon: Daemon, endpoint: str) -> None:
    """Each connection costs one line of the log at most, and it is short whatever the bytes were."""
    chance = random.Random(5)
    before, logged = hostile.memory(daemon.pid), len(daemon.log().splitlines())
    floods = 200
    for number in range(floods):
        wire = exchange(daemon, daemon.ports[endpoint])[0] * (number % 3) + chance.randbytes(32 * KB)
        hostile.send_until_refused(daemon.ports[endpoint], wire, b"", len(wire))
        if number % 20 == 0:
            others_are_served(daemon, 20)
    lines = daemon.log().splitlines()[logged:]
    assert len(lines) <= floods
    assert max(map(len, lines)) < 200
    assert all(line.isprintable() for line in lines)
    assert hostile.memory(daemon.pid) - before < 8 * MB


def strange_keys(count: int) -> Iterator[bytes]:
    """Keys that no mail has, in requests that are sound."""
    chance = random.Random(6)
    pieces = [
        b"k1@a.test",
        b"@",
        b"+",
        b".",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        "ü".encode(),
        b'"',
        b"\\",
        b"%s",
    ]
    pieces += [
        b"\n",
        b" ",
        b"'",
        b"[1.2.3.4]",
        b"x" * 300,
        b"," * 9,
        "𝔞".encode(),
        b"\xc3",
        b"{",
        b"$1",
        b"a.test",
    ]
    for _ in range(count):
        yield b"".join(chance.choices(pieces, k=chance.randrange(8)))


def test_sound_requests_with_strange_keys(daemon: Daemon) -> None:
    """Each has one reply; which, other tests say."""
    keys = list(strange_keys(1500))
    with tcp(daemon) as sock, sock.makefile("rb") as replies:
        for key in keys:
            sock.sendall(b"get " + re.sub(rb"[^!-$&-~]", lambda byte: b"%%%02X" % byte[0][0], key) + b"\n")
            assert re.fullmatch(rb"[245]00 [!-~]*\n", replies.readline())
    with hostile.connect(daemon.ports["socketmap"]) as sock:
        reader = NetstringReader(LONGEST_REPLY)
        for number, key in enumerate(keys):
            sock.sendall(
                netstring(b"%b %b" % (key.replace(b" ", b"") if number % 3 == 0 else TABLE.encode(), key))
            )
            while (reply := reader.next()) is None:
                data = sock.recv(LONGEST_REPLY)
                assert data, key
                reader.feed(data)
            assert reply.startswith((b"OK ", b"NOTFOUND ", b"TEMP ", b"PERM no table ")), reply


@contextmanager
def control(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(LIMIT)
        sock.connect(str(daemon.folder / "control.sock"))
        yield sock


NO_COMMANDS = [
    b"",
    b"\0\xff\xfe",
    b'{"command": ["explain"]}',
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"9" * 10_000,
    b'{"command": "explain", "table": "virtual_alias_maps", "key": "\\ud800"}',
    b'{"command": "explain", "table": "virtual_alias_maps", "key": "\\u0000\\udcff"}',
    b'{"command": "explain", "table": {}, "key": [1]}',
    b'{"command": "explain"}',
]


def test_the_control_socket_answers_what_makes_no_sense(daemon: Daemon) -> None:
    with control(daemon) as sock, sock.makefile("rb") as replies:
        for line in NO_COMMANDS:
            sock.sendall(line + b"\n")
            assert isinstance(json.loads(replies.readline()), dict)


def test_the_control_socket_in_a_flood_of_garbage(daemon: Daemon) -> None:
    chance = random.Random(7)
    before = hostile.memory(daemon.pid)
    for _ in range(50):
        with control(daemon) as sock:
            sock.sendall(chance.randbytes(16 * KB))
    with control(daemon) as sock:
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < ENDLESS:
                sock.sendall(b"x" * 1000)
                sent += 1000
    assert sent < ENDLESS
    assert hostile.memory(daemon.pid) - before < 16 * MB


def test_a_client_of_the_control_socket_that_never_reads(daemon: Daemon) -> None:
    before = hostile.memory(daemon.pid)
    wire, sent = b'{"command": "status"}\n' * 1000, 0
    with control(daemon) as sock:
        sock.setblocking(False)
        while sent < 8 * MB and select.select([], [sock], [], 1)[1]:
            sent += sock.send(wire[sent % len(wire) :])
            others_are_served(daemon, 2)
        assert sent < 8 * MB, "the daemon reads on and on"
        assert hostile.memory(daemon.pid) - before < 4 * MB
