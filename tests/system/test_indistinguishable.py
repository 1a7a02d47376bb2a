"""Mail cannot tell mailmaps from `pgsql:`: the files of real sites, one database, three Postfixes.

A has `pgsql:` and the files, B mailmaps by tcp, C mailmaps by socketmap; mailmaps has the same files. Every
reply and every final recipient, with the transport that took it, must be equal. This is the sample for
every day, in which each value of each setting meets each value of each other at each site; `make
differential N=100000` takes all settings and as many addresses as one likes (facts: differential/).

KNOWN_DIFFERENCES are all that no network table can avoid, each with its test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import combinations

import asyncpg
import pytest
import pytest_asyncio
from tests.system.differential.comparison import Comparison, Difference
from tests.system.differential.instances import Instances
from tests.system.differential.run import SITES, Proof, proof
from tests.system.differential.settings import PAIRS, PRODUCT, Settings
from tests.system.differential.transaction import Batch
from tests.system.sites import Site, insert, postfixadmin
from tests.system.sites.population import MAIN

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SEED = 20260101
COUNT = 240
"""Recipients for each site and choice of settings; a fifth of them are the special ones."""

KNOWN_DIFFERENCES = {
    "a value over 4096 bytes by tcp": "a reply is one line of at most 4096 bytes (util/dict_tcp.c:111); "
    "mailmaps then says that it cannot say, where `pgsql:` and socketmap deliver",
}

WIDE = f"wide@{MAIN}"
WIDE_TARGETS = [f"ann+target-{number}@{MAIN}" for number in range(200)]


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
    assert len(KNOWN_DIFFERENCES) == 1, "each has a test"
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


async def _only_difference(proved: Proof, address: str) -> Difference:
    dsn = proved.dsns["postfixadmin"]
    async with Instances(proved.bench, postfixadmin.SITE, dsn, PAIRS[0]) as instances:
        comparison = Comparison(instances, proved.bench.sinks, "known")
        _, (difference,) = await comparison.compare([Batch(0, "", "", (address,))])
    return difference


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
