"""One lookup from key to answer: question, memory, sources, the row, the answer.

The rule: `begin` never waits. What memory knows is answered inside the connection's `data_received`; all else
is asked (`mailmaps.maps.asking`), and answered within the deadline. Both end in the same row and answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, TypeVar

from mailmaps.maps import search
from mailmaps.maps.answer import NOT_FOUND, Answer, CannotSay, Found, Unavailable
from mailmaps.maps.asking import Asking, Outcome
from mailmaps.maps.cache import NO_ROW, Cache, Row
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.mirrored import MirroredSource
from mailmaps.maps.plain import PlainAddresses, PlainSearch
from mailmaps.maps.sources import ABSENT, SILENT, UNSURE, Rows, Source, Values
from mailmaps.maps.tables import TableKind
from mailmaps.maps.trouble import Trouble

T = TypeVar("T")
_FoundOut = tuple[str, Row | None, Answer]  # by whom, what, and what it means

# Seconds until a question is given up when there is a stale answer, or when the resolver asks: one
# trivial-rewrite(8) serves everybody, and while it waits, no mail is accepted at all. The query goes on.
PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about, for `mailmaps explain`.

    `said_by` is "mirror" (all rows are held, `mailmaps status` says how old), "cache" (asked not long ago),
    "database", "stale" (what was found or held, after nobody could be asked) or "rule" (answered unasked).
    `put_back` is what of the key as it was asked went into the answer: the extension that the search had
    cut off.
    """

    candidates: tuple[str, ...]
    row: Row | None
    said_by: str
    answer: Answer
    put_back: str = ""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: `deadline` of a lookup; `volatile_ttl`, for which an answer is remembered when it may
    change with time alone; `max_stale`, for which what was found is given when nobody can be asked."""

    deadline: float
    volatile_ttl: float
    max_stale: float


class Located(NamedTuple):
    """The row of a key, with the question that found it; `row` None: nobody can say now, and `why`.

    `question` is None for a key that nothing can be found for.
    """

    question: search.Question | None
    row: Row | None
    why: str = ""


class Table:
    """One table: its kind, its sources in order, and what is remembered of them."""

    def __init__(
        self,
        name: str,
        kind: TableKind,
        sources: Sequence[Source],
        rules: search.Rules,
        cache: Cache,
        times: Times,
        counts: LookupCounts | None = None,
    ) -> None:
        """`counts` are those of the table of this name before, if there was one."""
        self.name = name
        self.counts = LookupCounts() if counts is None else counts
        self.kind = kind
        self.sources = tuple(sources)
        self.forgotten: list[Callable[[], None]] = []  # called when replies that were kept are void
        # The first `pgsql:` table with an answer was the one that counted (smtpd_check.c:3948-3976).
        self._union = kind.union and not any(source.exactly for source in sources)
        self._exact = frozenset(source.name for source in sources if source.exactly)
        self._held = tuple(source.rows for source in self.sources if isinstance(source, MirroredSource))
        self._bare_sources = tuple(s for s in self.sources if s.bare_keys or kind.bare_keys)
        self._plain = PlainAddresses(rules) if search.is_address_walk(kind.walk) else None
        self._plain_search = self._short_way(self._plain)
        self._rules = rules
        self._cache = cache
        self._times = times
        self._asking = Asking(self._ask, times.deadline)
        self._epoch = 0
        self._trouble = Trouble(name)

    @property
    def steady(self) -> bool:
        """Whether every answer comes from memory and holds until `forget`: replies may be kept."""
        for source in self.sources:  # noqa: SIM110  # `all` would make a generator, for each request
            if not source.steady:
                return False
        return True

    def forget(self) -> None:
        """Drop what is remembered; a query already on its way is neither remembered nor joined."""
        self._epoch += 1
        self._asking.part()
        self._cache.outdate()
        for tell in self.forgotten:
            tell()

    async def idle(self) -> None:
        """Wait until every lookup that has begun has ended, at most its deadline."""
        await self._asking.idle()

    def begin(self, key: bytes) -> Answer | asyncio.Future[Answer]:
        """Answer without waiting, or begin to ask: the answer comes within the deadline.

        Any failure to find out is `Unavailable`; what the future raises is a fault of ours.
        """
        if self._plain_search is not None and (answer := self._plain_search.answer(key)):
            return answer
        question = self._question(key)
        if question is None:
            return NOT_FOUND
        row = self._recalled(question)[1]
        if row is not None:
            if not self._is_proven:
                self.counts.stale += 1
            return self._answer(question, row)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        began = monotonic()

        def counted(found_out: _FoundOut) -> Answer:
            self.counts.missed(monotonic() - began)
            if found_out[0] == "stale":
                self.counts.stale += 1
            return found_out[2]

        self._find_out(question, future, counted)
        return future

    def begin_row(self, key: bytes) -> Located | asyncio.Future[Located]:
        """As `begin`, for those who make more of the row than an answer."""
        question = self._question(key)
        if question is None:
            return Located(None, NO_ROW)
        row = self._recalled(question)[1]
        if row is not None:
            return Located(question, row)
        future: asyncio.Future[Located] = asyncio.get_running_loop().create_future()
        self._find_out(question, future, lambda found: Located(question, found[1], _why(found[2])))
        return future

    def answer_now(self, key: bytes) -> Answer | None:
        """Answer without waiting, or None when the sources have to be asked."""
        question = self._question(key)
        if question is None:
            return NOT_FOUND
        row = self._recalled(question)[1]
        return None if row is None else self._answer(question, row)

    async def answer(self, key: bytes) -> Answer:
        """As `begin`."""
        answer = self.begin(key)
        return await answer if isinstance(answer, asyncio.Future) else answer

    async def explain(self, key: bytes) -> Explanation:
        """Answer like `answer`, and say how."""
        question = self._question(key)
        if question is None:
            return Explanation((), None, "rule", NOT_FOUND)
        said_by, row = self._recalled(question)
        if row is not None:
            answer = self._answer(question, row)
        else:
            future: asyncio.Future[_FoundOut] = asyncio.get_running_loop().create_future()
            self._find_out(question, future, lambda found_out: found_out)
            said_by, row, answer = await future
        put_back = ""
        if row is not None and row.found and self.kind.propagates:
            put_back = search.extension_put_back(question, row.index, self._rules, self.kind.propagates)
        return Explanation(question.candidates, row, said_by, answer, put_back)

    @property
    def _is_proven(self) -> bool:
        """Whether what is held is known to be what the database has."""
        for rows in self._held:  # noqa: SIM110  # as in `steady`
            if not rows.proven:
                return False
        return True

    def _recalled(self, question: search.Question) -> tuple[str, Row | None]:
        """What memory has, and which."""
        if row := self._remembered(question):
            return "mirror", row
        return "cache", self._cache.get(question.candidates)

    def _find_out(
        self, question: search.Question, future: asyncio.Future[T], wanted: Callable[[_FoundOut], T]
    ) -> None:
        """Ask the sources; the future gets what is wanted of the outcome."""

        def tell(outcome: Outcome) -> None:
            if future.done():
                return
            try:
                future.set_result(wanted(self._concluded(question, outcome)))
            except Exception as error:
                future.set_exception(error)

        self._asking.ask(question.candidates, tell)
        if self.kind.held or self._stale(question) is not None:
            late = CannotSay(f"no answer from the database within {PATIENCE:g} s")
            timer = asyncio.get_running_loop().call_later(PATIENCE, tell, late)
            future.add_done_callback(lambda _: timer.cancel())

    def _concluded(self, question: search.Question, outcome: Outcome) -> _FoundOut:
        if isinstance(outcome, Row):
            return "database", outcome, self._answer(question, outcome)
        if not isinstance(outcome, CannotSay):
            raise outcome
        if not outcome.about_key:
            self._trouble.occurs(str(outcome))
        if row := self._stale(question):
            return "stale", row, self._answer(question, row)
        return "database", None, Unavailable(str(outcome))

    def _short_way(self, addresses: PlainAddresses | None) -> PlainSearch | None:
        """There is one where all rows are held and the candidates are addresses."""
        source = self.sources[0]
        if addresses is None or len(self.sources) != 1 or not isinstance(source, MirroredSource):
            return None
        return PlainSearch(source.rows, addresses)

    def _question(self, key: bytes) -> search.Question | None:
        """Take the key apart. None: no address or domain looks like this, so nothing can be found.

        No key holds NUL, and no table is asked for ill-formed UTF-8 unless smtputf8_enable is off
        (src/util/dict_utf8.c:144-152).
        """
        if self._plain is not None and (plain := self._plain.question(key)):
            return plain
        try:
            text = key.decode(errors="strict" if self._rules.smtputf8_enable else "surrogateescape")
        except UnicodeDecodeError:
            return None
        if not text or "\0" in text or not self._sources_for(text):
            return None
        return self.kind.walk(text, self._rules)

    def _sources_for(self, key: str) -> tuple[Source, ...]:
        return self.sources if "@" in key else self._bare_sources

    def _remembered(self, question: search.Question, *, stale: bool = False) -> Row | None:
        """The row, if every source that could overrule it answers from memory.

        What is held for a candidate counts only after all sources have said "not found" for those before it,
        and the sources before for itself.
        """
        sources = self._sources_for(question.candidates[0])
        is_sure = True
        for index, candidate in enumerate(question.candidates):
            found: list[tuple[str, Values]] = []
            for source in sources:
                values = source.stale(candidate) if stale else source.known(candidate)
                if values is SILENT:
                    return None
                is_sure = is_sure and values is not UNSURE
                if isinstance(values, tuple):
                    found.append((source.name, values))
                    if not self._union:
                        break
            if found:
                return _row(index, found)
        return NO_ROW if is_sure else None

    def _stale(self, question: search.Question) -> Row | None:
        """The row while nobody can be asked: what is held, or what was found by asking since."""
        longest = self._times.max_stale
        ages = [source.age for source in self.sources]
        if None not in ages:
            longest = min([longest, *(age for age in ages if age is not None)])
        found = self._cache.stale(question.candidates, longest)
        return found or self._remembered(question, stale=True)

    async def _ask(self, candidates: tuple[str, ...]) -> Row:
        epoch = self._epoch
        row = await self._search(candidates)
        self._trouble.is_not_seen()
        if epoch == self._epoch:
            volatile = any(source.volatile for source in self.sources)
            self._cache.put(candidates, row, *([self._times.volatile_ttl] if volatile else []))
        return row

    async def _search(self, candidates: tuple[str, ...]) -> Row:
        """Each candidate over all sources before the next (src/global/maps.c:187), and no further.

        A source that cannot say ends the search: what later ones have must not overrule it.
        """
        sources = self._sources_for(candidates[0])
        if len(sources) == 1 and not sources[0].one_by_one:  # the usual, without the ceremony
            rows = await sources[0].fetch(candidates)
            found_at = next((i for i, candidate in enumerate(candidates) if candidate in rows), None)
            return NO_ROW if found_at is None else Row(found_at, rows[candidates[found_at]], sources[0].name)
        answers: dict[int, Rows] = {}  # of those that take all candidates at once
        for index, candidate in enumerate(candidates):
            found: list[tuple[str, Values]] = []
            for number, source in enumerate(sources):
                values = source.known(candidate)
                if values in (SILENT, UNSURE) and source.one_by_one:
                    values = (await source.fetch((candidate,))).get(candidate, ABSENT)
                elif values in (SILENT, UNSURE):
                    if number not in answers:
                        answers[number] = await source.fetch(candidates)
                    values = answers[number].get(candidate, ABSENT)
                if isinstance(values, tuple):
                    found.append((source.name, values))
                    if not self._union:
                        break
            if found:
                return _row(index, found)
        return NO_ROW

    def _answer(self, question: search.Question, row: Row) -> Answer:
        if not row.values:
            return NOT_FOUND
        if not self.kind.propagates:
            return Found(",".join(row.values))
        propagates, exactly = self.kind.propagates, row.source in self._exact
        return Found(
            search.put_back(question, row.index, row.values, self._rules, propagates, exactly=exactly)
        )


def _why(answer: Answer) -> str:
    return answer.reason if isinstance(answer, Unavailable) else ""


def _row(index: int, found: Sequence[tuple[str, Values]]) -> Row:
    """What the sources, in order, have for one candidate; several only where a union is made of them."""
    if len(found) == 1:
        return Row(index, found[0][1], found[0][0])
    merged = dict.fromkeys(value for _, values in found for value in values)
    return Row(index, tuple(merged), ", ".join(name for name, _ in found), tuple(found))
