"""One lookup from key to answer: question, memory, sources, the row, the answer.

The rule: `answer_now` never waits, so a hit is answered inside the connection's `data_received`;
`answer` may wait, for no longer than the deadline. Both end in the same row and the same answer.
However many clients ask one key at once, the sources are asked once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mailmaps.maps import search
from mailmaps.maps.answer import NOT_FOUND, Answer, CannotSay, Found, Unavailable
from mailmaps.maps.cache import NO_ROW, Cache, Row
from mailmaps.maps.sources import Rows, Source
from mailmaps.maps.tables import TableKind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about, for `mailmaps explain`.

    `said_by` is "cache", "memory" (a held table), "database" or "rule" (answered unasked). `put_back` is
    what of the key as it was asked went into the answer: the extension that the search had cut off.
    """

    candidates: tuple[str, ...]
    row: Row | None
    said_by: str
    answer: Answer
    put_back: str = ""


class Table:
    """One table: its kind, its sources in order, and what is remembered of them.

    `deadline` (seconds) bounds a lookup; `at_once` bounds how many ask the sources at a time, so that one
    slow table does not take every connection from the others. `volatile_ttl` (seconds) is how long an
    answer is remembered when a source's answers change with time alone.
    """

    def __init__(
        self,
        name: str,
        kind: TableKind,
        sources: Sequence[Source],
        rules: search.Rules,
        cache: Cache,
        *,
        deadline: float,
        at_once: int,
        volatile_ttl: float,
    ) -> None:
        self.name = name
        self.kind = kind
        self.sources = tuple(sources)
        # The first `pgsql:` table with an answer was the one that counted (smtpd_check.c:3948-3976).
        self._union = kind.union and not any(source.exactly for source in sources)
        self._exact = frozenset(source.name for source in sources if source.exactly)
        self._volatile_ttl = volatile_ttl
        self._bare_sources = tuple(s for s in self.sources if s.bare_keys or kind.bare_keys)
        self._rules = rules
        self._cache = cache
        self._deadline = deadline
        self._slots = asyncio.Semaphore(at_once)
        self._asked: dict[tuple[str, ...], asyncio.Task[Row]] = {}
        self._running: set[asyncio.Task[Row]] = set()
        self._epoch = 0
        self._trouble = ""

    def forget(self) -> None:
        """Drop what is remembered; a query already on its way is neither remembered nor joined."""
        self._epoch += 1
        self._asked.clear()
        self._cache.clear()

    async def idle(self) -> None:
        """Wait until every lookup that has begun has ended, at most its deadline."""
        if self._running:
            await asyncio.wait(self._running)

    def answer_now(self, key: bytes) -> Answer | None:
        """Answer without waiting, or None when the sources have to be asked."""
        question = self._question(key)
        if question is None:
            return NOT_FOUND
        row = self._cache.get(question.candidates) or self._known(question)
        return None if row is None else self._answer(question, row)

    async def answer(self, key: bytes) -> Answer:
        """Answer within the deadline; any failure to find out is `Unavailable`."""
        question = self._question(key)
        if question is None:
            return NOT_FOUND
        try:
            row = self._cache.get(question.candidates) or self._known(question)
            return self._answer(question, row or await self._asked_row(question))
        except CannotSay as error:
            if not error.about_key:
                self._note_trouble(str(error))
            return self._answer_after(error, question)[1]

    async def explain(self, key: bytes) -> Explanation:
        """Answer like `answer`, and say how."""
        question = self._question(key)
        if question is None:
            return Explanation((), None, "rule", NOT_FOUND)
        try:
            said_by, row = "cache", self._cache.get(question.candidates)
            if row is None:
                said_by, row = "memory", self._known(question)
            if row is None:
                said_by, row = "database", await self._asked_row(question)
        except CannotSay as error:
            row, answer = self._answer_after(error, question)
            return Explanation(question.candidates, row, "memory" if row else said_by, answer)
        put_back = ""
        if row.found and self.kind.propagates:
            put_back = search.extension_put_back(question, row.index, self._rules, self.kind.propagates)
        return Explanation(question.candidates, row, said_by, self._answer(question, row), put_back)

    def _answer_after(self, error: CannotSay, question: search.Question) -> tuple[Row | None, Answer]:
        """Memory may know more now: that the server is away, and so that its list has to do."""
        row = self._known(question)
        return row, Unavailable(str(error)) if row is None else self._answer(question, row)

    def _question(self, key: bytes) -> search.Question | None:
        """Take the key apart. None: no address or domain looks like this, so nothing can be found.

        No key holds NUL, and no table is asked for ill-formed UTF-8 unless smtputf8_enable is off
        (src/util/dict_utf8.c:144-152).
        """
        try:
            text = key.decode(errors="strict" if self._rules.smtputf8_enable else "surrogateescape")
        except UnicodeDecodeError:
            return None
        if not text or "\0" in text or not self._sources_for(text):
            return None
        return self.kind.walk(text, self._rules)

    def _sources_for(self, key: str) -> tuple[Source, ...]:
        return self.sources if "@" in key else self._bare_sources

    def _known(self, question: search.Question) -> Row | None:
        """The row, when every source that could overrule it answers from memory."""
        rows: list[Rows] = []
        sources = self._sources_for(question.candidates[0])
        for source in sources:
            known = source.known(question.candidates)
            if known is None:
                return None
            rows.append(known)
        found = (
            self._row(index, candidate, sources, rows) for index, candidate in enumerate(question.candidates)
        )
        return next((row for row in found if row), NO_ROW)

    def _note_trouble(self, trouble: str) -> None:
        """Log why the table cannot say, and that it can again: once each, not once a lookup."""
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                log.error("table=%s: cannot say: %s", self.name, trouble)
            else:
                log.warning("table=%s: answers again", self.name)

    async def _asked_row(self, question: search.Question) -> Row:
        """The row from the sources; joins the query that is already on its way for this key."""
        candidates = question.candidates
        task = self._asked.get(candidates)
        if task is None:
            task = asyncio.ensure_future(self._ask(question))
            self._asked[candidates] = task
            self._running.add(task)
            task.add_done_callback(lambda done: self._finished(candidates, done))
        return await asyncio.shield(task)  # one client that hangs up must not cancel it for the others

    def _finished(self, candidates: tuple[str, ...], task: asyncio.Task[Row]) -> None:
        self._running.discard(task)
        if self._asked.get(candidates) is task:
            del self._asked[candidates]
        if not task.cancelled():
            task.exception()  # read here, so that a failure nobody waits for any more is not reported

    async def _ask(self, question: search.Question) -> Row:
        epoch = self._epoch
        try:
            async with asyncio.timeout(self._deadline), self._slots:
                row = await self._search(question.candidates)
        except TimeoutError as error:
            raise CannotSay(f"no answer from the database within {self._deadline:g} s") from error
        self._note_trouble("")
        if epoch == self._epoch:
            volatile = any(source.volatile for source in self.sources)
            self._cache.put(question.candidates, row, *([self._volatile_ttl] if volatile else []))
        return row

    async def _search(self, candidates: tuple[str, ...]) -> Row:
        """Each candidate over all sources before the next (src/global/maps.c:187), and no further.

        A source that cannot say ends the search: what later ones have must not overrule it.
        """
        sources = self._sources_for(candidates[0])
        answers: dict[int, Rows] = {}  # of those that take all candidates at once
        for index, candidate in enumerate(candidates):
            rows: list[Rows] = []
            for number, source in enumerate(sources):
                if source.one_by_one:
                    rows.append(await source.fetch((candidate,)))
                else:
                    if number not in answers:
                        answers[number] = await source.fetch(candidates)
                    rows.append(answers[number])
                if candidate in rows[-1] and not self._union:
                    break
            if row := self._row(index, candidate, sources, rows):
                return row
        return NO_ROW

    def _row(self, index: int, candidate: str, sources: Sequence[Source], rows: Sequence[Rows]) -> Row | None:
        """The row of one candidate out of the answers of the first sources, in order; None: not known."""
        known = [
            (source.name, found[candidate])
            for source, found in zip(sources, rows, strict=False)
            if candidate in found
        ]
        if not known:
            return None
        if not self._union:
            return Row(index, known[0][1], known[0][0])
        merged = dict.fromkeys(value for _, values in known for value in values)
        return Row(index, tuple(merged), ", ".join(name for name, _ in known))

    def _answer(self, question: search.Question, row: Row) -> Answer:
        if not row.values:
            return NOT_FOUND
        if not self.kind.propagates:
            return Found(",".join(row.values))
        propagates, exactly = self.kind.propagates, row.source in self._exact
        return Found(
            search.put_back(question, row.index, row.values, self._rules, propagates, exactly=exactly)
        )
