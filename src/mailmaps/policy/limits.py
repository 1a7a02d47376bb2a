"""Sending limits: does one mail more, with so many recipients, stay within what login and domain may send?

With a database every mail is decided there (`mailmaps.policy.counting`), so that several hosts share one
limit to the last recipient. While it is away, and where there is none, what is in memory decides.

A mail is counted once, however often it is asked for (Postfix asks again when a connection breaks, and at
DATA and the end of the message where both are configured): `instance` names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Literal, NamedTuple

from mailmaps.logs import events
from mailmaps.maps.address import fold, is_well_formed
from mailmaps.policy.action import DUNNO, Action, Word
from mailmaps.policy.counting import Asked, Counted, Counting, Entry, Part, SharedCount
from mailmaps.policy.limit_book import LimitBook
from mailmaps.policy.mail import Mail
from mailmaps.policy.sums import Breach, Scope, Sums
from mailmaps.policy.texts import fill, shown
from mailmaps.policy.windows import Windows

log = events(__name__)

# Characters of a name that is counted: an address has at most 254 octets (RFC 5321 4.5.3.1.3).
LONGEST_NAME = 254

# Mails that are remembered by their instance. Postfix asks again within minutes.
MOST_INSTANCES = 50_000

# Seconds in which one name's limit is not logged again.
QUIET = 60.0


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
        self._action = action
        self._text = text
        self._told = told
        self._domain_of = domain_of
        self._instances: Instances = OrderedDict() if before is None else before._instances
        self._counting = None
        if shared is not None:
            self._counting = Counting(shared, self, None if before is None else before._counting)
        self._said: OrderedDict[str, float] = OrderedDict()

    def start(self) -> None:
        """Begin to count in the database."""
        if self._counting is not None:
            self._counting.start()

    async def close(self) -> None:
        """Count what is still to be counted, if that can be done at once, and end."""
        if self._counting is not None:
            await self._counting.close()

    async def idle(self) -> None:
        """Wait until no mail waits for the database."""
        if self._counting is not None:
            await self._counting.idle()

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        if self._counting is None:
            return {"counted in": "memory", "trouble": None, "to be counted": 0}
        trouble = self._counting.trouble
        where = "memory" if trouble else "database"
        return {"counted in": where, "trouble": trouble, "to be counted": self._counting.left}

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
        if before is not None and before.is_counted:
            # Something refused it after us, and it has more recipients now.
            entry = Entry(parts, 0, mail.recipients - before.recipients)
        answer: Action | asyncio.Future[Action]
        counting = self._counting
        if counting is not None and counting.trouble is None:
            answer = counting.ask(entry, mail)
        else:
            answer = self._decided_here(entry, mail)
            if counting is not None and goes_out(answer):
                counting.count_later(entry)
        self._remember(key, _Decided(mail.recipients, answer))
        return answer

    def sums_here(self) -> dict[tuple[str, str], Sums]:
        """What memory knows of each name."""
        return self._windows.all()

    def forget(self, scope: Scope, name: str) -> None:
        """The name (folded) has sent nothing, as far as memory is concerned."""
        self._windows.forget((scope, name))
        if self._counting is not None:
            self._counting.forget(scope, name)

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

    def decide_here(self, asked: Asked) -> bool:
        """Memory answers; whether the mail goes out."""
        action = self._decided_here(asked.entry, asked.mail)
        if not asked.future.done():
            asked.future.set_result(action)
        return goes_out(action)

    # The database decides.

    def settle(self, asked: Asked, results: Sequence[Counted]) -> bool:
        """The database has answered; whether the mail goes out without being counted there."""
        if any(result.passed is None for result in results):
            self.decide_here(asked)
            return False
        is_counted = all(result.passed for result in results)
        action = DUNNO if is_counted else self._over_there(asked, results)
        if goes_out(action):
            self._passed(asked.entry)
        if not asked.future.done():
            asked.future.set_result(action)
        return goes_out(action) and not is_counted

    def told(self, entry: Entry, results: Sequence[Counted]) -> None:
        """What the database knows of the names of a mail."""
        for part, result in zip(entry.parts, results, strict=True):
            self._windows.told((part.scope, part.name), result.sums)

    def _over_there(self, asked: Asked, results: Sequence[Counted]) -> Action:
        """The limit that the database found to be reached."""
        for part, result in zip(asked.entry.parts, results, strict=True):
            more = result.sums.plus(asked.entry.messages, asked.entry.recipients)
            if breach := part.allowed.broken_by(more):
                return self._over(part, breach, asked.mail)
        # A minute has gone by between the decision and the sums.
        return self._over(asked.entry.parts[0], asked.entry.parts[0].allowed.smallest, asked.mail)

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
        log.counted(
            logging.WARNING,
            "limit reached",
            scope=part.scope,
            name=shown(part.name),
            limit=breach.limit,
            unit=breach.unit,
            window=breach.window,
            login=shown(mail.login),
            sender=shown(mail.sender),
            client=shown(mail.client),
            action=self._action,
        )
