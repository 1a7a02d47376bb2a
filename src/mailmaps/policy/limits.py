"""Sending limits: does one mail more, with so many recipients, stay within what its login and domain may
send?

With a database every mail is decided there, so that several hosts share one limit to the last recipient: the
mails of all clients that ask while one statement is under way go into the next one (`count_sent` of
schema/policy/0001_policy.sql decides one after the other, in one transaction). While the database is away,
and where there is none, what is in memory decides, and what was let through is counted later.

A mail is counted once, however often it is asked for (Postfix asks again when a connection breaks, at DATA
and at the end of the message where both are configured): `instance` names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Literal, NamedTuple, Protocol
from uuid import UUID, uuid4

from mailmaps.maps.address import fold, is_well_formed
from mailmaps.maps.answer import CannotSay
from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy.limit_book import LimitBook
from mailmaps.policy.mail import Mail
from mailmaps.policy.sums import Allowed, Breach, Scope, Sums
from mailmaps.policy.texts import fill, shown
from mailmaps.policy.windows import Windows

log = logging.getLogger(__name__)

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

# Characters of a name that is counted: an address has at most 254 octets (RFC 5321 4.5.3.1.3).
LONGEST_NAME = 254

# Mails that are remembered by their instance. Postfix asks again within minutes.
MOST_INSTANCES = 50_000

# Seconds in which one name's limit is not logged again.
QUIET = 60.0


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


@dataclass(frozen=True, slots=True)
class Over:
    """A limit that was reached, for those who tell people."""

    scope: Scope
    name: str
    breach: Breach
    login: str
    sender: str


class _Decided(NamedTuple):
    """What became of a mail with so many recipients, or will."""

    recipients: int
    answer: Action | asyncio.Future[Action]

    @property
    def is_counted(self) -> bool:
        """Whether it is known to have been let through."""
        if not isinstance(self.answer, asyncio.Future):
            return goes_out(self.answer)
        return self.answer.done() and goes_out(self.answer.result())


@dataclass(slots=True)
class _Asked:
    entry: Entry
    mail: Mail
    future: asyncio.Future[Action]


Late = OrderedDict[tuple[int, tuple[Part, ...]], list[int]]
Instances = OrderedDict[int, "_Decided"]  # by hash: a sender may be long


def domain_of(address: str) -> str:
    """The part behind the last `@`; "" without one."""
    return address.rpartition("@")[2] if "@" in address else ""


def domain_of_login(mail: Mail) -> str:
    """That of a login that is an address."""
    return domain_of(mail.login)


def counted_name(text: str) -> str:
    """The name of a login or domain as it is counted; what can be no name has one that stands for it."""
    name = fold(text)
    if len(name) <= LONGEST_NAME and "\0" not in name and is_well_formed(name):
        return name
    return f"(odd) {sha256(name.encode(errors='surrogatepass')).hexdigest()[:32]}"


def goes_out(action: Action) -> bool:
    """Whether the mail is sent, or will be when the postmaster lets it."""
    return action.word in (Word.DUNNO, Word.HOLD)


class Limits:
    """`told` hears of each mail that is over a limit. `shared` None: everything is in memory.

    `domain_of` gives the domain that a mail counts for, "" if none.
    """

    def __init__(
        self,
        book: LimitBook,
        shared: SharedCount | None,
        *,
        action: Literal["defer", "reject", "hold", "observe"] = "defer",
        text: str = "{name}: {limit} {unit} {window}",
        told: Callable[[Over], None] = lambda _: None,
        domain_of: Callable[[Mail], str] = lambda mail: domain_of_login(mail) or domain_of(mail.sender),
        before: Limits | None = None,
    ) -> None:
        """What `before` has counted and decided is known here too."""
        self._book = book
        self._windows: Windows = Windows() if before is None else before._windows
        self._shared = shared
        self._action = action
        self._text = text
        self._told = told
        self._domain_of = domain_of
        self._instances: Instances = OrderedDict() if before is None else before._instances
        self._asked: deque[_Asked] = deque()
        self._open: set[asyncio.Future[Action]] = set()  # asked for, and not answered
        self._late: Late = OrderedDict() if before is None else before._late
        self._said: OrderedDict[str, float] = OrderedDict()
        self._counter, self._batch = uuid4(), 1
        self._again: list[Entry] = []  # a batch whose fate is not known, under the number it had
        self._trouble: str | None = None
        self._wanted = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count in the database."""
        if self._shared is not None:
            self._counting = asyncio.ensure_future(self._count())

    async def close(self) -> None:
        """Count what is still to be counted, if that can be done at once, and end."""
        if self._counting is None:
            return
        self._counting.cancel()
        await asyncio.gather(self._counting, return_exceptions=True)
        while (self._late or self._again or self._asked) and await self._count_some():
            pass
        while self._asked:
            one = self._asked.popleft()
            if self._decide_here(one):
                self._count_later(one.entry)
        for entry in self._again:  # for those who come after us
            self._put_back(entry)

    async def idle(self) -> None:
        """Wait until no mail waits for the database, at most the deadline of a batch."""
        waited = 0.0
        while self._open and waited < DEADLINE:
            await asyncio.sleep(PAUSE_OF_IDLE)
            waited += PAUSE_OF_IDLE

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        away = None if self._shared is None else self._trouble or self._shared.away
        where = "memory" if self._shared is None or away else "database"
        return {"counted in": where, "trouble": away, "to be counted": len(self._late)}

    def begin(self, mail: Mail) -> Action | asyncio.Future[Action]:
        """Decide without waiting, or begin to ask. Only mail of those who logged in is limited."""
        if not mail.login or not self._book.limits_anybody:
            return DUNNO
        key = hash((mail.instance, mail.login, mail.sender)) if mail.instance else 0
        before = self._instances.get(key) if key else None
        if before is not None and before.recipients >= mail.recipients:
            return before.answer
        parts = self._parts(mail)
        if not parts:
            return DUNNO
        entry = Entry(parts, 1, mail.recipients)
        if (
            before is not None and before.is_counted
        ):  # something refused it after us, and it has more recipients now
            entry = Entry(parts, 0, mail.recipients - before.recipients)
        answer: Action | asyncio.Future[Action]
        if self._shared is None or self._trouble is not None or self._shared.away is not None:
            answer = self._decided_here(entry, mail)
            if goes_out(answer):
                self._count_later(entry)
        else:
            asked = _Asked(entry, mail, asyncio.get_running_loop().create_future())
            self._asked.append(asked)
            self._open.add(asked.future)
            asked.future.add_done_callback(self._open.discard)
            self._wanted.set()
            answer = asked.future
        self._remember(key, _Decided(mail.recipients, answer))
        return answer

    def sums_here(self) -> dict[tuple[str, str], Sums]:
        """What memory knows of each name."""
        return self._windows.all()

    def forget(self, scope: Scope, name: str) -> None:
        """The name (folded) has sent nothing, as far as memory is concerned."""
        self._windows.forget((scope, name))
        for key in [one for one in self._late if any(part[:2] == (scope, name) for part in one[1])]:
            del self._late[key]

    def _parts(self, mail: Mail) -> tuple[Part, ...]:
        """The login and the domain, as far as they are limited."""
        login = counted_name(mail.login)
        if self._book.is_exempt(login):
            return ()
        domain = counted_name(self._domain_of(mail))
        named: tuple[tuple[Scope, str], ...] = (("login", login), ("domain", domain))
        parts = (Part(scope, name, self._book.of(scope, name)) for scope, name in named if name)
        return tuple(part for part in parts if not part.allowed.is_unlimited)

    def _remember(self, key: int, decided: _Decided) -> None:
        if not key:
            return
        self._instances[key] = decided
        if len(self._instances) > MOST_INSTANCES:
            self._instances.popitem(last=False)

    # Memory decides.

    def _decided_here(self, entry: Entry, mail: Mail) -> Action:
        for part in entry.parts:
            sums = self._windows.sums((part.scope, part.name)).plus(entry.messages, entry.recipients)
            if breach := part.allowed.broken_by(sums):
                action = self._over(part, breach, mail)
                if goes_out(action):
                    self._passed(entry)
                return action
        self._passed(entry)
        return DUNNO

    def _passed(self, entry: Entry) -> None:
        for part in entry.parts:
            self._windows.add((part.scope, part.name), entry.messages, entry.recipients)

    def _count_later(self, entry: Entry) -> None:
        if self._shared is None:
            return
        key = (int(monotonic() // 60), entry.parts)
        late = self._late.setdefault(key, [0, 0])
        late[0] += entry.messages
        late[1] += entry.recipients
        if len(self._late) > MOST_LATE:
            self._late.popitem(last=False)
        self._wanted.set()

    def _decide_here(self, asked: _Asked) -> bool:
        """Whether it goes out."""
        action = self._decided_here(asked.entry, asked.mail)
        if not asked.future.done():
            asked.future.set_result(action)
        return goes_out(action)

    # The database decides.

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
        asked: list[_Asked] = []
        entries = self._again  # as they were: they may be counted already under their number
        if not entries:
            while self._asked and len(asked) < MOST_AT_ONCE:
                asked.append(self._asked.popleft())
            entries = [one.entry for one in asked] + self._take_late(MOST_AT_ONCE - len(asked))
        return await self._count_batch(entries, asked)

    async def _count_batch(self, entries: list[Entry], asked: list[_Asked]) -> bool:
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
            log.exception("sending limits: internal error")
            self._failed(entries, asked, "internal error")
            return False
        self._batch += 1
        self._again = []
        if self._trouble is not None:
            log.warning("sending limits: counted in the database again")
            self._trouble = None
        for one, results in zip(asked, counted, strict=False):
            self._settle(one, results)
        for entry, results in zip(entries, counted, strict=True):
            for part, result in zip(entry.parts, results, strict=True):
                self._windows.told((part.scope, part.name), result.sums)
        return True

    async def _count_one_by_one(self, entries: list[Entry], asked: list[_Asked], why: str) -> bool:
        """The database refuses something of a batch; only that is not counted there."""
        self._again = []
        if len(entries) == 1:
            log.error("sending limits: %s is not counted in the database: %s", entries[0].parts[0].name, why)
            self._batch += 1
            for one in asked:
                self._decide_here(one)
            return True
        is_well = True
        for number, entry in enumerate(entries):
            if is_well:
                is_well = await self._count_batch([entry], asked[number : number + 1])
            elif number < len(asked):
                if self._decide_here(asked[number]):
                    self._count_later(entry)
            else:
                self._put_back(entry)
        return is_well

    def _put_back(self, entry: Entry) -> None:
        assert entry.since is not None
        late = self._late.setdefault((int(entry.since // 60), entry.parts), [0, 0])
        late[0] += entry.messages
        late[1] += entry.recipients

    async def _ask(self, entries: list[Entry]) -> list[list[Counted]]:
        assert self._shared is not None
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

    def _settle(self, asked: _Asked, results: Sequence[Counted]) -> None:
        if any(result.passed is None for result in results):
            self._decide_here(asked)
            return
        action = DUNNO
        if all(result.passed for result in results):
            self._passed(asked.entry)
        else:
            action = self._over_there(asked, results)
            if goes_out(action):
                self._passed(asked.entry)
                self._count_later(asked.entry)
        if not asked.future.done():
            asked.future.set_result(action)

    def _over_there(self, asked: _Asked, results: Sequence[Counted]) -> Action:
        """The limit that the database found to be reached."""
        for part, result in zip(asked.entry.parts, results, strict=True):
            more = result.sums.plus(asked.entry.messages, asked.entry.recipients)
            if breach := part.allowed.broken_by(more):
                return self._over(part, breach, asked.mail)
        # A minute has gone by between the decision and the sums.
        return self._over(asked.entry.parts[0], asked.entry.parts[0].allowed.smallest, asked.mail)

    def _failed(self, entries: list[Entry], asked: list[_Asked], why: str) -> None:
        if self._trouble is None:
            log.error("sending limits: counted in memory only, as this host alone sees it: %s", why)
        self._trouble = why
        self._decide_batch(entries, asked)
        while self._asked:
            one = self._asked.popleft()
            if self._decide_here(one):
                self._count_later(one.entry)

    def _decide_batch(self, entries: list[Entry], asked: list[_Asked]) -> None:
        """Have memory decide, and keep what goes out together under its number, for it may be counted."""
        now = monotonic()
        again = [entry for entry in entries if entry.since is not None]
        again += [one.entry._replace(since=now) for one in asked if self._decide_here(one)]
        self._again = again
        if not again:
            self._batch += 1

    # What is said.

    def _over(self, part: Part, breach: Breach, mail: Mail) -> Action:
        self._say(part, breach, mail)
        self._told(Over(part.scope, part.name, breach, mail.login, mail.sender))
        if self._action == "observe":
            return DUNNO
        text = fill(
            self._text, name=part.name, limit=str(breach.limit), unit=breach.unit, window=breach.window
        )
        if self._action == "hold":
            return Action(Word.HOLD, text)
        # Where other limits may be set that we do not know yet, nothing is refused for good.
        final = self._action == "reject" and self._book.is_known
        return Action(Word.REJECT if final else Word.LATER, text)

    def _say(self, part: Part, breach: Breach, mail: Mail) -> None:
        now = monotonic()
        if now - self._said.get(part.name, -QUIET) < QUIET:
            return
        self._said[part.name] = now
        self._said.move_to_end(part.name)
        if len(self._said) > MOST_INSTANCES:
            self._said.popitem(last=False)
        log.warning(
            "limit reached: %s %s has sent %d %s %s; login=%s sender=<%s> client=%s (%s)",
            part.scope,
            shown(part.name),
            breach.limit,
            breach.unit,
            breach.window,
            shown(mail.login),
            shown(mail.sender),
            shown(mail.client),
            self._action,
        )
