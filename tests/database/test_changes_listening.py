"""`Changes`: whoever follows is told everything, in order, and that nothing is heard when that is so.

The connection is a fake that says what PostgreSQL says: notifications of a statement come before its end.
The real one is in tests/mirrors/test_keeper.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailmaps.database import changes as module
from mailmaps.database.changes import CHANNEL, Changes
from mailmaps.database.connect import ConnectError

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

LONG = 30.0  # seconds; nothing here takes one

Told = tuple[Any, ...]


class FakeConnection:
    """`delivers`: notifications come through. `pid`: the server process that runs the statements."""

    def __init__(self, *, delivers: bool = True, pid: int = 7) -> None:
        self.delivers = delivers
        self.pid = pid
        self.is_terminated = False
        self.beats: list[str] = []
        self._tell: Callable[..., None] | None = None

    async def add_listener(self, channel: str, tell: Callable[..., None]) -> None:
        assert channel == CHANNEL
        self._tell = tell

    def get_server_pid(self) -> int:
        return 7

    async def fetchval(self, query: str) -> int:
        assert query == "SELECT pg_backend_pid()"
        await asyncio.sleep(0)
        return self.pid

    async def execute(self, query: str, channel: str, payload: str) -> None:
        assert query == "SELECT pg_notify($1, $2)"
        self.beats.append(payload)
        self.notify(payload)
        await asyncio.sleep(0)

    def notify(self, payload: str) -> None:
        if self.delivers and self._tell is not None:
            asyncio.get_running_loop().call_soon(self._tell, self, 1, CHANNEL, payload)

    def terminate(self) -> None:
        self.is_terminated = True


class Follower:
    """Writes down what it is told; `on` are to be done at one of its calls."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.on: dict[str, Callable[[], Any]] = {}
        self._more = asyncio.Event()

    def listening(self) -> None:
        self._note("listening")

    def keys_changed(self, group: str, keys: Sequence[str]) -> None:
        self._note("keys", group, list(keys))

    def group_changed(self, group: str) -> None:
        self._note("group", group)

    def relation_changed(self, relation: str) -> None:
        self._note("relation", relation)

    async def look(self, connection: Connection) -> None:
        self._note("look")
        if work := self.on.get("look"):
            await work()

    async def catch_up(self, connection: Connection) -> None:
        self._note("catch up")
        if work := self.on.get("catch up"):
            await work()

    def current_as_of(self, moment: float) -> None:
        self._note("current", moment)

    def unreachable(self) -> None:
        self._note("unreachable")

    def deaf(self) -> None:
        self._note("deaf")

    @property
    def words(self) -> list[str]:
        return [words[0] for words in self.told]

    def since(self, word: str) -> list[str]:
        """What came after the last one of these."""
        words = self.words
        return words[len(words) - words[::-1].index(word) :]

    async def hears(self, *words: str) -> None:
        """Wait until these have been told in this order, with others in between, from now on."""
        first = len(self.told)
        async with asyncio.timeout(LONG):
            while not _in_order(words, self.words[first:]):
                self._more.clear()
                await self._more.wait()

    def _note(self, *words: object) -> None:
        self.told.append(words)
        self._more.set()


def _in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)


@pytest.fixture
def follower() -> Follower:
    return Follower()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "HEARTBEAT": 0.05,
        "BEAT_LIMIT": 0.1,
        "WORK_LIMIT": 0.2,
        "FIRST_PAUSE": 0.01,
        "LONGEST_PAUSE": 0.02,
    }.items():
        monkeypatch.setattr(module, name, seconds, raising=False)


@asynccontextmanager
async def following(
    follower: Follower, *connections: FakeConnection | Exception
) -> AsyncIterator[tuple[Changes, list[FakeConnection]]]:
    """Listens on these, one after the other, and then on new ones for ever; with those that were taken."""
    rest = iter(connections)
    taken: list[FakeConnection] = []

    async def connect() -> Connection:
        await asyncio.sleep(0)
        one = next(rest, None) or FakeConnection()
        if isinstance(one, Exception):
            raise one
        taken.append(one)
        return cast("Connection", one)

    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    changes = Changes(connect, follower)
    changes.start()
    try:
        yield changes, taken
    finally:
        await changes.close()
    assert not failures
    assert all(one.is_terminated for one in taken)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_beat_comes_before_anything_is_followed(follower: Follower) -> None:
    async with following(follower) as (changes, taken):
        await follower.hears("listening", "look", "catch up", "current", "look", "catch up", "current")
        assert follower.words[:4] == ["listening", "look", "catch up", "current"]
        assert changes.trouble is None
        assert len(taken) == 1
        await changes.tried()
    beats = [json.loads(payload) for payload in taken[0].beats]
    assert all(list(beat) == ["beat"] for beat in beats)
    assert len({beat["beat"] for beat in beats}) == len(beats), "each is another one"


async def test_what_is_current_is_what_was_before_the_beat_was_sent(follower: Follower) -> None:
    """Not what was when it came back, nor when it was caught up with."""
    loop = asyncio.get_running_loop()
    moments: list[float] = []

    async def look() -> None:
        await asyncio.sleep(0)
        moments.append(loop.time())

    follower.on["look"] = look
    async with following(follower):
        await follower.hears("current", "current", "current")
    current = [words[1] for words in follower.told if words[0] == "current"]
    assert all(moment < looked for moment, looked in zip(current, moments, strict=False))
    assert current == sorted(current)


async def test_what_is_notified_is_told_in_order(follower: Follower) -> None:
    async with following(follower) as (_, taken):
        await follower.hears("current")
        start = len(follower.told)
        for told in (
            {"of": "addresses", "keys": ["a@ex.test", "@ex.test"]},
            {"of": "domains"},
            {"relation": "public.domains"},
            {"of": "addresses", "keys": []},
        ):
            taken[0].notify(json.dumps(told))
        await follower.hears("keys", "group", "relation", "keys", "catch up")
    heard: list[object] = [
        words for words in follower.told[start:] if words[0] in ("keys", "group", "relation")
    ]
    assert heard == [
        ("keys", "addresses", ["a@ex.test", "@ex.test"]),
        ("group", "domains"),
        ("relation", "public.domains"),
        ("keys", "addresses", []),
    ]


async def test_the_beat_of_another_daemon_is_not_ours(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FakeConnection()

    async def swap(query: str, channel: str, payload: str) -> None:
        one.beats.append(payload)
        one.notify('{"beat": "0123456789abcdef"}')

    monkeypatch.setattr(one, "execute", swap)
    async with following(follower, one) as (changes, _):
        await follower.hears("deaf")
        assert follower.words == ["deaf"]
        await changes.tried()


NONE_OF_OURS = ["", "hello", "null", "7", "[]", '"beat"', '{"of"', "1" * 7999, "[" * 7999, '{"of":' * 1300]

GARBAGE = [
    "{}",
    '{"keys": ["a@ex.test"]}',
    '{"of": "addresses", "keys": "a@ex.test"}',
    '{"of": "addresses", "keys": [1]}',
    '{"of": "addresses", "keys": null}',
    '{"of": "addresses", "keys": {"a": 1}}',
]


@pytest.mark.parametrize("payload", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_has_everything_read_again(follower: Follower, payload: str) -> None:
    async with following(follower) as (_, taken):
        await follower.hears("current")
        taken[0].notify(payload)
        await follower.hears("listening", "catch up", "current")
        assert len(taken) == 1, "nobody can end the connection with a payload"


@pytest.mark.parametrize("payload", NONE_OF_OURS, ids=range(len(NONE_OF_OURS)))
async def test_what_others_notify_changes_nothing(
    follower: Follower, payload: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(follower) as (_, taken):
        await follower.hears("current")
        before = list(follower.words)
        for _ in range(10):
            taken[0].notify(payload)
        assert follower.words == before
        assert len(taken) == 1, "nobody can end the connection with a payload"
    assert len([record for record in caplog.records if "none of ours" in record.message]) == 1


@given(
    st.text(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["of", "keys", "relation", "beat", "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(json.dumps)
)
@example('{"beat": null}')
@example('{"beat": ""}')
@example('{"of": null, "keys": ["\\ud800", "\\u0000"]}')
def test_no_payload_raises(payload: str) -> None:
    async def notify() -> None:
        Changes(cast(Any, None), Follower())._notified(None, 1, CHANNEL, payload)

    asyncio.run(notify())


async def test_it_is_said_once_that_nothing_comes_through(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first on: PgBouncer in transaction mode. Nobody is told to follow."""
    silent = [FakeConnection(delivers=False) for _ in range(3)]
    async with following(follower, *silent) as (changes, taken):
        await follower.hears("deaf")
        await changes.tried()
        trouble = changes.trouble
        assert trouble is not None
        assert "listen_dsn" in trouble
        await follower.hears("listening")
        assert follower.words[:2] == ["deaf", "listening"]
        assert len(taken) == 4
        assert changes.trouble is None
    assert len(errors(caplog)) == 1
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "changes are heard of again"
    ]


async def test_a_pooler_in_between_is_noticed(follower: Follower) -> None:
    """It passes our own beat on, and nobody else's notifications."""
    async with following(follower, FakeConnection(pid=8)) as (changes, _):
        await follower.hears("deaf")
        assert "pooler" in (changes.trouble or "")
        await follower.hears("listening")
        assert follower.words[:2] == ["deaf", "listening"]


async def test_beats_that_come_no_more_are_noticed(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """UNLISTEN, say: statements go through, notifications do not. It listens on another connection then."""
    async with following(follower) as (_, taken):
        await follower.hears("current", "current")
        taken[0].delivers = False
        await follower.hears("deaf", "listening", "current")
        assert len(taken) == 2
        assert taken[0].is_terminated
        assert "current" not in follower.since("deaf")[: follower.since("deaf").index("listening")]
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("call", ["look", "catch up"])
async def test_a_connection_that_hangs_is_noticed(
    follower: Follower, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Half-open: the statement never ends. Nobody else would ever look."""

    async def hang() -> None:
        await asyncio.Event().wait()

    async with following(follower) as (_, taken):
        await follower.hears("current")
        follower.on[call] = hang
        await follower.hears("deaf")
        follower.on.clear()
        await follower.hears("listening", "current")
        assert taken[0].is_terminated
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("call", ["look", "catch up"])
@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        asyncpg.InterfaceError("another operation is in progress"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        ConnectionResetError(),
        TimeoutError(),
        ZeroDivisionError("a defect of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_ends_the_following_it_is_taken_up_again(
    follower: Follower, call: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    async with following(follower) as (changes, taken):
        await follower.hears("current")
        follower.on[call] = fail
        await follower.hears("deaf")
        assert changes.trouble
        follower.on.clear()
        await follower.hears("listening", "look", "current")
        assert taken[0].is_terminated
    unknown = isinstance(error, ZeroDivisionError)
    assert len(errors(caplog)) == (2 if unknown else 1), "the second is the traceback"


async def test_pauses_grow_up_to_the_longest(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = monkeypatched_pauses(monkeypatch)
    away = [ConnectError("nobody is there"), OSError("defect: not a ConnectError")] * 4
    async with following(follower, *away):
        await follower.hears("deaf", "listening")
    assert pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert follower.words.count("deaf") == 1


async def test_the_pause_is_short_again_after_a_connection_that_lasted(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = monkeypatched_pauses(monkeypatch)
    monkeypatch.setattr(module, "LASTED", -1.0)
    async with following(follower, *[ConnectError("nobody is there")] * 5):
        await follower.hears("deaf", "listening")
    assert pauses == [0.2] * 5


def monkeypatched_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses it makes, without the jitter; none takes any time."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 5.0)
    monkeypatch.setattr("mailmaps.database.changes.random.uniform", lambda low, high: 1.0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("mailmaps.database.changes.asyncio.sleep", pause)
    return pauses


async def test_it_can_be_closed_while_it_connects(follower: Follower) -> None:
    begun, seen = asyncio.Event(), Counter[str]()

    async def connect() -> Connection:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen["cancelled"] += 1
            raise
        raise AssertionError

    changes = Changes(connect, follower)
    changes.start()
    await begun.wait()
    await changes.close()
    assert seen == {"cancelled": 1}
    assert follower.told == []


async def test_it_can_be_closed_at_any_time(follower: Follower) -> None:
    await Changes(cast(Any, None), follower).close()
    for turns in range(40):
        async with following(Follower()):
            for _ in range(turns):
                await asyncio.sleep(0)


async def test_those_who_have_work_can_have_it_done_soon(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 1000.0)
    async with following(follower) as (changes, taken):
        await follower.hears("look", "current")
        await asyncio.sleep(0)
        looks = follower.words.count("look")
        changes.wake()
        await follower.hears("catch up", "current")
        assert follower.words.count("look") == looks
        beats = len(taken[0].beats)
        changes.hurry()
        await follower.hears("look", "catch up", "current")
        assert len(taken[0].beats) == beats + 1
