"""Mail cannot tell mailmaps from `pgsql:`: the files of real sites, one database, three Postfixes or four.

A has `pgsql:` and the `.cf` files, B mailmaps by tcp, C mailmaps by socketmap; mailmaps has the same `.cf`
files. At the site with our own schema it has the views, and there D reads the lmdb: files that `mailmaps
filemaps` has written of them. Every reply and every final recipient, with the transport that took it, must be
equal. This is the sample for every day, in which each value of each setting meets each value of each other at
each site; `make differential N=100000` takes all settings and as many addresses as one likes (facts:
differential/).

KNOWN_DIFFERENCES are all that cannot be avoided, or are wanted, each with its test.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from tests.system.differential.comparison import Comparison, Difference
from tests.system.differential.instances import FILES, Instances
from tests.system.differential.run import SITES, Proof, proof
from tests.system.differential.settings import PAIRS, PRODUCT, Settings
from tests.system.differential.transaction import Batch
from tests.system.processes import eventually_async
from tests.system.sites import Site, insert, ours, postfixadmin
from tests.system.sites.population import ALIAS, CATCH, CATCH_ALIAS, MAIN, RELAY

from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.filemaps.targets import QUEUED

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SEED = 20260101
COUNT = 240
"""Recipients for each site and choice of settings; a fifth of them are the special ones."""

KNOWN_DIFFERENCES = {
    "a value over 4096 bytes by tcp": "a reply is one line of at most 4096 bytes (util/dict_tcp.c:111); "
    "mailmaps then says that it cannot say, where `pgsql:` and socketmap deliver",
    "a key that answers nothing, before another row": "`pgsql:` goes on, and the catch-all gets the mail; "
    "mailmaps says unknown (docs/schema.md), and a file, which cannot say that, an empty value: later",
    "a key that `mailmaps filemaps` names": "what may not be delivered, or what a file cannot carry, is "
    "later there or, where there can be no such key, unknown (postfix/README.md)",
}

WIDE = f"wide@{MAIN}"
WIDE_TARGETS = [f"ann+target-{number}@{MAIN}" for number in range(200)]

PLUS = PAIRS[2]
"""recipient_delimiter = +, and extensions are propagated."""

TABLE = re.compile(r"(tcp|socketmap|pgsql|lmdb):")

GONE = f"gone@{CATCH}"
LOW = f"low@{MAIN}"
LONG = "x" * 600 + f"@{MAIN}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def proved(mail_postgres: EmbeddedPostgres) -> AsyncIterator[Proof]:
    async with proof(mail_postgres) as proved:
        yield proved


@pytest.mark.parametrize("settings", PAIRS, ids=str)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
async def test_replies_and_final_recipients_are_equal(proved: Proof, site: Site, settings: Settings) -> None:
    tally = await proved.prove(site, settings, COUNT, SEED)
    if tally.differences:
        count = f"{len(tally.differences)} differences among {tally.recipients} recipients:"
        pytest.fail("\n".join([count, *tally.differences]), pytrace=False)
    assert tally.delivered > COUNT / 4, "too few mailboxes"
    assert tally.unknown > COUNT / 8, "too few unknown users"


async def test_a_wrong_setting_is_seen(proved: Proof) -> None:
    """What the other tests would say if mailmaps were wrong."""
    settings = PAIRS[2]
    wrong = replace(settings, recipient_delimiter="-")
    tally = await proved.prove(postfixadmin.SITE, settings, COUNT, SEED, daemon_settings=wrong)
    assert any("info+ext@alias.test" in difference for difference in tally.differences)


async def test_value_over_4096_bytes(proved: Proof) -> None:
    assert len(KNOWN_DIFFERENCES) == 3, "each has a test"
    connection = await asyncpg.connect(proved.dsns["postfixadmin"])
    try:
        row = (WIDE, ",".join(WIDE_TARGETS), MAIN)
        await insert(connection, "alias", "address, goto, domain", [row])
    finally:
        await connection.close()
    difference = await _only_difference(proved, WIDE)
    assert "451 4.3.0" in difference.answers["B"]
    assert difference.answers["A"] == difference.answers["C"]
    assert all(f"virtual:{target}" in difference.answers["A"] for target in WIDE_TARGETS)


async def test_key_that_answers_nothing(proved: Proof) -> None:
    """An inactive account, and forwards that lead to one, where somebody else would get the mail."""
    async with _rows(
        proved,
        (
            "user_accounts",
            "username, uid, gid, email, mailbox, active",
            "gone",
            9100,
            5001,
            GONE,
            "gone",
            "0",
        ),
        ("mailmaps.forwards", "address, target", f"hushed@{CATCH}", f"asleep@{MAIN}"),
        ("mailmaps.forwards", "address, target", f"ann+off@{MAIN}", f"asleep@{MAIN}"),
        ("domains", "gid, domain, transport", 5900, f"mute.{RELAY}", ""),
        ("mailmaps.relay_recipients", "address", f"x@mute.{RELAY}"),
    ):
        catch = {f"gone@{CATCH}", f"gone+x@{CATCH}", f"GONE@{CATCH_ALIAS}", f"hushed+x@{CATCH}"}
        others = {f"ann+off@{MAIN}", f"x@mute.{RELAY}"}
        same = {f"asleep@{MAIN}", f"asleep+x@{MAIN}", f"going@{CATCH}", f"ann+of@{MAIN}"}
        differences, named = await _differences(proved, ours.SITE, PLUS, [*catch, *others, *same])
    assert differences.keys() == catch | others
    for address in catch:
        told = differences[address].answers
        assert "virtual:ann" in told["A"]
        assert "/ 550 5.1.1 " in told["B"]
        assert told["B"] == told["C"]
        assert "/ 451 4.3." in told["D"]
    # Its mailbox is looked for too, and found without the extension.
    told = differences[f"ann+off@{MAIN}"].answers
    assert "virtual:ann" in told["A"]
    assert told["A"] == told["B"] == told["C"]
    assert "/ 451 4.3." in told["D"]
    # A domain with an empty transport: with pgsql: its parent's is taken.
    told = differences[f"x@mute.{RELAY}"].answers
    assert told["B"] == told["C"] != told["A"]
    assert "/ 451 4.3." in told["D"]
    catch = {f"{user}@{domain}" for user in ("gone", "hushed") for domain in (CATCH, CATCH_ALIAS)}
    keys = {*catch, f"ann+off@{MAIN}", f"ann+off@{ALIAS}"}
    aliases = {f"virtual_alias_maps: {key!r}: it answers nothing" for key in keys}
    domain = f"transport_maps: 'mute.{RELAY}': it answers nothing"
    assert {line.partition(", but")[0] for line in named} == {*aliases, domain}


async def test_key_that_is_named(proved: Proof) -> None:
    """What may not be delivered, and what cannot be in a file."""
    value = "parameter, key, value"
    async with _rows(
        proved,
        ("user_accounts", "username, uid, gid, email, mailbox, active", "low", 99, 5001, LOW, "low", "1"),
        ("extra.rows", value, "check_recipient_access", f"tab@{MAIN}", "REJECT a\ttab"),
        ("extra.rows", value, "check_recipient_access", f"empty@{CATCH}", ""),
        ("extra.rows", value, "canonical_maps", LONG, f"ann@{MAIN}"),
        ("extra.rows", value, "canonical_maps", f"Upper@{MAIN}", f"ann@{MAIN}"),
        ("extra.rows", value, "canonical_maps", f"control\x01@{MAIN}", f"ann@{MAIN}"),
    ):
        asked = [LOW, f"low+x@{MAIN}", f"tab@{MAIN}", f"empty@{CATCH}", LONG, f"Upper@{MAIN}"]
        differences, named = await _differences(proved, ours.SITE, PLUS, asked)
    assert differences.keys() == {*asked} - {f"Upper@{MAIN}"}
    for address, difference in differences.items():
        told = difference.answers
        assert told["A"] == told["B"] == told["C"]
        assert ("/ 550 5.1.1 " if address == LONG else "/ 451 4.3.5 ") in told["D"]
    assert sorted(line.partition(", but")[0] for line in named) == sorted(
        [
            f"virtual_mailbox_maps: {LOW!r}: its uid 99 is below virtual_minimum_uid",
            f"check_recipient_access: 'tab@{MAIN}': its value has control characters",
            f"check_recipient_access: 'empty@{CATCH}': it answers nothing",
            f"canonical_maps: {LONG!r}: an lmdb: key has 1 to 510 bytes",
            f"canonical_maps: 'Upper@{MAIN}': it is not in lower case",
            f"canonical_maps: 'control\\x01@{MAIN}': it has control characters",
        ]
    )


async def test_a_file_that_is_not_current_is_seen(proved: Proof) -> None:
    """What the other tests would say if a row were missing in a file."""
    address = f"after.wards@{MAIN}"
    async with _instances(proved, ours.SITE, PLUS) as instances:
        assert instances.named == []
        async with _rows(proved, ("mailmaps.forwards", "address, target", address, f"ann@{MAIN}")):
            asking = partial(instances.daemon.ask, "virtual_alias_maps", address)
            assert await eventually_async(lambda: _is_found(asking), 10.0)
            comparison = Comparison(instances, proved.bench.sinks, "stale")
            _, (difference,) = await comparison.compare([Batch(0, "", "", (address,))])
    assert "virtual:ann" in difference.answers["C"]
    assert difference.answers["A"] == difference.answers["B"] == difference.answers["C"]
    assert "/ 550 5.1.1 " in difference.answers["D"]


async def test_only_files_are_read_where_there_are_files(proved: Proof) -> None:
    """D has no other table, nor has a table of `mailmaps filemaps` nobody who reads it."""
    async with _instances(proved, ours.SITE, PLUS) as instances:
        files = instances.postfixes["D"]
        values = [*files.settings.values(), *files.cleanup.values()]
        tables = {word for value in values for word in re.split(r"[\s,]+", value) if TABLE.match(word)}
        there = {f"lmdb:{path.with_suffix('')}" for path in (files.folder / FILES).glob("*.lmdb")}
    unread = {f"virtual_mailbox_maps{QUEUED}"}  # virtual(8) is an LMTP client here
    assert {Path(item).name for item in there - tables} == unread
    assert tables <= there


async def _is_found(ask: Callable[[], str]) -> bool:
    return (await asyncio.to_thread(ask)).startswith("200 ")


async def _only_difference(proved: Proof, address: str) -> Difference:
    differences, _ = await _differences(proved, postfixadmin.SITE, PAIRS[0], [address])
    return differences[address]


async def _differences(
    proved: Proof, site: Site, settings: Settings, addresses: Iterable[str]
) -> tuple[dict[str, Difference], list[str]]:
    """Those of these addresses, each sent alone; and what `mailmaps filemaps` named."""
    async with _instances(proved, site, settings) as instances:
        comparison = Comparison(instances, proved.bench.sinks, f"known-{time.monotonic_ns()}")
        _, differences = await comparison.compare([Batch(0, "", "", (address,)) for address in addresses])
        return {difference.address: difference for difference in differences}, instances.named


def _instances(proved: Proof, site: Site, settings: Settings) -> Instances:
    return Instances(proved.bench, site, proved.dsns[site.name], settings)


@asynccontextmanager
async def _rows(proved: Proof, *rows: tuple[object, ...]) -> AsyncIterator[None]:
    """Rows of our own site, each a table, its columns, and a value for each; gone at the end."""
    connection = await asyncpg.connect(proved.dsns[ours.SITE.name])
    try:
        for table, columns, *values in rows:
            await insert(connection, str(table), str(columns), [values])
        yield
        for table, columns, *values in reversed(rows):
            wanted = " AND ".join(f"{name} = ${n}" for n, name in enumerate(str(columns).split(","), 1))
            await connection.execute(f"DELETE FROM {table} WHERE {wanted}", *values)
    finally:
        await connection.close()


async def test_pairs_leave_no_pair_out() -> None:
    """Of any two settings, each value meets each value."""
    for first, second in combinations(range(4), 2):
        wanted = {(_values(choice)[first], _values(choice)[second]) for choice in PRODUCT}
        assert {(_values(choice)[first], _values(choice)[second]) for choice in PAIRS} == wanted


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
async def test_every_file_is_used(site: Site) -> None:
    assert {file for table in site.tables for file in site.sources(table)} == set(site.files)


def _values(settings: Settings) -> tuple[str, bool, bool, bool]:
    return (
        settings.recipient_delimiter,
        settings.propagate,
        settings.owner_request_special,
        settings.smtputf8_enable,
    )
