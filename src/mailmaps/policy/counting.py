"""Has mails counted in the database, a batch at a time, and goes on without it while it is away.

The mails of all clients that ask while one statement is under way go into the next one. A batch has a number,
under which it counts once, so that one whose fate a broken connection hid can be sent again. What memory let
through while the database was away is counted later, by the minute in which it was.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, Protocol
from uuid import UUID, uuid4

from mailmaps.logs import events
from mailmaps.maps.answer import CannotSay
from mailmaps.policy.action import Action
from mailmaps.policy.mail import Mail
from mailmaps.policy.sums import Allowed, Scope, Sums

log = events(__name__)

# Seconds for one batch; smtpd(8) waits, and a postmaster would rather have an inexact limit than a slow
# queue.
DEADLINE = 1.5

# Seconds until a database that failed is asked again; the second is the longest pause.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0

# Seconds between two looks whether all is answered.
PAUSE_OF_IDLE = 0.02

# Mails of one statement: some milliseconds.
MOST_AT_ONCE = 256

# Mails that were let through in an outage and are still to be counted: by login and minute, so that this is
# an outage of hours at a large site. What is more is not counted there.
MOST_LATE = 100_000


class Part(NamedTuple):
    """One name that a mail counts for."""

    scope: Scope
    name: str
    allowed: Allowed


class Counted(NamedTuple):
    """What the database says of one part: whether its mail is counted, and what its name has sent now.

    None: the batch was counted before, when the answer did not reach us.
    """

    passed: bool | None
    sums: Sums


class Entry(NamedTuple):
    """Mail for the database; `since` (time.monotonic()): it was let through then, and is only counted."""

    parts: tuple[Part, ...]
    messages: int
    recipients: int
    since: float | None = None


class SharedCount(Protocol):
    """What limits need of the database (`mailmaps.database.policy_rows.PolicyRows`)."""

    @property
    def away(self) -> str | None:
        """Why it cannot be reached, while that is so."""

    async def count(self, counter: UUID, batch: int, entries: Sequence[Entry]) -> list[list[Counted]]:
        """Decide and count, for each entry its parts. Raises `CannotSay`. A batch counts once."""


@dataclass(slots=True)
class Asked:
    """One mail that waits for the database."""

    entry: Entry
    mail: Mail
    future: asyncio.Future[Action]


class Judge(Protocol):
    """Who makes an answer of what is counted (`mailmaps.policy.limits.Limits`).

    The first two answer the mail's client, and say whether it goes out although the database has not counted
    it.
    """

    def decide_here(self, asked: Asked) -> bool:
        """By memory: the database does not say."""

    def settle(self, asked: Asked, results: Sequence[Counted]) -> bool:
        """By what the database said."""

    def told(self, entry: Entry, results: Sequence[Counted]) -> None:
        """What the database knows of the names of a mail."""


Late = OrderedDict[tuple[int, tuple[Part, ...]], list[int]]


class Counting:
    """What waits for the database, and what is still to be counted there."""

    def __init__(self, shared: SharedCount, judge: Judge, before: Counting | None = None) -> None:
        """What `before` has still to be counted is ours too."""
        self._shared = shared
        self._judge = judge
        self._asked: deque[Asked] = deque()
        self._open: set[asyncio.Future[Action]] = set()  # asked for, and not answered
        self._late: Late = OrderedDict() if before is None else before._late
        self._counter, self._batch = uuid4(), 1
        self._again: list[Entry] = []  # a batch whose fate is not known, under the number it had
        self._trouble: str | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._task = asyncio.ensure_future(self._count())

    async def close(self) -> None:
        """Count what is still to be counted, if that can be done at once, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while (self._late or self._again or self._asked) and await self._count_some():
            pass
        self._answer_all()
        for entry in self._again:  # for those who come after us
            self._put_back(entry)

    async def idle(self) -> None:
        """Wait until nobody waits, at most the deadline of a batch."""
        waited = 0.0
        while self._open and waited < DEADLINE:
            await asyncio.sleep(PAUSE_OF_IDLE)
            waited += PAUSE_OF_IDLE

    @property
    def trouble(self) -> str | None:
        """Why the database does not count now, while that is so."""
        return self._trouble or self._shared.away

    @property
    def left(self) -> int:
        """How much is still to be counted."""
        return len(self._late) + len(self._again)

    def ask(self, entry: Entry, mail: Mail) -> asyncio.Future[Action]:
        """Have a mail decided; its future gets the judge's answer."""
        asked = Asked(entry, mail, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._open.add(asked.future)
        asked.future.add_done_callback(self._open.discard)
        self._wanted.set()
        return asked.future

    def count_later(self, entry: Entry) -> None:
        """It goes out now, and is counted when that is possible."""
        self._put_back(entry._replace(since=monotonic()))
        self._wanted.set()

    def forget(self, scope: Scope, name: str) -> None:
        """What is still to be counted for a name need not be."""
        for key in [one for one in self._late if any(part[:2] == (scope, name) for part in one[1])]:
            del self._late[key]

    async def _count(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if await self._count_some():
                pause = FIRST_PAUSE
                if self._asked or self._late or self._again:
                    self._wanted.set()
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                self._wanted.set()

    async def _count_some(self) -> bool:
        """One batch; False: the database cannot be asked now, and memory has decided."""
        asked: list[Asked] = []
        entries = self._again  # as they were: they may be counted already under their number
        if not entries:
            while self._asked and len(asked) < MOST_AT_ONCE:
                asked.append(self._asked.popleft())
            entries = [one.entry for one in asked] + self._take_late(MOST_AT_ONCE - len(asked))
        return await self._count_batch(entries, asked)

    async def _count_batch(self, entries: list[Entry], asked: list[Asked]) -> bool:
        """The first of `entries` are those of `asked`."""
        try:
            counted = await self._ask(entries)
        except CannotSay as error:
            if error.about_key:
                return await self._count_one_by_one(entries, asked, str(error))
            self._failed(entries, asked, str(error))
            return False
        except asyncio.CancelledError:
            self._decide_batch(entries, asked)
            raise
        except Exception:  # the task must live, or nobody would be answered
            log.exception("internal error", during="counting mail")
            self._failed(entries, asked, "internal error")
            return False
        self._batch += 1
        self._again = []
        if self._trouble is not None:
            log.warning("sending limits: counted in the database again")
            self._trouble = None
        for one, results in zip(asked, counted, strict=False):
            if self._judge.settle(one, results):
                self.count_later(one.entry)
        for entry, results in zip(entries, counted, strict=True):
            self._judge.told(entry, results)
        return True

    async def _count_one_by_one(self, entries: list[Entry], asked: list[Asked], why: str) -> bool:
        """The database refuses something of a batch; only that is not counted there."""
        self._again = []
        if len(entries) == 1:
            log.error(
                "sending limits: not counted in the database", name=entries[0].parts[0].name, reason=why
            )
            self._batch += 1
            for one in asked:
                self._judge.decide_here(one)
            return True
        is_well = True
        for number, entry in enumerate(entries):
            if is_well:
                is_well = await self._count_batch([entry], asked[number : number + 1])
            elif number < len(asked):
                if self._judge.decide_here(asked[number]):
                    self.count_later(entry)
            else:
                self._put_back(entry)
        return is_well

    def _put_back(self, entry: Entry) -> None:
        assert entry.since is not None
        late = self._late.setdefault((int(entry.since // 60), entry.parts), [0, 0])
        late[0] += entry.messages
        late[1] += entry.recipients
        if len(self._late) > MOST_LATE:
            self._late.popitem(last=False)

    async def _ask(self, entries: list[Entry]) -> list[list[Counted]]:
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._shared.count(self._counter, self._batch, entries)
        except TimeoutError:
            raise CannotSay(f"no answer within {DEADLINE:g} s") from None

    def _take_late(self, most: int) -> list[Entry]:
        taken: list[Entry] = []
        while self._late and len(taken) < most:
            (minute, parts), (messages, recipients) = self._late.popitem(last=False)
            taken.append(Entry(parts, messages, recipients, minute * 60.0))
        return taken

    def _failed(self, entries: list[Entry], asked: list[Asked], why: str) -> None:
        if self._trouble is None:
            log.error("sending limits: counted in memory only", reason=why)
        self._trouble = why
        self._decide_batch(entries, asked)
        self._answer_all()

    def _answer_all(self) -> None:
        """Have memory decide what waits."""
        while self._asked:
            one = self._asked.popleft()
            if self._judge.decide_here(one):
                self.count_later(one.entry)

    def _decide_batch(self, entries: list[Entry], asked: list[Asked]) -> None:
        """Have memory decide, and keep what goes out together under its number, for it may be counted."""
        now = monotonic()
        again = [entry for entry in entries if entry.since is not None]
        again += [one.entry._replace(since=now) for one in asked if self._judge.decide_here(one)]
        self._again = again
        if not again:
            self._batch += 1
