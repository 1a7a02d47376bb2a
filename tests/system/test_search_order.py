"""Our search is Postfix's search: the master is a real Postfix with `pgsql:`, not our reading of it.

Two private Postfixes have the same main.cf but for their tables: A asks PostgreSQL itself (FIXED tables,
so Postfix walks through the partial keys), B asks mailmaps (PATTERN tables, so mailmaps does). The same
rows, the same few hundred addresses; every reply and every final recipient, with the transport that took
it there, must be equal. ASCII only: Debian 12's Postfix 3.7 speaks LATIN1 to PostgreSQL.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from tests.system.daemon import Daemon, Value
from tests.system.lmtp_sink import LmtpSink
from tests.system.postfix import PrivatePostfix
from tests.system.sasl_stub import SaslStub, plain
from tests.system.search_cases import LOCAL, ORIGIN, Row, addresses, rows, senders
from tests.system.smtp import PROBE, Dialog, Reply

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SEED = 20110203
COUNT = 260
"""Addresses beside the special ones, for each of the settings below."""

CLIENTS = 3
"""SMTP sessions at a time on each Postfix. Each smtpd and cleanup of A holds a connection to PostgreSQL
for each table, and there are 100 in all."""

TABLES = (
    "virtual_mailbox_domains",
    "relay_domains",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "relay_recipient_maps",
    "transport_maps",
    "smtpd_sender_login_maps",
)

CLASSES = ("virtual", "relay", "local", "default")
ROUTES = ("first", "second")
"""A sink for each address class and for each of two rows of the transport table, to see who delivered."""

Rules = Mapping[str, Value]
PARENTS = ("relay_domains", "smtpd_access_maps")

SETTINGS: dict[str, Rules] = {
    "no delimiter": {"recipient_delimiter": ""},
    "plus": {"recipient_delimiter": "+", "parent_domain_matches_subdomains": []},
    "plus and minus": {"recipient_delimiter": "+-", "propagate_unmatched_extensions": ["virtual"]},
    "no propagation": {"recipient_delimiter": "+", "propagate_unmatched_extensions": []},
    "minus, owner as any other": {
        "recipient_delimiter": "-+",
        "owner_request_special": False,
        "parent_domain_matches_subdomains": [*PARENTS, "transport_maps"],
    },
}


class Outcome(NamedTuple):
    """What became of one address: the replies to RCPT and to the data, and who got it by which sink."""

    rcpt: str
    data: str
    delivered: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rcpt} / {self.data or '-'} / {', '.join(self.delivered) or 'nobody'}"


@dataclass
class Bench:
    """What both Postfixes share."""

    dsn: str
    sinks: dict[str, LmtpSink]
    sasl: SaslStub

    def main_cf(self, rules: Rules) -> dict[str, str]:
        transports = {f"{name}_transport": self.sinks[name].nexthop for name in CLASSES}
        return {
            **{name: _main_cf(value) for name, value in self.rules(rules).items()},
            **transports,
            **self.sasl.settings,
            "virtual_alias_domains": "",
            "local_recipient_maps": "",
            "smtpd_sender_restrictions": "reject_sender_login_mismatch",
            # a@b@c is refused as a relay attempt otherwise, and would not reach a table.
            "allow_untrusted_routing": "yes",
        }

    def rules(self, rules: Rules) -> dict[str, Value]:
        """What mailmaps has to know of main.cf."""
        return {"myorigin": ORIGIN, "mydestination": [LOCAL], "inet_interfaces": ["127.0.0.1"], **rules}

    def delivered(self) -> dict[str, list[str]]:
        """Who got which message by which sink, by the message's probe."""
        found: dict[str, list[str]] = {}
        for name, sink in self.sinks.items():
            for probe, recipients in sink.by_header(PROBE).items():
                found.setdefault(probe, []).extend(f"{name}:{recipient}" for recipient in recipients)
        return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(mail_postgres: EmbeddedPostgres) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        sinks = {name: await stack.enter_async_context(LmtpSink()) for name in (*CLASSES, *ROUTES)}
        sasl = await stack.enter_async_context(SaslStub())
        made = rows(SEED, (sinks["first"].nexthop, sinks["second"].nexthop))
        connection = await asyncpg.connect(mail_postgres.dsn())
        try:
            for table in TABLES:
                await _fill(connection, table, made[table])
        finally:
            await connection.close()
        yield Bench(mail_postgres.dsn(), sinks, sasl)


class Pair(NamedTuple):
    """Postfix with pgsql:, and Postfix with mailmaps."""

    fixed: PrivatePostfix
    pattern: PrivatePostfix


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=[f"tcp, {name}" for name in SETTINGS] + ["socketmap, plus"]
)
async def pair(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[Pair]:
    map_type, _, name = request.param.partition(", ")
    main_cf = bench.main_cf(SETTINGS[name])
    async with AsyncExitStack() as stack:
        daemon = stack.enter_context(_daemon(bench, SETTINGS[name]))
        fixed = PrivatePostfix(main_cf)
        fixed.settings.update({table: _pgsql(fixed, table, bench.dsn) for table in TABLES})
        tables = {table: daemon.map(map_type, table) for table in TABLES}
        pattern = PrivatePostfix({**main_cf, **tables})
        yield Pair(await stack.enter_async_context(fixed), await stack.enter_async_context(pattern))


async def test_replies_and_final_recipients_are_equal(
    pair: Pair, bench: Bench, request: pytest.FixtureRequest
) -> None:
    asked = addresses(SEED, COUNT)
    name = request.node.callspec.id
    by_pgsql, by_mailmaps = await asyncio.gather(
        _outcomes(pair.fixed, bench, asked, f"A {name}"), _outcomes(pair.pattern, bench, asked, f"B {name}")
    )
    _compare(by_pgsql, by_mailmaps)
    assert sum(bool(outcome.delivered) for outcome in by_pgsql.values()) > len(asked) / 3, "too few mailboxes"
    assert sum(outcome.rcpt.startswith("550") for outcome in by_pgsql.values()) > 20, "too few unknown users"


@pytest.mark.parametrize("login", ["", "ann"])
async def test_replies_to_senders_are_equal(pair: Pair, login: str) -> None:
    asked = senders(SEED, COUNT)
    by_pgsql, by_mailmaps = await asyncio.gather(
        _sender_replies(pair.fixed, asked, login), _sender_replies(pair.pattern, asked, login)
    )
    _compare(by_pgsql, by_mailmaps)
    assert len({text[:3] for text in by_pgsql.values()}) > 1, "every sender was treated alike"


def _compare(by_pgsql: Mapping[str, object], by_mailmaps: Mapping[str, object]) -> None:
    """Every difference is told with the address and both answers."""
    differences = [
        f"{address}\n  pgsql:    {answer}\n  mailmaps: {by_mailmaps[address]}"
        for address, answer in by_pgsql.items()
        if answer != by_mailmaps[address]
    ]
    if differences:
        heading = f"{len(differences)} of {len(by_pgsql)} differ:"
        pytest.fail("\n".join([heading, *differences]), pytrace=False)


async def _outcomes(postfix: PrivatePostfix, bench: Bench, asked: list[str], name: str) -> dict[str, Outcome]:
    replies: dict[str, tuple[Reply, Reply | None]] = {}
    todo = iter(asked)

    async def client() -> None:
        async with Dialog(postfix.port) as dialog:
            for address in todo:
                replies[address] = await dialog.message(address, f"{name} {address}")

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await postfix.drained()
    delivered = bench.delivered()
    return {
        address: Outcome(_text(rcpt), _text(data), tuple(sorted(delivered.get(f"{name} {address}", []))))
        for address, (rcpt, data) in replies.items()
    }


async def _sender_replies(postfix: PrivatePostfix, asked: list[str], login: str) -> dict[str, str]:
    replies = {}
    async with Dialog(postfix.port) as dialog:
        if login:
            await dialog.say(plain(login))
        for sender in asked:
            await dialog.say("RSET")
            mail = await dialog.mail(sender)
            rcpt = await dialog.say("RCPT TO:<all@two.test>")
            replies[sender] = f"{_text(mail)} / {_text(rcpt)}"
    return replies


def _text(reply: Reply | None) -> str:
    """A reply without what differs between any two messages."""
    return "" if reply is None else f"{reply.code} {re.sub('queued as .*', 'queued', reply.text)}"


def _main_cf(value: Value) -> str:
    """A setting of [postfix] as main.cf spells it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else ", ".join(value)


def _daemon(bench: Bench, rules: Rules) -> Daemon:
    settings: dict[str, Mapping[str, Value] | Value] = {
        "database": {"dsn": bench.dsn, "honour_active": True},
        "postfix": bench.rules(rules),
    }
    return Daemon(settings, {table: f"view:public.plain_{table}" for table in TABLES})


def _pgsql(postfix: PrivatePostfix, table: str, dsn: str) -> str:
    """The name of a pgsql: table that asks for exactly the key (one `%s`, facts 3.2)."""
    parts = urlsplit(dsn)
    file = postfix.write(
        f"{table}.cf",
        f"hosts = {parts.hostname}:{parts.port}\n"
        f"user = {parts.username}\n"
        f"password = {parts.password or ''}\n"
        f"dbname = {parts.path[1:]}\n"
        f"query = SELECT value FROM plain_{table} WHERE key = '%s'\n",
    )
    return f"pgsql:{file}"


async def _fill(connection: asyncpg.Connection, table: str, made: list[Row]) -> None:
    await connection.execute(f"CREATE TABLE plain_{table} (key text, value text)")
    await connection.copy_records_to_table(f"plain_{table}", records=made)
