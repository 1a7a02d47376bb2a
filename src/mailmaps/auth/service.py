"""The login service, which every door asks: account, password, rights, in this order.

What it keeps to: a wrong password, a user who does not exist, an inactive account and a right that was taken
away are one result, `REJECTED`, and cost the same time. Whatever fails is `Unavailable`. Every login has its
result within `LIMIT` seconds. Identical logins under way are looked at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mailmaps.auth.accounts import DELIVERS, Places, Row, Source, account, choose, spellings
from mailmaps.auth.attempt import (
    REJECTED,
    UNKNOWN,
    Accepted,
    Listed,
    Listing,
    Login,
    Lookup,
    Question,
    Rejected,
    Result,
)
from mailmaps.auth.guesses import Guesses
from mailmaps.auth.remembered import Remembered
from mailmaps.auth.verifying import Verifier
from mailmaps.logs import events
from mailmaps.maps.address import fold, is_well_formed, quote, split_extension, unquote
from mailmaps.maps.answer import CannotSay, Unavailable
from mailmaps.maps.search import Rules
from mailmaps.maps.trouble import Trouble

log = events(__name__)

# Seconds from question to result. Postfix gives up after 10 (AUTH_TIMEOUT, xsasl_dovecot_server.c:95).
LIMIT = 7.5

# Bytes of a login's name; an address has at most 254 (RFC 5321 4.5.3.1.3).
LONGEST_NAME = 320


# What a name in the database may be, in the order in which a login means it.
KINDS = ("username", "address")


@dataclass(frozen=True, slots=True)
class Naming:
    """What one may log in with: the settings `names` and `realm` of [auth]."""

    names: Sequence[str] = KINDS
    realm: str = ""


class LoginService:
    """One for all doors."""

    def __init__(
        self,
        source: Source,
        verifier: Verifier,
        guesses: Guesses,
        remembered: Remembered,
        *,
        naming: Naming,
        places: Places,
        rules: Rules,
        counts: Counter[str] | None = None,
    ) -> None:
        """`rules` say what the extension of an address is, which a lookup may have; `counts` are those of the
        service before.
        """
        self._source = source
        self._verifier = verifier
        self._guesses = guesses
        self._remembered = remembered
        self._naming = naming
        self._places = places
        self._rules = rules
        self._under_way: dict[bytes, asyncio.Task[Row | None]] = {}
        self._troubles = {
            Login: Trouble("logins"),
            Lookup: Trouble("accounts of logins"),
            Listing: Trouble("the list of logins"),
        }
        self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.counts: Counter[str] = Counter() if counts is None else counts  # by "DOOR RESULT"

    async def answer(self, question: Question, door: str) -> Result:
        """The result, always; `door` is for logs and counts."""
        self._answering += 1
        self._idle.clear()
        try:
            return await self._result(question, door)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing is being answered."""
        await self._idle.wait()

    async def _result(self, question: Question, door: str) -> Result:
        try:
            async with asyncio.timeout(LIMIT):
                result = await self._answer(question)
        except CannotSay as error:
            result = Unavailable(str(error))
            if error.about_key:
                log.warning("cannot say for a login", door=door, reason=error)
            else:
                self._troubles[type(question)].occurs(str(error))
        except TimeoutError:
            result = Unavailable(f"no result within {LIMIT:g} s")
            self._troubles[type(question)].occurs(result.reason)
        except Exception as error:
            log.fault("internal error", error, door=door)
            result = Unavailable("internal error")
        self._tell(question, door, result)
        return result

    def close(self) -> None:
        """End what is under way."""
        for task in self._under_way.values():
            task.cancel()
        self._verifier.close()

    async def _answer(self, question: Question) -> Result:
        match question:
            case Login():
                return await self._login(question)
            case Lookup():
                result = await self._lookup(question)
            case Listing():
                result = Listed(tuple(await self._source.usernames()))
        self._troubles[type(question)].is_not_seen()
        return result

    async def _login(self, login: Login) -> Result:
        digest = self._remembered.digest(login)
        row = self._remembered.get(digest)
        if row is None:
            row = await self._joined(login, digest)
        if row is None or not row.may(login.service):
            return REJECTED
        return Accepted(account(row, self._places))

    async def _joined(self, login: Login, digest: bytes) -> Row | None:
        """The row of an account whose password is right; one check for all who ask the same at this time."""
        task = self._under_way.get(digest)
        if task is None:
            task = asyncio.ensure_future(self._check(login, digest))
            self._under_way[digest] = task
            task.add_done_callback(lambda _: self._under_way.pop(digest, None))
            task.add_done_callback(_looked_at)
        return await asyncio.shield(task)  # one client that hangs up must not end it for the others

    async def _check(self, login: Login, digest: bytes) -> Row | None:
        async with asyncio.timeout(LIMIT):
            epoch = self._remembered.epoch
            row = await self._find(login)
            async with self._guesses.turn(row.username if row else login.user, login.client) as guess:
                if epoch != self._remembered.epoch:  # somebody was slowed, and the account changed meanwhile
                    epoch = self._remembered.epoch
                    row = await self._find(login)
                is_right = await self._verifier.is_right(login, row, guess.rank)
                self._troubles[Login].is_not_seen()
                if not is_right:
                    guess.was_wrong(digest)
                    return None
                guess.was_right()
        assert row is not None  # nobody's password is ever right
        self._remembered.put(digest, row, epoch)
        return row

    async def _find(self, login: Login) -> Row | None:
        kinds = [kind for kind in KINDS if kind in self._naming.names]
        return await self._first(spellings(login.user, login.realm, self._naming.realm), kinds)

    async def _first(self, spelled: Sequence[str], kinds: Sequence[str]) -> Row | None:
        # Dovecot's LMTP has addresses in internal form, the database in external form ("q q"@example.com).
        both = (form for one in spelled for form in ((one, quote(unquote(one))) if "@" in one else (one,)))
        askable = [one for one in dict.fromkeys(both) if _can_be_asked(one)]
        if not askable:
            return None
        rows = await self._source.find(list(dict.fromkeys(map(fold, askable))))
        return choose(rows, askable, kinds)

    async def _lookup(self, lookup: Lookup) -> Result:
        """Who delivers means what virtual_mailbox_maps means: the address, then without its extension."""
        user = lookup.user
        if lookup.service.lower() in DELIVERS:
            plain = self._without_extension(user)
            row = await self._first([user, plain] if plain else [user], KINDS[::-1])
        else:
            row = await self._first(spellings(user, "", self._naming.realm), KINDS)
        if row is None or not row.is_known_to(lookup.service):
            return UNKNOWN
        return Accepted(account(row, self._places))

    def _without_extension(self, address: str) -> str:
        """user@domain of user+ext@domain, empty if it has none."""
        local, at, domain = unquote(address).rpartition("@")
        rules = self._rules
        user, extension = split_extension(
            local,
            rules.recipient_delimiter,
            owner_request_special=rules.owner_request_special,
            double_bounce_sender=rules.double_bounce_sender,
        )
        return quote(f"{user}@{domain}") if at and extension else ""

    def _tell(self, question: Question, door: str, result: Result) -> None:
        """One line a login; who typed a password for a name must not find it in the log."""
        self.counts[f"{door} {type(result).__name__.lower()}"] += 1
        if isinstance(question, Login):
            who = {"door": door, "service": question.service, "client": question.client}
            if isinstance(result, Accepted):
                log.counted(logging.INFO, "login", **who, user=result.account.username)
            elif isinstance(result, Rejected):
                log.counted(logging.INFO, "login rejected", **who)


def _can_be_asked(name: str) -> bool:
    """Whether PostgreSQL could have it: text without NUL, and not endless."""
    return is_well_formed(name) and "\0" not in name and len(name.encode()) <= LONGEST_NAME


def _looked_at(task: asyncio.Task[Row | None]) -> None:
    """asyncio complains of an exception that nobody looked at, when all who waited are gone."""
    if not task.cancelled():
        task.exception()
