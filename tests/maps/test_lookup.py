"""One lookup, with sources that are plain dictionaries: candidates, sources, memory, deadlines.

The sources here are fakes on purpose: they count questions, hang and fail on command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mailmaps.maps.answer import NOT_FOUND, CannotSay, Found, Unavailable
from mailmaps.maps.cache import Cache
from mailmaps.maps.held import HeldSource
from mailmaps.maps.lookup import Table
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import Rows
from mailmaps.maps.tables import KINDS

RULES = Rules(recipient_delimiter="+")


class DictSource:
    def __init__(self, rows: dict[str, tuple[str, ...]], name: str = "builtin", *, bare_keys: bool = False):
        self.rows = rows
        self.name = name
        self.bare_keys = bare_keys
        self.one_by_one = self.exactly = self.volatile = False
        self.asked: list[Sequence[str]] = []
        self.trouble: str | None = None
        self.gate: asyncio.Event | None = None

    def known(self, candidates: Sequence[str]) -> Rows | None:
        return None

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        self.asked.append(candidates)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise CannotSay(self.trouble)
        return {key: self.rows[key] for key in candidates if key in self.rows}

    async def list_rows(self) -> Rows:
        if self.trouble is not None:
            raise CannotSay(self.trouble)
        return dict(self.rows)


def table(name: str, *sources: DictSource | HeldSource, ttl: float = 30, deadline: float = 5) -> Table:
    cache = Cache(ttl=ttl, negative_ttl=ttl, size=100, negative_size=100)
    return Table(name, KINDS[name], sources, RULES, cache, deadline=deadline, at_once=3, volatile_ttl=1.0)


async def test_a_row_serves_every_spelling_and_each_gets_its_own_reply() -> None:
    source = DictSource({"user@a.b": ("d@x.y",)})
    aliases = table("virtual_alias_maps", source)
    assert await aliases.answer(b"user+One@a.b") == Found("d+One@x.y")
    assert await aliases.answer(b"USER+one@A.B") == Found("d+one@x.y")
    assert aliases.answer_now(b"User+ONE@a.b") == Found("d+ONE@x.y")
    assert len(source.asked) == 1


async def test_with_everything_off_answers_are_the_same() -> None:
    source = DictSource({"user@a.b": ("d@x.y",)})
    aliases = table("virtual_alias_maps", source, ttl=0)
    for _ in range(2):
        assert await aliases.answer(b"user+One@a.b") == Found("d+One@x.y")
        assert await aliases.answer(b"none@a.b") == NOT_FOUND
    assert len(source.asked) == 4


async def test_an_address_that_answers_nothing_never_reaches_the_catch_all() -> None:
    aliases = table("virtual_alias_maps", DictSource({"gone@a.b": (), "@a.b": ("all@a.b",)}))
    assert await aliases.answer(b"gone@a.b") == NOT_FOUND
    assert await aliases.answer(b"gone+x@a.b") == NOT_FOUND
    assert await aliases.answer(b"other@a.b") == Found("all@a.b")


async def test_a_candidate_is_asked_of_every_source_before_the_next_candidate() -> None:
    catch_all = DictSource({"@a.b": ("all@a.b",)}, "first")
    exact = DictSource({"user@a.b": ("user@x.y",), "@a.b": ("never",)}, "second")
    aliases = table("virtual_alias_maps", catch_all, exact)
    assert await aliases.answer(b"user+e@a.b") == Found("user+e@x.y")
    assert await aliases.answer(b"other@a.b") == Found("all@a.b")


async def test_owners_are_merged_and_aliases_are_not() -> None:
    one, two = DictSource({"a@a.b": ("jan",)}, "one"), DictSource({"a@a.b": ("piet", "jan")}, "two")
    assert await table("smtpd_sender_login_maps", one, two).answer(b"a@a.b") == Found("jan,piet")
    assert await table("virtual_mailbox_maps", one, two).answer(b"a@a.b") == Found("jan")


async def test_a_source_that_cannot_say_stops_the_search() -> None:
    away, sure = DictSource({}), DictSource({"a@a.b": ("x@y",)})
    away.trouble = "the database is away"
    aliases = table("virtual_alias_maps", away, sure)
    assert await aliases.answer(b"a@a.b") == Unavailable("the database is away")
    assert aliases.answer_now(b"a@a.b") is None, "trouble must not be remembered"


async def test_a_bare_domain_is_unknown_to_the_builtin_alias_table_only() -> None:
    builtin, view = DictSource({"a.b": ("x",)}), DictSource({"a.b": ("x",)}, bare_keys=True)
    assert await table("virtual_alias_maps", builtin).answer(b"a.b") == NOT_FOUND
    assert builtin.asked == []
    assert await table("virtual_alias_maps", view).answer(b"a.b") == Found("x")
    assert await table("virtual_mailbox_domains", builtin).answer(b"a.b") == Found("x")


async def test_keys_that_postgresql_cannot_hold_are_not_asked() -> None:
    source = DictSource({})
    mailboxes = table("virtual_mailbox_maps", source)
    for key in (b"", b"a\0b@c.d", b"\xff@c.d", b"a@\xc3"):
        assert mailboxes.answer_now(key) == NOT_FOUND
    assert source.asked == []


async def test_one_query_however_many_ask_and_one_that_leaves_cancels_nobody() -> None:
    source = DictSource({"a@a.b": ("box",)})
    source.gate = asyncio.Event()
    mailboxes = table("virtual_mailbox_maps", source)
    first, *others = [asyncio.ensure_future(mailboxes.answer(b"a@a.b")) for _ in range(50)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*others) == [Found("box")] * 49
    assert len(source.asked) == 1


async def test_a_slow_table_asks_only_so_much_at_once() -> None:
    source = DictSource({f"u{n}@a.b": ("box",) for n in range(9)})
    source.gate = asyncio.Event()
    mailboxes = table("virtual_mailbox_maps", source)
    asked = [asyncio.ensure_future(mailboxes.answer(b"u%d@a.b" % n)) for n in range(9)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(source.asked) == 3
    source.gate.set()
    assert await asyncio.gather(*asked) == [Found("box")] * 9


async def test_over_the_deadline_is_cannot_say_and_is_not_remembered() -> None:
    source = DictSource({"a@a.b": ("box",)})
    source.gate = asyncio.Event()
    mailboxes = table("virtual_mailbox_maps", source, deadline=0.01)
    assert isinstance(await mailboxes.answer(b"a@a.b"), Unavailable)
    source.gate.set()
    assert await mailboxes.answer(b"a@a.b") == Found("box")


async def test_a_query_on_its_way_when_the_table_changes_is_not_remembered() -> None:
    source = DictSource({"a@a.b": ("old",)})
    source.gate = asyncio.Event()
    mailboxes = table("virtual_mailbox_maps", source)
    asked = asyncio.ensure_future(mailboxes.answer(b"a@a.b"))
    while not source.asked:
        await asyncio.sleep(0)
    mailboxes.forget()
    again = asyncio.ensure_future(mailboxes.answer(b"a@a.b"))
    while len(source.asked) < 2:
        await asyncio.sleep(0)
    mailboxes.forget()
    source.gate.set()
    assert list(await asyncio.gather(asked, again)) == [Found("old"), Found("old")]
    assert mailboxes.answer_now(b"a@a.b") is None


async def test_explain_says_who_said_it() -> None:
    source = DictSource({"@a.b": ("all@a.b",)})
    aliases = table("virtual_alias_maps", source)
    explanation = await aliases.explain(b"u+e@a.b")
    assert explanation.candidates == ("u+e@a.b", "u@a.b", "@a.b")
    assert explanation.said_by == "database"
    assert explanation.row is not None
    assert (explanation.row.index, explanation.row.source) == (2, "builtin")
    assert explanation.put_back == ""
    assert (await aliases.explain(b"u+e@a.b")).said_by == "cache"
    source.rows["v@a.b"] = ("w@a.b",)
    assert (await aliases.explain(b"v+E@a.b")).put_back == "+E"
    assert (await aliases.explain(b"a.b")).said_by == "rule"
    source.trouble = "away"
    assert (await aliases.explain(b"new@c.d")).answer == Unavailable("away")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def held(source: DictSource, clock: Clock) -> HeldSource:
    return HeldSource(
        source,
        source.list_rows,
        away=lambda: source.trouble == "away",
        deadline=5,
        max_stale=100,
        max_stale_not_found=10,
        clock=clock,
    )


async def test_a_held_table_answers_while_the_database_is_away() -> None:
    clock, source = Clock(), DictSource({"a.b": ("virtual:",)})
    one = held(source, clock)
    assert await one.refresh() is True
    assert await one.refresh() is False
    domains = table("virtual_mailbox_domains", one, ttl=0)
    assert domains.answer_now(b"A.b") == Found("virtual:")
    source.rows["new.b"] = ("virtual:",)
    assert await domains.answer(b"new.b") == Found("virtual:"), "made a second ago"
    source.trouble = "away"
    assert await domains.answer(b"no.b") == NOT_FOUND
    clock.now += 11
    assert await domains.answer(b"no.b") == Unavailable("away"), "the list is too old to say no"
    assert domains.answer_now(b"a.b") == Found("virtual:")
    clock.now += 100
    assert await domains.answer(b"a.b") == Unavailable("away")


async def test_a_held_table_says_no_only_while_the_server_is_away() -> None:
    clock, source = Clock(), DictSource({"a.b": ("virtual:",)})
    one = held(source, clock)
    await one.refresh()
    domains = table("virtual_mailbox_domains", one)
    source.trouble = "permission denied"
    assert await domains.answer(b"new.b") == Unavailable("permission denied")
    source.trouble = "away"
    assert await domains.answer(b"new.b") == NOT_FOUND
    source.trouble, source.rows["new.b"] = None, ("virtual:",)
    assert await domains.answer(b"new.b") == Found("virtual:"), "no memory of the outage"


async def test_a_held_table_waits_half_a_second_and_then_cannot_say() -> None:
    source = DictSource({"a.b": ("virtual:",)})
    one = held(source, Clock())
    await one.refresh()
    source.gate = asyncio.Event()
    domains = table("virtual_mailbox_domains", one)
    assert await domains.answer(b"no.b") == Unavailable("no answer from the database within 0.5 s")
    source.gate.set()
    assert await domains.answer(b"no.b") == NOT_FOUND


async def test_a_table_never_read_cannot_say() -> None:
    source = DictSource({})
    source.trouble = "away"
    assert await table("transport_maps", held(source, Clock())).answer(b"a.b") == Unavailable("away")
