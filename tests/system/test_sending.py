"""The running daemon's sending: grants, limits, observing and their commands, as a postmaster uses them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import Database
from tests.system.daemon import Daemon, Value
from tests.system.processes import eventually

LIMIT = 60.0

PEOPLE = """
   INSERT INTO domains (gid, domain, transport) VALUES (5000, 'a.example', 'virtual:');
   INSERT INTO user_accounts (username, password, uid, gid, email, mailbox, active)
      VALUES ('jan', 'x', 5000, 5000, 'jan@a.example', 'jan', '1'),
             ('piet', 'x', 5001, 5000, 'piet@a.example', 'piet', '1');
"""


def asked(**attributes: str) -> bytes:
    """One request of the policy protocol."""
    usual = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "sender": "jan@a.example",
        "client_address": "192.0.2.1",
        "instance": uuid4().hex,
        "recipient_count": "0",
    }
    return "".join(f"{name}={value}\n" for name, value in (usual | attributes).items()).encode() + b"\n"


def ask(daemon: Daemon, **attributes: str) -> str:
    """The action, as Postfix gets it."""
    with socket.create_connection(("127.0.0.1", daemon.ports["policy"]), timeout=LIMIT) as client:
        client.sendall(asked(**attributes))
        with client.makefile("r", encoding="utf-8", newline="\n") as replies:
            action = replies.readline().removeprefix("action=").removesuffix("\n")
            assert replies.readline() == "\n"
            return action


def read_all(client: socket.socket) -> bytes:
    """What comes until the end; a client that is cut off with more to say sees that as a reset."""
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


@contextmanager
def site(database: Database, *, shared: bool = True, **sections: dict[str, Value]) -> Iterator[Daemon]:
    """A daemon; without `shared` it has no database to write to."""
    settings: dict[str, Any] = {"database": {"dsn": database.reader_dsn, "lookup_deadline": 2.0}, **sections}
    if shared:
        settings["database"] |= {"write_dsn": database.write_dsn}
    with Daemon(settings) as daemon:
        yield daemon


@pytest.fixture
async def people(database: Database) -> Database:
    """Two people in one domain."""
    await database.connection.execute(PEOPLE)
    return database


class Runs:
    """Commands of two words: `daemon.run` puts --config behind the first."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def __call__(self, group: str, command: str, *words: str) -> tuple[int, dict[str, Any]]:
        done = self._daemon.run_group(group, command, *words, "--json")
        return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


async def test_a_grant_counts_within_seconds_and_ends_as_soon(people: Database) -> None:
    with site(people) as daemon:
        runs = Runs(daemon)
        assert ask(daemon, sasl_username="piet").startswith("553 5.7.1 You are logged in as piet, which")
        assert runs("senders", "explain", "piet", "jan@a.example")[0] == 1
        await people.connection.execute(
            "INSERT INTO mailpolicy.sender_grants (login, address) VALUES ('piet', 'jan@a.example')"
        )
        assert eventually(lambda: ask(daemon, sasl_username="piet") == "DUNNO", LIMIT)
        code, told = runs("senders", "explain", "piet", "Jan+x@A.example")
        assert code == 1  # no delimiter here
        code, told = runs("senders", "explain", "piet", "Jan@A.example")
        assert (code, told["in_map"]) == (0, "jan,piet")
        assert "grant" in told["by"]
        assert daemon.ask("smtpd_sender_login_maps", "jan@a.example") == "200 jan,piet"
        await people.connection.execute(
            "UPDATE mailpolicy.sender_grants SET expires = now() + interval '2 seconds'"
        )
        assert eventually(lambda: ask(daemon, sasl_username="piet") != "DUNNO", LIMIT)
        assert eventually(lambda: daemon.ask("smtpd_sender_login_maps", "jan@a.example") == "200 jan", LIMIT)
        assert "has expired" in runs("senders", "explain", "piet", "jan@a.example")[1]["by"]


async def test_limits_and_their_commands(people: Database) -> None:
    with site(people, limits={"login_recipients_hour": 10}) as daemon:
        runs = Runs(daemon)
        sends = {"sasl_username": "jan", "protocol_state": "DATA", "recipient_count": "6"}
        assert ask(daemon, **sends) == "DUNNO"
        assert (
            ask(daemon, **sends)
            == "450 4.7.1 jan has reached its limit of 10 recipients an hour; try again later."
        )
        _, told = runs("limits", "show", "Jan")
        assert (told["sent"]["recipients_hour"], told["allowed"]["recipients_hour"]) == (6, 10)
        code, told = runs(
            "limits", "set", "jan", "--recipients-hour", "12", "--reason", "list", "--for", "1h"
        )
        assert (code, told["override"]["reason"], told["allowed"]["recipients_hour"]) == (0, "list", 12)
        assert ask(daemon, **sends) == "DUNNO"
        assert ask(daemon, **sends).startswith("450 ")
        assert daemon.run_group("limits", "release", "jan").stdout.startswith("released: 2 messages")
        assert ask(daemon, **sends) == "DUNNO"
        _, told = runs("limits", "list")
        assert [(one["name"], one["sent"]["messages_day"]) for one in told["sent"]] == [("jan", 1)]
        assert [one["name"] for one in told["overrides"]] == ["jan"]
        assert daemon.run_group("limits", "clear", "jan").stdout == "cleared\n"
        assert ask(daemon, **sends).startswith("450 ")
        assert runs("limits", "set", "jan", "--exempt", "--reason", "newsletter")[1]["exempt"] is True
        assert ask(daemon, **sends) == "DUNNO"
        for words in (["set", "jan", "--reason", "x"], ["set", "", "--exempt", "--reason", "x"]):
            assert daemon.run_group("limits", *words).returncode != 0


async def test_a_restart_forgets_nothing_that_was_sent(people: Database) -> None:
    with site(people, limits={"domain_messages_day": 2}) as daemon:
        sends = {"sasl_username": "jan", "protocol_state": "END-OF-MESSAGE", "recipient_count": "6"}
        assert ask(daemon, **sends) == "DUNNO"
        daemon.stop()
        daemon.start()
        assert ask(daemon, **sends) == "DUNNO"
        daemon.kill()
        daemon.start()
        assert ask(daemon, **sends).startswith(
            "450 4.7.1 a.example has reached its limit of 2 messages a day"
        )


async def test_observing_shows_whom_the_check_would_hit_and_a_reload_enforces(people: Database) -> None:
    with site(people, senders={"mode": "observe"}) as daemon:
        runs = Runs(daemon)
        for _ in range(3):
            assert ask(daemon, sasl_username="piet") == "DUNNO"
        assert ask(daemon) == "DUNNO"
        told = runs("senders", "observed", "--since", "1h")[1]["observed"]
        assert [(one["login"], one["sender"], one["times"], one["verdict"]) for one in told] == [
            ("piet", "jan@a.example", 3, "would be refused"),
            ("", "jan@a.example", 1, "would be refused"),
        ]
        assert "piet" in daemon.run_group("senders", "observed").stdout
        assert await people.connection.fetchval("SELECT sum(times) FROM mailpolicy.observed_senders") == 4
        told = runs("senders", "explain", "piet", "jan@a.example")[1]
        assert (told["allowed"], told["mode"]) == (False, "observe")
        daemon.config.write_text(daemon.config.read_text().replace('mode = "observe"', 'mode = "enforce"'))
        assert daemon.run("reload").returncode == 0
        assert ask(daemon, sasl_username="piet").startswith("553 ")
        assert ask(daemon, sasl_username="jan") == "DUNNO"


async def test_without_a_database_to_write_to(people: Database) -> None:
    with site(people, shared=False, limits={"login_messages_hour": 1}) as daemon:
        runs = Runs(daemon)
        sends = {"sasl_username": "jan", "protocol_state": "DATA", "recipient_count": "6"}
        assert ask(daemon, **sends) == "DUNNO"
        assert ask(daemon, **sends).startswith("450 ")
        assert runs("limits", "show", "jan")[1]["counted"] == "memory"
        assert ask(daemon, sasl_username="piet").startswith("553 ")
        told = runs("senders", "observed")[1]
        assert (told["kept"], [one["login"] for one in told["observed"]]) == ("memory", ["piet"])
        assert (
            "database.write_dsn"
            in daemon.run_group("limits", "set", "jan", "--exempt", "--reason", "x").stderr
        )
        assert daemon.run_group("limits", "release", "jan").returncode == 0
        assert ask(daemon, **sends) == "DUNNO"
        assert daemon.run("reload").returncode == 0
        assert ask(daemon, **sends).startswith("450 ")  # counted before the reload


async def test_a_restart_in_an_outage_knows_the_grants(people: Database) -> None:
    await people.connection.execute(
        "INSERT INTO mailpolicy.sender_grants (login, address) VALUES ('piet', '@a.example')"
    )
    with site(people, limits={"login_messages_hour": 2}) as daemon:
        sends = {"sasl_username": "piet", "protocol_state": "DATA", "recipient_count": "6"}
        assert ask(daemon, **sends) == "DUNNO"
        held = [daemon.mirrors / name for name in ("grants.json", "sender_rights.lmdb.read")]
        assert eventually(lambda: all(path.exists() for path in held), LIMIT)
        daemon.stop()
        await people.connection.execute(f"REVOKE CONNECT ON DATABASE {people.name} FROM PUBLIC")
        daemon.start()
        assert eventually(lambda: "permission denied for database" in daemon.log(), LIMIT)
        assert ask(daemon, **sends) == "DUNNO"
        assert ask(daemon, **sends) == "DUNNO"
        assert ask(daemon, **sends).startswith("450 ")  # counted in memory, from nothing
        assert ask(daemon, sasl_username="jan", sender="piet@a.example").startswith("553 ")
        daemon.stop()
        (daemon.mirrors / "grants.json").unlink()
        daemon.start()
        his_own = {"sasl_username": "jan", "protocol_state": "DATA"}
        assert ask(daemon, **his_own) == "DUNNO"
        assert ask(daemon, **his_own) == "DUNNO"
        assert ask(daemon, sasl_username="jan", sender="piet@a.example").startswith("DEFER_IF_PERMIT 4.3.0 ")
        assert daemon.ask("smtpd_sender_login_maps", "jan@a.example").startswith("400 ")
        await people.connection.execute(f"GRANT CONNECT ON DATABASE {people.name} TO PUBLIC")
        assert eventually(
            lambda: daemon.ask("smtpd_sender_login_maps", "jan@a.example") == "200 jan,piet", LIMIT
        )
        counted = "SELECT sum(messages) FROM mailpolicy.sent WHERE name = 'jan'"
        while await people.connection.fetchval(counted) != 2:
            await asyncio.sleep(0.1)
        assert ask(daemon, **his_own).startswith("450 ")


async def test_hostile_clients_of_the_policy_port(people: Database) -> None:
    with site(people) as daemon:
        dialog = asked(sasl_username="jan") + asked(sasl_username="piet")
        with socket.create_connection(("127.0.0.1", daemon.ports["policy"]), timeout=LIMIT) as client:
            for byte in dialog:
                client.sendall(bytes([byte]))
            client.sendall(dialog * 100)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as replies:
                lines = replies.read().split(b"\n\n")
        assert lines[:-1] == [lines[0], lines[1]] * 101
        assert lines[0] == b"action=DUNNO"
        assert lines[1].startswith(b"action=553 ")
        for junk in (b"\n" * 50, b"\xff\x00=\n\n", b"x" * 200_000, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", daemon.ports["policy"]), timeout=LIMIT) as client:
                client.sendall(junk)
                client.shutdown(socket.SHUT_WR)
                answers = read_all(client).split(b"\n\n")[:-1]
                assert all(
                    one.startswith((b"action=DEFER_IF_PERMIT 4.3.0 ", b"action=451 4.3.0 "))
                    for one in answers
                )
        assert ask(daemon, sasl_username="jan") == "DUNNO"
        assert daemon.stop() == 0
