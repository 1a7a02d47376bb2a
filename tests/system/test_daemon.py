"""The daemon as a process, with a real PostgreSQL and without Postfix: trouble, limits, stopping.

The rule under test: whatever happens to the database, no client hears "not found" for it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import asyncpg
import pytest
from tests.system.daemon import Daemon
from tests.system.postfix import eventually

from mailmaps.client import SocketmapClient, TcpTableClient
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, NotFound, Unavailable

ROWS = [
    ("known@a.test", "d@x.test"),
    ("long@a.test", "x" * 5000),
    ("a.test", "virtual:"),
    ("gone@a.test", None),
    ("@a.test", "all@a.test"),
]
LIMIT = 20.0  # seconds within which a condition must come about
VIEWS = dict.fromkeys(("virtual_alias_maps", "virtual_mailbox_maps", "transport_maps"), "view:public.plain")


@pytest.fixture(scope="module")
def server(mail_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server, with ROWS in the table `plain`."""
    asyncio.run(_insert_rows(mail_postgres.dsn()))
    return mail_postgres


async def _insert_rows(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE plain (key text, value text); CREATE INDEX ON plain (key)")
    await connection.executemany("INSERT INTO plain VALUES ($1, $2)", ROWS)
    await connection.close()


def settings(postgres: EmbeddedPostgres, **database: float) -> dict[str, dict[str, str | float]]:
    return {
        "database": {"dsn": postgres.dsn(), "lookup_deadline": 1.0, "connect_timeout": 1.0, **database},
        "cache": {"ttl": 0.0, "negative_ttl": 0.0},
        "postfix": {"recipient_delimiter": "+"},
    }


@pytest.fixture
def daemon(server: EmbeddedPostgres) -> Iterator[Daemon]:
    with Daemon(settings(server), VIEWS) as daemon:
        yield daemon


def tcp(daemon: Daemon, table: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", daemon.ports[table]), timeout=LIMIT)


def ask(daemon: Daemon, key: str, table: str = "virtual_alias_maps") -> Answer:
    with tcp(daemon, table) as sock:
        return TcpTableClient(sock).ask(key)


def test_both_doors_give_the_same_answers(daemon: Daemon) -> None:
    with tcp(daemon, "virtual_alias_maps") as one, tcp(daemon, "socketmap") as other:
        by_tcp, by_socketmap = TcpTableClient(one), SocketmapClient(other, "virtual_alias_maps")
        for key, expected in [
            ("Known+Ext@A.test", Found("d+Ext@x.test")),
            ("gone@a.test", NOT_FOUND),
            ("gone+x@a.test", NOT_FOUND),
            ("other@a.test", Found("all@a.test")),
            ("nobody@b.test", NOT_FOUND),
        ]:
            assert by_tcp.ask(key) == by_socketmap.ask(key) == expected
        assert by_socketmap.ask("long@a.test") == Found("x" * 5000)
        assert isinstance(by_tcp.ask("long@a.test"), Unavailable)
    assert eventually(lambda: "key=long@a.test" in daemon.log(), LIMIT)


def test_the_database_stopped_is_never_not_found_and_recovery_needs_nobody(
    daemon: Daemon, server: EmbeddedPostgres
) -> None:
    assert ask(daemon, "known@a.test") == Found("d@x.test"), daemon.log()
    server.stop()
    try:
        assert ask(daemon, "known@a.test") == Found("d@x.test"), "held"
        for key in ("nobody@b.test", "other@a.test"):
            assert isinstance(ask(daemon, key), Unavailable), "changes are not notified, so who knows"
        assert ask(daemon, "u@a.test", "transport_maps") == Found("virtual:"), "held"
    finally:
        server.start()
    assert eventually(lambda: ask(daemon, "nobody@b.test") == NOT_FOUND, LIMIT)
    assert ask(daemon, "known@a.test") == Found("d@x.test")
    log = daemon.log()
    assert log.count("cannot connect to the database") == 1
    assert log.count("the database is back") == 1


def test_the_database_hung_is_never_not_found(daemon: Daemon, server: EmbeddedPostgres) -> None:
    assert ask(daemon, "known@a.test") == Found("d@x.test"), daemon.log()
    server.pause()
    try:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: ask(daemon, f"k{n}@b.test"), range(20)))
        assert {type(answer) for answer in answers} == {Unavailable}
        assert ask(daemon, "u@a.test", "transport_maps") == Found("virtual:"), "held in memory"
        # What is not listed is "later" until the hang is noticed, and then as the list says.
        assert eventually(lambda: ask(daemon, "u@b.test", "transport_maps") == NOT_FOUND, LIMIT)
    finally:
        server.resume()
    assert eventually(lambda: ask(daemon, "known@a.test") == Found("d@x.test"), LIMIT)


async def test_a_backend_that_is_terminated_is_not_noticed(daemon: Daemon, server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    for _ in range(3):
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mailmaps'"
        )
        assert ask(daemon, "known@a.test") == Found("d@x.test"), daemon.log()
    await connection.close()


async def test_a_view_that_breaks_and_is_mended(daemon: Daemon, server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    assert ask(daemon, "known@a.test", "virtual_mailbox_maps") == Found("d@x.test")
    await connection.execute("ALTER TABLE plain RENAME TO hidden")
    assert isinstance(ask(daemon, "new@a.test", "virtual_mailbox_maps"), Unavailable)
    assert ask(daemon, "known@a.test", "virtual_mailbox_maps") == Found("d@x.test"), "held"
    await connection.execute(
        "ALTER TABLE hidden RENAME TO plain; ALTER TABLE plain ALTER value TYPE varchar(6000)"
    )
    assert ask(daemon, "known@a.test", "virtual_mailbox_maps") == Found("d@x.test"), "no stale plan"
    await connection.execute("ALTER TABLE plain ALTER value TYPE text")
    await connection.close()
    said = r'cannot say of=virtual_mailbox_maps reason="database: relation \"public.plain\"'
    assert daemon.log().count(said) == 1


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for a thousand sockets in this process, whose limit is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_a_domain_made_just_now_is_never_refused_because_of_the_database(
    server: EmbeddedPostgres,
) -> None:
    """The list of the held table is older than the domain; its "not found" would be a 554."""
    slow_list = settings(server)
    slow_list["cache"]["refresh"] = 3600.0
    connection = await asyncpg.connect(server.dsn())
    with Daemon(slow_list, VIEWS) as daemon:
        assert ask(daemon, "u@a.test", "transport_maps") == Found("virtual:")
        await connection.execute("INSERT INTO plain VALUES ('new.test', 'virtual:')")
        async with connection.transaction():
            await connection.execute("LOCK TABLE plain IN ACCESS EXCLUSIVE MODE")
            assert isinstance(ask(daemon, "u@new.test", "transport_maps"), Unavailable)
        await connection.execute("ALTER TABLE plain RENAME TO hidden")
        # Found, if the question that waited for the lock has been answered since.
        assert not isinstance(ask(daemon, "u@new.test", "transport_maps"), NotFound)
        await connection.execute("ALTER TABLE hidden RENAME TO plain")
        assert ask(daemon, "u@new.test", "transport_maps") == Found("virtual:")
    await connection.execute("DELETE FROM plain WHERE key = 'new.test'")
    await connection.close()


async def test_a_server_that_refuses_us_is_not_away(server: EmbeddedPostgres) -> None:
    """Others may be writing to it, so the list of a held table does not say what is not there."""
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE ROLE refused SUPERUSER LOGIN PASSWORD 'once'")
    refused = settings(server)
    refused["database"]["dsn"] = server.dsn("postgres", "refused", "once")
    with Daemon(refused, VIEWS) as daemon:
        assert ask(daemon, "u@none.test", "transport_maps") == NOT_FOUND
        await connection.execute("ALTER ROLE refused PASSWORD 'another'")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'refused'"
        )
        assert eventually(lambda: "password authentication failed" in daemon.log(), LIMIT)
        assert isinstance(ask(daemon, "u@new.test", "transport_maps"), Unavailable)
        assert ask(daemon, "u@a.test", "transport_maps") == Found("virtual:"), "held in memory"
    await connection.execute("DROP ROLE refused")
    await connection.close()


async def test_a_locked_domain_table_leaves_the_other_tables_their_connections(
    server: EmbeddedPostgres,
) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE boxes AS SELECT key, value FROM plain")
    views = {**VIEWS, "virtual_mailbox_domains": "view:public.plain", "virtual_uid_maps": "view:public.boxes"}
    with Daemon(settings(server), views) as daemon:
        assert ask(daemon, "known@a.test", "virtual_uid_maps") == Found("d@x.test")
        async with connection.transaction():
            await connection.execute("LOCK TABLE plain IN ACCESS EXCLUSIVE MODE")
            for number in range(6):
                assert isinstance(ask(daemon, f"d{number}.test", "virtual_mailbox_domains"), Unavailable)
                assert ask(daemon, f"n{number}@b.test", "virtual_uid_maps") == NOT_FOUND
    await connection.execute("DROP TABLE boxes")
    await connection.close()


async def test_what_a_view_says_when_it_fails_cannot_break_a_reply_or_the_log(
    server: EmbeddedPostgres,
) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(
        r"""CREATE FUNCTION shout(key text) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION E'% \nforged \033[31m', repeat(key, 2000); END $$;
            CREATE VIEW shouting AS SELECT key, shout(key) AS value FROM plain"""
    )
    with Daemon(settings(server), {"virtual_alias_maps": "view:public.shouting"}) as daemon:
        with tcp(daemon, "virtual_alias_maps") as sock:
            sock.sendall(b"get known@a.test\n")
            reply = sock.recv(100_000)
        assert reply.startswith(b"400 database:%20known@a.testknown")
        assert reply.endswith(b"\n")
        assert len(reply) < 1000
        assert "forged" not in daemon.log()
        assert max(map(len, daemon.log().splitlines())) < 500
    await connection.execute("DROP VIEW shouting; DROP FUNCTION shout")
    await connection.close()


def test_a_thousand_connections_at_once_are_all_served(daemon: Daemon) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(tcp(daemon, "virtual_alias_maps")) for _ in range(1000)]
        for sock in socks:
            sock.sendall(b"get known@a.test\n")
        assert {sock.recv(100) for sock in socks} == {b"200 d@x.test\n"}


def test_sigterm_answers_what_was_asked(daemon: Daemon, server: EmbeddedPostgres) -> None:
    assert ask(daemon, "known@a.test") == Found("d@x.test")
    server.pause()
    with tcp(daemon, "virtual_alias_maps") as sock, tcp(daemon, "virtual_alias_maps") as idle:
        sock.sendall(b"get known@a.test\nget nobody@b.test\n")
        idle.sendall(b"get a\0b\n")
        assert idle.recv(100) == b"500 not%20found\n", "served, so both are"
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(daemon.stop)
            server.resume()
            with sock.makefile("rb") as answers:
                assert answers.readlines() == [b"200 d@x.test\n", b"500 not%20found\n"]
            assert idle.recv(100) == b""
            assert stopping.result() == 0


def test_at_the_descriptor_limit_one_line_is_logged_and_nobody_is_lost(daemon: Daemon) -> None:
    limits = (100, resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[1])
    assert ask(daemon, "known@a.test") == Found("d@x.test")
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    with ExitStack() as stack:
        socks = [stack.enter_context(tcp(daemon, "virtual_alias_maps")) for _ in range(150)]
        for sock in socks:
            sock.sendall(b"get known@a.test\n")
        assert socks[0].recv(100) == b"200 d@x.test\n"
        assert eventually(lambda: "accepting pauses" in daemon.log(), LIMIT)
        for sock in socks[:120]:
            sock.close()
        assert {sock.recv(100) for sock in socks[120:]} == {b"200 d@x.test\n"}
    log = daemon.log()
    assert log.count("accepting pauses") == log.count("accepting resumes") == 1


def test_query_and_explain_ask_the_running_daemon(daemon: Daemon) -> None:
    found = daemon.run("query", "virtual_alias_maps", "known+X@a.test")
    assert (found.returncode, found.stdout) == (0, "d+X@x.test\n")
    worst = daemon.run("query", "virtual_alias_maps", "known@a.test", "nobody@b.test")
    assert (worst.returncode, worst.stdout) == (1, "known@a.test\td@x.test\n")
    assert daemon.run("query", "virtual_alias_maps", "nobody@b.test", "long@a.test").returncode == 75
    explained = json.loads(daemon.run("explain", "virtual_alias_maps", "Known+X@a.test", "--json").stdout)
    assert explained["candidates"] == ["known+x@a.test", "known@a.test", "@a.test"]
    assert explained["row"] == {"index": 1, "values": ["d@x.test"], "source": "view:public.plain"}
    assert (explained["answer"], explained["value"]) == ("found", "d+X@x.test")
    assert explained["put_back"] == "+X"
    routed = json.loads(daemon.run("explain", "transport_maps", "u+X@a.test", "--json").stdout)
    assert (routed["value"], routed["said_by"], routed["put_back"]) == ("virtual:", "mirror", "")
    shown = daemon.run("explain", "virtual_alias_maps", "gone@a.test").stdout
    assert "(known, answers nothing)" in shown
    assert "answer: not found" in shown
    assert "said by: database, source view:public.plain" in shown
    assert daemon.stop() == 0
    assert daemon.run("query", "virtual_alias_maps", "known@a.test").returncode == 75
    assert daemon.run("explain", "virtual_alias_maps", "known@a.test").returncode == 75


def test_a_port_in_use_is_named(daemon: Daemon) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "mailmaps", "serve", "--config", str(daemon.config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 69
    assert f"127.0.0.1 port {daemon.ports['transport_maps']}: the port is in use" in second.stderr


def test_hostile_bytes_get_an_answer_and_a_close(daemon: Daemon) -> None:
    for table, wire, reply in [
        ("virtual_alias_maps", b"nonsense\n", b"400 "),
        ("virtual_alias_maps", b"get " + b"x" * 20000, b"400 "),
        ("socketmap", b"9999999999:", b"PERM "),
        ("socketmap", b"GET / HTTP/1.1\r\n\r\n", b"PERM "),
    ]:
        with tcp(daemon, table) as sock:
            sock.sendall(wire)
            received = b""
            with suppress(ConnectionResetError):
                while data := sock.recv(4096):
                    received += data
            assert reply in received
    assert ask(daemon, "known@a.test") == Found("d@x.test"), daemon.log()


def test_no_password_is_ever_printed(server: EmbeddedPostgres) -> None:
    wrong = server.dsn("postgres", "postgres", "a-wrong-password")
    with Daemon({"database": {"dsn": wrong}, "log": {"level": "debug"}}, VIEWS) as daemon:
        assert isinstance(ask(daemon, "known@a.test"), Unavailable)
        checked = daemon.run("check")
        assert checked.returncode == 2
        assert "password authentication failed" in daemon.log()
        assert "a-wrong-password" not in daemon.log() + checked.stdout + checked.stderr
