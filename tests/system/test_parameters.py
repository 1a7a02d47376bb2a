"""Any parameter may be a table: its search is Postfix's own, with `pgsql:` as the master.

Two private Postfixes, as in test_search_order: A asks PostgreSQL itself, B asks mailmaps for the same rows.
All that a stranger can see must be equal: the replies for many senders, recipients, clients, HELO and ETRN
names, and of mail that is taken every delivery with its sink, envelope and rewritten headers. ASCII only:
Debian 12's Postfix 3.7 speaks LATIN1 to PostgreSQL.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from tests.system.lmtp_sink import Delivery, LmtpSink
from tests.system.parameter_bench import TRUSTED, Caller, Pair, Setting, Sinks, filled, pair_of
from tests.system.parameter_cases import ETRN_NAMES, HELO_NAMES, Route, addresses, clients, envelopes, rows
from tests.system.postfix import PrivatePostfix
from tests.system.smtp import PROBE, Dialog, Reply

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SEED = 20190307
MESSAGES = 180
ADDRESSES = 200

PARENTS = ["fast_flush_domains", "mynetworks", "smtpd_access_maps"]

SETTINGS = {
    "parents match": Setting(
        "tcp", "view", {"recipient_delimiter": "+", "parent_domain_matches_subdomains": PARENTS}
    ),
    "dotted parents, no propagation": Setting(
        "socketmap",
        "view",
        {
            "recipient_delimiter": "+-",
            "parent_domain_matches_subdomains": [],
            "propagate_unmatched_extensions": [],
        },
    ),
    "generic and virtual, out of the same files": Setting(
        "tcp",
        "pgsql",
        {
            "recipient_delimiter": "-+",
            "owner_request_special": False,
            "parent_domain_matches_subdomains": ["mynetworks"],
            "propagate_unmatched_extensions": ["generic", "virtual"],
        },
    ),
}

CHECKED = {18: "Folded", 19: "Bad"}
"""The X-Check header of some messages among each twenty; header_checks refuses one, in this very case."""

MARKS = (
    "canon@",
    "canon-s@",
    "canon-r@",
    "copy-s@",
    "Copy-R",
    "moved to new@",
    "relayhost:",
    "transport:",
    "@shown.test",
    "in local recipient table",
    "in virtual alias table",
    '"l-first@out.test, two',
    '""@out.test',
    "5.7.1 bad",
)
"""What A's answers must show, lest a table that nobody asked pass for equal."""

Answers = dict[str, str]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sinks(mail_postgres: EmbeddedPostgres) -> AsyncIterator[Sinks]:
    """The sinks, and the rows, some of which lead there."""
    async with AsyncExitStack() as stack:
        names = ("local", "default", "relayhost", "transport")
        sinks = {name: await stack.enter_async_context(LmtpSink()) for name in names}
        route = Route(sinks["relayhost"].nexthop.removeprefix("lmtp:"), sinks["transport"].nexthop)
        await filled(mail_postgres.dsn(), rows(SEED, route))
        yield sinks


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=SETTINGS)
async def pair(
    request: pytest.FixtureRequest, mail_postgres: EmbeddedPostgres, sinks: Sinks
) -> AsyncIterator[Pair]:
    async with pair_of(SETTINGS[request.param], mail_postgres.dsn(), sinks) as pair:
        yield pair


async def test_mail_is_rewritten_copied_and_routed_alike(pair: Pair, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    asked = envelopes(SEED, MESSAGES)
    by_pgsql, by_mailmaps = await asyncio.gather(
        _outcomes(pair.fixed, pair.sinks, asked, f"A {name}"),
        _outcomes(pair.pattern, pair.sinks, asked, f"B {name}"),
    )
    _compare(by_pgsql, by_mailmaps)
    seen = "\n".join(by_pgsql.values())
    assert [mark for mark in MARKS if mark not in seen] == []


async def _outcomes(
    postfix: PrivatePostfix, sinks: Sinks, asked: list[tuple[str, str]], name: str
) -> Answers:
    """By sender and recipient: the replies, and each delivery with its sink, envelope and headers."""
    replies = {}
    async with Caller(postfix.port, helo=TRUSTED) as caller:
        for number, (sender, recipient) in enumerate(asked):
            question = f"{sender} > {recipient}"
            reply = await caller.rcpt(recipient, sender)
            texts = [_text(reply)]
            if reply.code == 250:
                await caller.say("DATA")
                head = f"{PROBE}: {name} {question}\r\nFrom: <{sender}>\r\nTo: <{recipient}>\r\n"
                head += f"X-Check: {CHECKED.get(number % 20, 'Good')}"
                texts.append(_text(await caller.say(f"{head}\r\n\r\nhello\r\n.")))
            replies[question] = " / ".join(texts)
    await postfix.drained()
    delivered: dict[str, list[str]] = {}
    for sink_name, sink in sinks.items():
        for delivery in sink.deliveries:
            delivered.setdefault(delivery.header(PROBE), []).append(f"{sink_name}:{_shown(delivery)}")
    return {
        question: " / ".join([text, *sorted(delivered.get(f"{name} {question}", []))])
        for question, text in replies.items()
    }


def _shown(delivery: Delivery) -> str:
    headers = f"From: {delivery.header('From')}, To: {delivery.header('To')}"
    return f"{delivery.sender} > {delivery.recipient}, {headers}"


@pytest.mark.parametrize("what", ["recipients", "senders", "clients", "networks", "helo names", "etrn"])
async def test_replies_are_equal(pair: Pair, what: str) -> None:
    ask = QUESTIONS[what]
    by_pgsql, by_mailmaps = await asyncio.gather(ask(pair.fixed.port), ask(pair.pattern.port))
    _compare(by_pgsql, by_mailmaps)
    kinds = {text.partition(" by ")[2] or text[:3] for text in by_pgsql.values()}
    assert len(kinds) > 1, "all were treated alike"


async def _recipients(port: int) -> Answers:
    async with Dialog(port) as dialog:
        return {name: _text(await dialog.rcpt(name)) for name in addresses(SEED + 3, ADDRESSES)}


async def _senders(port: int) -> Answers:
    senders = ["", *addresses(SEED + 4, ADDRESSES)]
    async with Dialog(port) as dialog:
        return {name: _text(await dialog.rcpt("all@elsewhere.test", name)) for name in senders}


async def _clients(port: int, helo: str = "client.test", recipient: str = "postmaster@local.test") -> Answers:
    replies = {}
    for name, address in clients():
        identity = f"NAME={name} REVERSE_NAME={name} ADDR={address}"
        async with Caller(port, helo, identity) as caller:
            replies[identity] = _text(await caller.rcpt(recipient))
    return replies


async def _networks(port: int) -> Answers:
    """Who may relay: mynetworks."""
    return await _clients(port, TRUSTED, "postmaster@elsewhere.test")


async def _helo_names(port: int) -> Answers:
    replies = {}
    for name in HELO_NAMES:
        async with Caller(port, name) as caller:
            replies[name] = _text(await caller.rcpt("postmaster@local.test"))
    return replies


async def _etrn(port: int) -> Answers:
    async with Dialog(port) as dialog:
        return {name: _text(await dialog.say(f"ETRN {name}")) for name in ETRN_NAMES}


QUESTIONS: Mapping[str, Callable[[int], Awaitable[Answers]]] = {
    "recipients": _recipients,
    "senders": _senders,
    "clients": _clients,
    "networks": _networks,
    "helo names": _helo_names,
    "etrn": _etrn,
}


def _compare(by_pgsql: Answers, by_mailmaps: Answers) -> None:
    """Every difference is told with the question and both answers."""
    differences = [
        f"{question}\n  pgsql:    {answer}\n  mailmaps: {by_mailmaps[question]}"
        for question, answer in by_pgsql.items()
        if answer != by_mailmaps[question]
    ]
    if differences:
        heading = f"{len(differences)} of {len(by_pgsql)} differ:"
        pytest.fail("\n".join([heading, *differences]), pytrace=False)


def _text(reply: Reply) -> str:
    """A reply without what differs between any two messages."""
    return f"{reply.code} {re.sub('queued as .*', 'queued', reply.text)}"
