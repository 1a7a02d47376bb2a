"""Questions that come together: how many statements they cost, and that nobody harms or delays another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
import pytest
from tests.conftest import Connection, Database, new_database

from mailmaps.config.settings import Database as DatabaseSettings
from mailmaps.database import batch as module
from mailmaps.database.batch import Batch
from mailmaps.database.connect import connect
from mailmaps.database.pool import Pool
from mailmaps.database.views import ViewSource
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.sources import Rows

LONG = 30.0  # seconds; nothing here takes one
Outcome = Rows | BaseException
T = TypeVar("T")


class Server:
    """Knows every key but those with "no" in them; says so when `go` lets it. `bad` raises for some keys."""

    def __init__(self) -> None:
        self.statements: list[list[str]] = []
        self.running = self.most = 0
        self.go = asyncio.Event()
        self.go.set()
        self.bad: Callable[[list[str]], BaseException | None] = lambda keys: None

    async def fetch(self, keys: list[str]) -> Rows:
        self.statements.append(keys)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await self.go.wait()
            if error := self.bad(keys):
                raise error
            return {key: (f"<{key}>",) for key in keys if "no" not in key}
        finally:
            self.running -= 1

    def refuses(self, word: str, error: BaseException) -> None:
        """Statements with such a key fail."""
        self.bad = lambda keys: error if any(word in key for key in keys) else None


@pytest.fixture
def server() -> Server:
    return Server()


def batch(server: Server, *, at_once: int = 2, deadline: float = LONG) -> Batch:
    return Batch("public.view", server.fetch, at_once=at_once, deadline=deadline)


async def asked(one: Batch, *questions: Sequence[str]) -> list[Outcome]:
    """All in one turn of the loop; nobody waits for ever."""
    async with asyncio.timeout(LONG):
        return await asyncio.gather(*map(one.ask, questions), return_exceptions=True)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_one_turn_of_the_loop_asks_is_one_statement(server: Server) -> None:
    answers = await asked(batch(server), ["a", "b"], ["c"], ["b", "no"], ["no"])
    assert answers == [{"a": ("<a>",), "b": ("<b>",)}, {"c": ("<c>",)}, {"b": ("<b>",)}, {}]
    assert server.statements == [["a", "b", "c", "no"]]


async def test_a_question_alone_waits_for_no_other(server: Server) -> None:
    one = batch(server)
    assert await one.ask(["a"]) == {"a": ("<a>",)}
    assert await one.ask(["b"]) == {"b": ("<b>",)}
    assert server.statements == [["a"], ["b"]]


async def test_what_comes_while_as_many_run_as_may_is_gathered(server: Server) -> None:
    one = batch(server, at_once=2)
    server.go.clear()
    asking = []
    for key in "abcdefg":
        asking.append(asyncio.ensure_future(one.ask([key])))
        await turns()
    assert server.statements == [["a"], ["b"]]
    server.go.set()
    assert [await each for each in asking] == [{key: (f"<{key}>",)} for key in "abcdefg"]
    assert server.statements == [["a"], ["b"], ["c", "d", "e", "f", "g"]]
    assert server.most == 2


async def test_a_statement_has_a_bounded_number_of_keys(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 10)
    answers = await asked(
        batch(server, at_once=2), *[[f"{number}x", f"{number}y", "z"] for number in range(50)]
    )
    assert all(isinstance(answer, dict) and len(answer) == 3 for answer in answers)
    assert max(map(len, server.statements)) <= 12
    assert server.most == 2


async def test_thousands_of_questions(server: Server) -> None:
    answers = await asked(batch(server, at_once=3), *[[str(number)] for number in range(5000)])
    assert answers == [{str(number): (f"<{number}>",)} for number in range(5000)]
    assert len(server.statements) == 10
    assert server.most == 3


async def test_a_bad_key_harms_nobody_else(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.refuses("bad", asyncpg.UntranslatableCharacterError("no such character in LATIN1"))
    one = batch(server)
    for _ in range(3):
        good, bad, other, both = await asked(one, ["a"], ["x", "bad"], ["no"], ["bad"])
        assert good == {"a": ("<a>",)}
        assert other == {}
        for refused in (bad, both):
            assert isinstance(refused, CannotSay)
            assert refused.about_key
            assert "LATIN1" in str(refused)
    assert len(caplog.records) == 1, "not once a lookup"


async def test_a_bad_key_that_is_asked_alone_is_one_too(server: Server) -> None:
    server.refuses("bad", asyncpg.UntranslatableCharacterError("no such character in LATIN1"))
    (refused,) = await asked(batch(server), ["bad"])
    assert isinstance(refused, CannotSay)
    assert refused.about_key
    assert len(server.statements) == 1


@pytest.mark.parametrize("error", [asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError])
async def test_what_is_wrong_with_the_view_is_asked_once(
    server: Server, error: type[asyncpg.PostgresError]
) -> None:
    """And is no key's fault, or nobody would hear of it."""
    server.refuses("", error("not for you"))
    answers = await asked(batch(server), *[[str(number)] for number in range(100)])
    assert all(isinstance(answer, CannotSay) and not answer.about_key for answer in answers)
    assert len(server.statements) == 1


async def test_what_takes_too_long_is_not_asked_again(server: Server) -> None:
    server.refuses("slow", asyncpg.QueryCanceledError("canceling statement due to statement timeout"))
    answers = await asked(batch(server), ["a"], ["slow"])
    assert all(isinstance(answer, CannotSay) and not answer.about_key for answer in answers)
    assert len(server.statements) == 1


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (CannotSay("database: nobody is there"), "database: nobody is there"),
        (TimeoutError(), "no answer from the database within 30 s"),
        (asyncpg.UndefinedTableError('relation "public.view" does not exist'), "does not exist"),
        (ZeroDivisionError("a defect of ours"), "internal error"),
        (asyncio.CancelledError(), "internal error"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_fails_everybody_is_told(
    server: Server, error: BaseException, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses("", error)
    one = batch(server, at_once=1)
    answers = await asked(one, ["a"], ["b"], ["c"])
    assert all(isinstance(answer, CannotSay) and why in str(answer) for answer in answers), answers
    defects = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(defects) == (1 if isinstance(error, ZeroDivisionError) else 0)
    server.bad = lambda keys: None
    assert await asked(one, ["a"]) == [{"a": ("<a>",)}], "and it goes on"


async def test_what_fails_while_questions_are_asked_apart(server: Server) -> None:
    """The connection goes in the middle: who has been answered is answered, the others are told."""
    statements = iter([asyncpg.DataError("bad"), None, CannotSay("database: gone")])
    server.bad = lambda keys: next(statements)
    answers = await asked(batch(server), ["a"], ["b"], ["c"])
    assert answers[0] == {"a": ("<a>",)}
    assert [str(answer) for answer in answers[1:]] == ["database: gone"] * 2
    assert len(server.statements) == 3


@pytest.mark.parametrize("is_apart", [False, True])
async def test_the_deadline_is_for_all_of_it(server: Server, is_apart: bool) -> None:
    """Also when each question by itself is answered a little before it."""

    async def fetch(keys: list[str]) -> Rows:
        server.statements.append(keys)
        if is_apart and len(keys) > 1:
            raise asyncpg.DataError("bad")
        await asyncio.sleep(0.05 if is_apart else LONG)
        return {}

    one = Batch("public.view", fetch, at_once=1, deadline=0.2)
    answers = await asked(one, *[[str(number)] for number in range(100)])
    late = [answer for answer in answers if isinstance(answer, CannotSay)]
    assert len(late) > 50
    assert {str(answer) for answer in late} == {"no answer from the database within 0.2 s"}
    assert len(server.statements) < 50


async def test_who_hangs_up_is_not_waited_for(server: Server) -> None:
    one = batch(server, at_once=1)
    server.go.clear()
    first, second, third = (asyncio.ensure_future(one.ask([key])) for key in "abc")
    await turns()
    others = [asyncio.ensure_future(one.ask([key])) for key in "de"]
    await turns()
    for cancelled in (second, others[0]):
        cancelled.cancel()
    await turns()
    server.go.set()
    assert await first == {"a": ("<a>",)}
    assert await third == {"c": ("<c>",)}
    assert await others[1] == {"e": ("<e>",)}
    assert second.cancelled()
    assert others[0].cancelled()
    assert server.statements == [["a", "b", "c"], ["e"]], "what nobody waits for is not asked"


async def test_when_all_hang_up_the_next_are_answered(server: Server) -> None:
    one = batch(server, at_once=1)
    server.go.clear()
    asking = [asyncio.ensure_future(one.ask([str(number)])) for number in range(1200)]
    await turns()
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    server.go.set()
    assert await asked(one, ["a"]) == [{"a": ("<a>",)}]


async def test_nobody_who_hung_up_is_in_the_way_of_those_asked_apart(server: Server) -> None:
    server.refuses("bad", asyncpg.DataError("bad"))
    one = batch(server)
    server.go.clear()
    gone, bad, good = (asyncio.ensure_future(one.ask([key])) for key in ("gone", "bad", "good"))
    await turns()
    gone.cancel()
    server.go.set()
    assert await good == {"good": ("<good>",)}
    with pytest.raises(CannotSay):
        await bad


class CountingPool:
    """A pool, and the statements that ran on it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.statements = 0

    async def run(self, work: Callable[[Connection], Awaitable[Rows]]) -> Rows:
        async def counted(connection: Connection) -> Rows:
            self.statements += 1
            return await work(connection)

        return await self._pool.run(counted)


@asynccontextmanager
async def source(
    database: Database, *, deadline: float = LONG
) -> AsyncIterator[tuple[ViewSource, CountingPool]]:
    """The view public.v on two connections."""
    of = DatabaseSettings(dsn=database.dsn, connections=2, lookup_deadline=deadline)
    pool = Pool(lambda: connect(of, for_lookups=True), 2)
    pool.start()
    await pool.tried()
    counting = CountingPool(pool)
    try:
        yield (
            ViewSource(
                counting,
                "public.v",
                name="view:public.v",
                bare_keys=False,
                replace={},
                at_once=1,
                deadline=deadline,
            ),
            counting,
        )
    finally:
        await pool.close()


async def fetched(one: ViewSource, *questions: str) -> list[Outcome]:
    async with asyncio.timeout(LONG):
        return await asyncio.gather(*(one.fetch([key]) for key in questions), return_exceptions=True)


@pytest.mark.postgres
async def test_a_key_that_the_servers_encoding_cannot_have(postgres: EmbeddedPostgres) -> None:
    async with new_database(postgres, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as database:
        await database.connection.execute(
            "CREATE TABLE v (key text, value text); INSERT INTO v VALUES ('a@ex.test', '1'), ('é@ex.test', '2')"  # noqa: E501
        )
        async with source(database) as (view, pool):
            a, cyrillic, e = await fetched(view, "a@ex.test", "ж@ex.test", "é@ex.test")
            assert a == {"a@ex.test": ("1",)}
            assert e == {"é@ex.test": ("2",)}
            assert isinstance(cyrillic, CannotSay)
            assert cyrillic.about_key
            assert pool.statements == 4
            assert await fetched(view, "a@ex.test", "é@ex.test") == [a, e]
            assert pool.statements == 5


@pytest.mark.postgres
async def test_a_view_that_fails_for_one_key(empty_database: Database) -> None:
    await empty_database.connection.execute(
        "CREATE VIEW v AS SELECT k AS key, (1 / (n - 5))::text AS value "
        "FROM (SELECT 'k' || n AS k, n FROM generate_series(1, 9) n) x"
    )
    async with source(empty_database) as (view, pool):
        answers = await fetched(view, *[f"k{number}" for number in range(1, 12)])
        bad = answers.pop(4)
        assert isinstance(bad, CannotSay)
        assert bad.about_key
        assert "division by zero" in str(bad)
        assert all(isinstance(answer, dict) for answer in answers)
        assert pool.statements == 12


@pytest.mark.postgres
async def test_the_connection_is_lost_under_it(empty_database: Database) -> None:
    """Another one answers."""
    await empty_database.connection.execute(
        "CREATE TABLE t (key text, value text); INSERT INTO t VALUES ('k', 'v'); CREATE TABLE gate (x int);"
        "CREATE VIEW v AS SELECT t.* FROM t WHERE NOT EXISTS (SELECT FROM gate)"
    )
    async with source(empty_database) as (view, _), empty_database.connect() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.ensure_future(fetched(view, "k", "x"))
            waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mailmaps' AND wait_event_type = 'Lock'"  # noqa: E501
            async with asyncio.timeout(LONG):
                while not (pid := await empty_database.connection.fetchval(waiting)):
                    await asyncio.sleep(0.01)
            await empty_database.connection.execute("SELECT pg_terminate_backend($1)", pid)
        assert await asking == [{"k": ("v",)}, {}]


@pytest.mark.postgres
async def test_a_view_that_is_locked_is_not_asked_again(empty_database: Database) -> None:
    await empty_database.connection.execute("CREATE TABLE v (key text, value text)")
    async with source(empty_database, deadline=1.0) as (view, pool), empty_database.connect() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE v IN ACCESS EXCLUSIVE MODE")
            answers = await fetched(view, "a", "b", "c")
        assert all(isinstance(answer, CannotSay) and not answer.about_key for answer in answers)
        assert pool.statements == 1
        assert await fetched(view, "a") == [{}]
