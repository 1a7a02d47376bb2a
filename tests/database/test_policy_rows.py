"""The schema mailpolicy as the role mailwriter: counting is atomic, numbered, and shared by all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic, time
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.conftest import Database

from mailmaps.config.settings import Database as DatabaseSettings
from mailmaps.database.connect import connect_to_write, write_database
from mailmaps.database.policy_rows import PolicyRows
from mailmaps.database.pool import Pool
from mailmaps.maps.answer import CannotSay
from mailmaps.policy.counting import Counted, Entry, Part
from mailmaps.policy.grants import Grant
from mailmaps.policy.limit_book import Override
from mailmaps.policy.observed import Event, Times
from mailmaps.policy.sums import UNLIMITED, Allowed, Sums


@pytest_asyncio.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    settings = write_database(DatabaseSettings(write_dsn=database.write_dsn))
    one = Pool(lambda: connect_to_write(settings), 4)
    one.start()
    yield one
    await one.close()


@pytest_asyncio.fixture
async def rows(pool: Pool) -> PolicyRows:
    return PolicyRows(pool, 10.0)


def entry(much: int, name: str = "jan", allowed: Allowed = UNLIMITED, since: float | None = None) -> Entry:
    return Entry((Part("login", name, allowed),), 1, much, since)


TEN = Allowed(recipients_hour=10)


async def test_a_batch_is_decided_one_mail_after_the_other(rows: PolicyRows) -> None:
    counted = await rows.count(
        uuid4(), 1, [entry(6, allowed=TEN), entry(6, allowed=TEN), entry(4, allowed=TEN)]
    )
    assert counted == [
        [Counted(True, Sums(1, 1, 6, 6))],
        [Counted(False, Sums(1, 1, 6, 6))],
        [Counted(True, Sums(2, 2, 10, 10))],
    ]


@pytest.mark.parametrize(
    ("allowed", "passes"),
    [
        (UNLIMITED, True),
        (Allowed(messages_hour=1), False),
        (Allowed(messages_day=1), False),
        (Allowed(recipients_hour=9), False),
        (Allowed(recipients_day=9), False),
        (Allowed(2, 2, 10, 10), True),
    ],
)
async def test_every_limit_counts(rows: PolicyRows, allowed: Allowed, passes: bool) -> None:
    counter = uuid4()
    await rows.count(counter, 1, [entry(5)])
    ((one,),) = await rows.count(counter, 2, [entry(5, allowed=allowed)])
    assert one.passed is passes


async def test_a_mail_counts_for_all_its_names_or_for_none(rows: PolicyRows) -> None:
    parts = (Part("login", "jan", Allowed(recipients_hour=100)), Part("domain", "a.example", TEN))
    counted = await rows.count(uuid4(), 1, [Entry(parts, 1, 8), Entry(parts, 1, 8)])
    assert [one.passed for one in counted[0] + counted[1]] == [True, True, False, False]
    assert {name: sums.recipients_day for _, name, sums in await rows.sent(None, 9)} == {
        "jan": 8,
        "a.example": 8,
    }


async def test_a_batch_counts_once_under_its_number(rows: PolicyRows) -> None:
    counter = uuid4()
    await rows.count(counter, 1, [entry(5)])
    assert await rows.count(counter, 1, [entry(5)]) == [[Counted(None, Sums(1, 1, 5, 5))]]
    assert await rows.count(counter, 2, [entry(5)]) == [[Counted(True, Sums(2, 2, 10, 10))]]
    assert await rows.count(uuid4(), 1, [entry(5)]) == [[Counted(True, Sums(3, 3, 15, 15))]]
    assert await rows.count(counter, 3, []) == []


async def test_what_was_let_through_before_counts_in_its_own_minute(rows: PolicyRows) -> None:
    hours_ago = monotonic() - 2 * 3600
    ((one,),) = await rows.count(uuid4(), 1, [entry(50, allowed=TEN, since=hours_ago)])
    assert one == Counted(True, Sums(0, 1, 0, 50))
    yesterday = monotonic() - 25 * 3600
    ((one,),) = await rows.count(uuid4(), 1, [entry(50, since=yesterday)])
    assert one.sums == Sums(0, 1, 0, 50)


async def test_a_batch_that_waits_in_two_sessions_counts_once(database: Database, rows: PolicyRows) -> None:
    """The first was given up and waits for the name all the same, when the second comes with its number."""
    counter = uuid4()
    async with database.connect() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('login jan', 0))")
        both = [asyncio.ensure_future(rows.count(counter, 1, [entry(7)])) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while await database.connection.fetchval(waiting) != 2:
            await asyncio.sleep(0.01)
    counted = [one for ((one,),) in await asyncio.gather(*both)]
    assert sorted(str(one.passed) for one in counted) == ["None", "True"]
    assert {one.sums for one in counted} == {Sums(1, 1, 7, 7)}


async def test_minutes_that_are_not_yet_count_for_nobody(database: Database, rows: PolicyRows) -> None:
    """A clock was ahead once."""
    await rows.count(uuid4(), 1, [entry(5)])
    await database.connection.execute("UPDATE mailpolicy.sent SET minute = minute + 600000")
    ((one,),) = await rows.count(uuid4(), 1, [entry(3)])
    assert one.sums == Sums(1, 1, 3, 3)
    assert await rows.sent(None, 9) == [("login", "jan", Sums(1, 1, 3, 3))]
    await rows.forget()
    assert await database.connection.fetchval("SELECT sum(recipients) FROM mailpolicy.sent") == 3


async def test_names_are_cleared_however_they_are_written(database: Database, rows: PolicyRows) -> None:
    await database.connection.execute(
        "INSERT INTO mailpolicy.sending_limits (scope, name, exempt, reason)"
        " VALUES ('login', 'Jan', true, 'by hand')"
    )
    assert await rows.clear("login", "jan")
    assert await rows.overrides() == []
    with pytest.raises(Exception, match="violates check constraint"):
        await database.connection.execute(
            "INSERT INTO mailpolicy.sending_limits (scope, name, reason, until)"
            " VALUES ('login', 'x', 'y', 'infinity')"
        )


@pytest.mark.parametrize("name", ["a\0b", "".join(chr(0x4E00 + n) for n in range(9000))])
async def test_what_cannot_be_a_row_is_said_to_be_that(rows: PolicyRows, name: str) -> None:
    with pytest.raises(CannotSay) as caught:
        await rows.count(uuid4(), 1, [entry(5, name)])
    assert caught.value.about_key


async def test_hosts_that_ask_at_once_never_pass_a_limit(rows: PolicyRows) -> None:
    """Names in one order or the other: nobody waits for ever for anybody."""
    limited = Allowed(recipients_hour=100)

    async def host(number: int) -> int:
        counter, passed = uuid4(), 0
        names = ("jan", "piet") if number % 2 else ("piet", "jan")
        for batch in range(1, 21):
            entries = [entry(3, name, limited) for name in names]
            passed += sum(one.passed is True for (one,) in await rows.count(counter, batch, entries))
        return passed

    passed = await asyncio.gather(*(host(number) for number in range(4)))
    assert sum(passed) == 2 * 33
    assert {sums.recipients_hour for _, _, sums in await rows.sent(None, 9)} == {99}


async def test_what_people_write_is_read_with_the_number_of_its_change(
    database: Database, rows: PolicyRows
) -> None:
    before = await rows.written()
    assert (before.grants, before.overrides) == ([], [])
    await database.connection.execute(
        "INSERT INTO mailpolicy.sender_grants (login, address, expires, networks, reason) VALUES"
        " ('jan', 'boss@a.example', to_timestamp(2000000000), NULL, 'holiday'),"
        " ('shop', '*', NULL, '{192.0.2.0/24,2001:db8::/32}', '')"
    )
    override = Override("domain", "a.example", (None, 5, 0, None), True, "why", 2e9)
    await rows.set(override)
    after = await rows.written()
    assert after.number > before.number
    assert after.grants[0] == Grant(after.grants[0].number, "jan", "boss@a.example", 2e9, (), "holiday")
    assert [str(network) for network in after.grants[1].networks] == ["192.0.2.0/24", "2001:db8::/32"]
    assert after.overrides == [override]
    await rows.set(Override("domain", "a.example", (1, None, None, None), False, "other"))
    assert (await rows.overrides())[0].numbers == (1, None, None, None)
    assert await rows.clear("domain", "a.example")
    assert not await rows.clear("domain", "a.example")
    assert await rows.number() > after.number


@pytest.mark.parametrize(
    "values",
    [
        "('jan', '*', NULL)",
        "('jan', 'nobody', NULL)",
        "('', 'a@b.example', NULL)",
        "('jan', 'a@b.example', '{}')",
        "('jan', 'a b@c d', NULL)",
    ],
)
async def test_grants_that_mean_nothing_are_not_taken(database: Database, values: str) -> None:
    with pytest.raises(Exception, match="violates check constraint"):
        await database.connection.execute(
            f"INSERT INTO mailpolicy.sender_grants (login, address, networks) VALUES {values}"
        )


async def test_release_and_forget(database: Database, rows: PolicyRows) -> None:
    await rows.count(uuid4(), 1, [entry(5), entry(6), entry(7, "piet")])
    assert await rows.release("login", "jan") == 2
    assert await rows.release("login", "jan") == 0
    assert [name for _, name, _ in await rows.sent(None, 9)] == ["piet"]
    await database.connection.execute("UPDATE mailpolicy.sent SET minute = minute - 1600")
    await database.connection.execute("UPDATE mailpolicy.counters SET seen = now() - interval '3 days'")
    await rows.forget()
    assert await database.connection.fetchval("SELECT count(*) FROM mailpolicy.sent") == 0
    assert await database.connection.fetchval("SELECT count(*) FROM mailpolicy.counters") == 0


async def test_forgetting_says_whether_there_is_more(database: Database, rows: PolicyRows) -> None:
    await database.connection.execute(
        "INSERT INTO mailpolicy.sent SELECT 'login', n::text, 1, 1, 1 FROM generate_series(1, 10001) AS n"
    )
    assert [await rows.forget(), await rows.forget()] == [True, False]
    assert await rows.sent(None, 9) == []


async def test_observed_senders_add_up(rows: PolicyRows) -> None:
    now = time()
    event = Event(int(now // 3600 * 3600), "jan", "boss@a.example", "192.0.2.1", "would be refused", "why")
    other = event._replace(login="", verdict="refused")
    await rows.observe({event: Times(3, now - 5, now), other: Times(1, now, now)})
    await rows.observe({event: Times(2, now - 9, now - 7)})
    found = await rows.observed(now - 60, 9)
    assert [(one.login, times.times, round(now - times.first)) for one, times in found] == [
        ("jan", 5, 9),
        ("", 1, 0),
    ]
    assert await rows.observed(now + 60, 9) == []


async def test_a_database_that_says_no_is_cannot_say(database: Database, rows: PolicyRows) -> None:
    await database.connection.execute("REVOKE ALL ON mailpolicy.sent FROM mailwriter")
    with pytest.raises(CannotSay, match="permission denied"):
        await rows.count(uuid4(), 1, [entry(5)])


async def test_mailwriter_reads_nothing_else(pool: Pool) -> None:
    for query in ("SELECT * FROM public.user_accounts", "SELECT * FROM mailmaps.logins"):
        with pytest.raises(CannotSay, match="permission denied"):
            await pool.fetch(query)
