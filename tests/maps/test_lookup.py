"""One lookup, with sources that are plain dictionaries: candidates, sources, memory, deadlines.

The sources here are fakes on purpose: they count questions, hang and fail on command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from mailmaps.maps.answer import NOT_FOUND, CannotSay, Found, Unavailable
from mailmaps.maps.cache import Cache
from mailmaps.maps.lookup import Table, Times
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import ABSENT, SILENT, UNSURE, Recalled, Rows
from mailmaps.maps.tables import KINDS

RULES = Rules(recipient_delimiter="+")


class DictSource:
    def __init__(self, rows: dict[str, tuple[str, ...]], name: str = "builtin", *, bare_keys: bool = False):
        self.rows = rows
        self.name = name
        self.bare_keys = bare_keys
        self.one_by_one = self.exactly = self.volatile = False
        self.steady = False
        self.age: float | None = None
        self.memory: dict[str, Recalled] = {}
        self.outdated: dict[str, Recalled] = {}
        self.asked: list[Sequence[str]] = []
        self.trouble: str | None = None
        self.gate: asyncio.Event | None = None

    def known(self, key: str) -> Recalled:
        return self.memory.get(key, SILENT)

    def stale(self, key: str) -> Recalled:
        return self.outdated.get(key, self.known(key))

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        self.asked.append(candidates)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise CannotSay(self.trouble)
        return {key: self.rows[key] for key in candidates if key in self.rows}


def table(
    name: str, *sources: DictSource, ttl: float = 30, deadline: float = 5, clock: Clock | None = None
) -> Table:
    cache = Cache(ttl=ttl, negative_ttl=ttl, size=100, negative_size=100, clock=clock or monotonic)
    times = Times(deadline=deadline, volatile_ttl=1.0, max_stale=100)
    return Table(name, KINDS[name], sources, RULES, cache, times)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


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


async def test_what_was_found_is_given_while_nobody_can_be_asked() -> None:
    clock, source = Clock(), DictSource({"a@a.b": ("box",)})
    mailboxes = table("virtual_mailbox_maps", source, clock=clock)
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    assert await mailboxes.answer(b"no@a.b") == NOT_FOUND
    source.trouble = "away"
    clock.now += 99
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    assert (await mailboxes.explain(b"a@a.b")).said_by == "stale"
    assert await mailboxes.answer(b"no@a.b") == Unavailable("away"), "nobody holds the whole table"
    mailboxes.forget()
    assert await mailboxes.answer(b"a@a.b") == Found("box"), "as good as can be had"
    clock.now += 2
    assert await mailboxes.answer(b"a@a.b") == Unavailable("away")


async def test_of_what_is_held_and_what_was_found_the_younger_is_given() -> None:
    clock, source = Clock(), DictSource({"a@a.b": ("box",)})
    mailboxes = table("virtual_mailbox_maps", source, clock=clock)
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    source.trouble = "away"
    source.outdated = {"a@a.b": ABSENT, "@a.b": ABSENT}
    clock.now += 60
    source.age = 70.0  # it was made, and found, after the proof of what is held
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    source.age = 50.0  # it was taken away before that
    assert await mailboxes.answer(b"a@a.b") == NOT_FOUND
    source.outdated = {}  # that is no longer believed, and nobody can be asked
    assert await mailboxes.answer(b"a@a.b") == Unavailable("away")
    file = DictSource({"a@a.b": ("box",)}, "pgsql:x")  # which cannot be held
    mixed = table("virtual_mailbox_maps", source, file, clock=clock)
    source.trouble = None
    assert await mixed.answer(b"a@a.b") == Found("box")
    source.trouble = file.trouble = "away"
    clock.now += 60
    assert await mixed.answer(b"a@a.b") == Found("box")


async def test_with_a_stale_answer_at_hand_a_slow_database_is_not_waited_for() -> None:
    source = DictSource({"a@a.b": ("box",)})
    mailboxes = table("virtual_mailbox_maps", source)
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    mailboxes.forget()
    source.gate = asyncio.Event()
    assert await mailboxes.answer(b"a@a.b") == Found("box")
    source.gate.set()
    await mailboxes.idle()
    assert mailboxes.answer_now(b"a@a.b") == Found("box"), "the query has gone on"


async def test_the_resolver_is_not_kept_waiting() -> None:
    source = DictSource({"a.b": ("virtual:",)})
    source.gate = asyncio.Event()
    domains = table("virtual_mailbox_domains", source)
    assert await domains.answer(b"no.b") == Unavailable("no answer from the database within 0.5 s")
    source.gate.set()
    assert await domains.answer(b"no.b") == NOT_FOUND


async def test_what_is_held_counts_only_after_all_that_goes_before() -> None:
    """Two sources, three candidates; one of them answers from memory, the other has to be asked."""
    held, asked = DictSource({}, "view:a.b"), DictSource({"u@a.b": ("asked@x.y",)}, "pgsql:b")
    held.memory = {"u+e@a.b": ABSENT, "u@a.b": ("held@x.y",), "@a.b": ABSENT}
    aliases = table("virtual_alias_maps", held, asked, ttl=0)
    assert aliases.answer_now(b"u+e@a.b") is None, "the second source may have the whole key"
    assert await aliases.answer(b"u+e@a.b") == Found("held+e@x.y")
    assert aliases.answer_now(b"u@a.b") == Found("held@x.y")
    turned = table("virtual_alias_maps", asked, held, ttl=0)
    assert turned.answer_now(b"u@a.b") is None
    assert await turned.answer(b"u@a.b") == Found("asked@x.y")
    asked.trouble = "away"
    assert await turned.answer(b"u@a.b") == Unavailable("away"), "the first may have it"


async def test_for_the_resolver_a_wider_key_is_good_enough() -> None:
    source = DictSource({"u@a.b": ("special:",)})
    source.memory = dict.fromkeys(("u@a.b", ".a.b", "x.y", "u@x.y", ".x.y", ".y", ".b", "*"), UNSURE)
    source.memory["a.b"] = ("virtual:",)
    domains = table("transport_maps", source)
    assert domains.answer_now(b"u@a.b") == Found("virtual:")
    assert domains.answer_now(b"u@x.y") is None, "nothing is found, so it has to be asked"
    assert await domains.answer(b"u@x.y") == NOT_FOUND


async def test_a_union_wants_all_sources() -> None:
    one, two = DictSource({}, "view:a.b"), DictSource({"u@a.b": ("ann",)}, "view:c.d")
    one.memory = {"u@a.b": ("bob",)}
    logins = table("smtpd_sender_login_maps", one, two)
    assert logins.answer_now(b"u@a.b") is None
    assert await logins.answer(b"u@a.b") == Found("bob,ann")


async def test_replies_are_kept_only_while_everything_is_steady() -> None:
    one, two = DictSource({}), DictSource({})
    mailboxes = table("virtual_mailbox_maps", one, two)
    steady = []
    for source in (one, two):
        source.steady = True
        steady.append(mailboxes.steady)
    assert steady == [False, True]
    told: list[int] = []
    mailboxes.forgotten.append(lambda: told.append(1))
    mailboxes.forget()
    assert told == [1]
