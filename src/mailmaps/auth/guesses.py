"""Slows whoever guesses passwords, and nobody else.

A login waits before its password is looked at, for the longest of three delays that wrong guesses bring
about: for the account from this client, for the client whatever the account, and for the account from
wherever. The last does not touch a client from which the right user has logged in before, and never refuses:
nobody can lock a user out of his account from another address. A repeated wrong password (a phone with the
old one) is no guess. Guesses are forgotten by half every `HALF_LIFE`. So many are looked at together as are
free, and whoever has waited for his turn is told the delay of then: a thousand guesses at once are no way
around, and sixty people who come at once behind one address wait for nothing but their turn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from enum import IntEnum
from itertools import islice
from time import monotonic
from typing import NamedTuple, TypeVar

from mailmaps.maps.address import fold
from mailmaps.maps.answer import CannotSay

# Seconds. 4 for the delay leave 3.5 of the service's 7.5 for the database, the queue and the hash.
LONGEST_DELAY = 4.0
FIRST_DELAY = 0.5
HALF_LIFE = 300.0

# Wrong guesses that cost nothing; as many (of a pair, of a client) are looked at together. A client may be an
# office behind one address.
FREE_PAIR = 4
FREE_CLIENT = 20
FREE_ACCOUNT = 10

# Logins that may wait out a delay at a time: of one client, and of one account where no client is known (half
# of Postfix's default_process_limit: whoever guesses there must not hold up the right user).
MOST_WAITING = 8
MOST_WAITING_UNKNOWN = 50

# Entries of each kind; each is some 600 bytes.
MOST = 10_000

# Entries among which one to forget is looked for.
_LOOKED_AT = 16

# Digests of wrong passwords that are known again, of each entry.
_MOST_DIGESTS = 4

# Clients of an account whose logins were right.
_MOST_KNOWN = 8

Key = TypeVar("Key", str, tuple[str, str])
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Rank(IntEnum):
    """Whose address is known is slowed when he guesses, and so comes before those whose is not."""

    KNOWN = 0
    SHARED = 1  # a webmail server, this machine
    UNKNOWN = 2  # by a door that knows none


class _Entry:
    """Wrong guesses of one kind: `wrong` as of `since`; `turns` are for those that are looked at."""

    __slots__ = ("digests", "known", "since", "turns", "users", "waiting", "wrong")

    def __init__(self, since: float, turns: int) -> None:
        self.wrong = 0.0
        self.since = since
        self.turns = asyncio.Semaphore(turns)
        self.waiting = 0
        self.users = 0  # logins that hold it
        self.digests: list[bytes] = []
        self.known: list[str] = []


class Guess:
    """One login whose turn it is: to be told what it was. `rank` says who of those that wait comes first."""

    __slots__ = ("_client", "_entries", "_guesses", "rank")

    def __init__(self, guesses: Guesses, client: str, entries: _Entries, rank: Rank) -> None:
        self._guesses = guesses
        self._client = client
        self._entries = entries
        self.rank = rank

    def was_wrong(self, digest: bytes) -> None:
        """The password that `digest` stands for was wrong."""
        self._guesses.count_wrong(self._entries, digest)

    def was_right(self) -> None:
        """This client knows the password."""
        self._guesses.count_right(self._client, self._entries)


class _Entries(NamedTuple):
    """What is known of one login; `client` is None where nobody's address is known."""

    pair: _Entry
    account: _Entry
    client: _Entry | None


class Guesses:
    """All that is known of wrong guesses. `shared` are networks whose addresses stand for many people."""

    def __init__(
        self,
        shared: Sequence[IPNetwork] = (),
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._sleep = sleep
        self._pairs: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._clients: OrderedDict[str, _Entry] = OrderedDict()
        self._accounts: OrderedDict[str, _Entry] = OrderedDict()

    @asynccontextmanager
    async def turn(self, user: str, client: str) -> AsyncIterator[Guess]:
        """Wait for as long as a login has to. Raises `CannotSay` where too many of the client's wait."""
        name, where = fold(user), self._client(client)
        rank = Rank.KNOWN if where else Rank.SHARED if client else Rank.UNKNOWN
        with ExitStack() as held:
            # The client first: whoever is refused must leave no trace by which others' would be forgotten.
            of_client = held.enter_context(self._held(self._clients, where, FREE_CLIENT)) if where else None
            if of_client is not None:
                self._check_gate(of_client, MOST_WAITING, self._delay_of(of_client, FREE_CLIENT))
            entries = _Entries(
                held.enter_context(self._held(self._pairs, (name, where), FREE_PAIR)),
                held.enter_context(self._held(self._accounts, name, FREE_ACCOUNT)),
                of_client,
            )
            waited = 0.0
            while True:
                delay = self._delay(entries, where)
                if delay > waited:
                    await self._wait(entries, delay - waited)
                    waited = delay
                async with entries.pair.turns, of_client.turns if of_client else nullcontext():
                    if self._delay(entries, where) <= waited:  # others may have been wrong meanwhile
                        yield Guess(self, where, entries, rank)
                        return

    async def _wait(self, entries: _Entries, seconds: float) -> None:
        gate = entries.client or entries.pair
        self._check_gate(gate, MOST_WAITING if entries.client else MOST_WAITING_UNKNOWN, seconds)
        gate.waiting += 1
        try:
            await self._sleep(seconds)
        finally:
            gate.waiting -= 1

    @staticmethod
    def _check_gate(gate: _Entry, most: int, delay: float) -> None:
        if delay and gate.waiting >= most:
            raise CannotSay("too many logins of this client wait after wrong guesses", about_key=True)

    def count_wrong(self, entries: _Entries, digest: bytes) -> None:
        """A wrong password, unless it is one of this account and client again."""
        pair = entries.pair
        if digest in pair.digests:
            return
        pair.digests = [*pair.digests[1 - _MOST_DIGESTS :], digest]
        now = self._clock()
        for entry in entries:
            if entry is not None:
                entry.wrong, entry.since = self._wrong(entry, now) + 1, now

    def count_right(self, client: str, entries: _Entries) -> None:
        """The right password: this client's guesses at this account are forgiven."""
        entries.pair.wrong, entries.pair.digests = 0.0, []
        if client and client not in entries.account.known:
            entries.account.known = [*entries.account.known[1 - _MOST_KNOWN :], client]

    def _wrong(self, entry: _Entry, now: float) -> float:
        return entry.wrong * math.exp2((entry.since - now) / HALF_LIFE)

    def _delay(self, entries: _Entries, client: str) -> float:
        """Seconds from the arrival of a login until its password is looked at."""
        delay = self._delay_of(entries.pair, FREE_PAIR)
        if entries.client is not None:
            delay = max(delay, self._delay_of(entries.client, FREE_CLIENT))
        if client not in entries.account.known:
            delay = max(delay, self._delay_of(entries.account, FREE_ACCOUNT))
        return delay

    def _delay_of(self, entry: _Entry, free: int) -> float:
        over = round(self._wrong(entry, self._clock())) - free
        return min(FIRST_DELAY * 2.0 ** min(over, 16), LONGEST_DELAY) if over >= 0 else 0.0

    def _client(self, client: str) -> str:
        """What stands for a client: an IPv4 address, the /64 of an IPv6 address; empty if it is nobody's."""
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_loopback or any(address in network for network in self._shared):
            return ""
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        return str(address)

    @contextmanager
    def _held(self, entries: OrderedDict[Key, _Entry], key: Key, turns: int) -> Iterator[_Entry]:
        """The entry of a key while a login uses it; one that tells nothing does not stay."""
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry(self._clock(), turns)
        entries.move_to_end(key)
        entry.users += 1
        try:
            yield entry
        finally:
            entry.users -= 1
            if not entry.users and not entry.known and round(self._wrong(entry, self._clock())) == 0:
                entries.pop(key, None)
            while len(entries) > MOST and self._evict(entries):
                pass

    def _evict(self, entries: OrderedDict[Key, _Entry]) -> bool:
        """Forget what tells least of those unused longest; False if all of them are in use."""
        now = self._clock()
        oldest = [(key, entry) for key, entry in islice(entries.items(), _LOOKED_AT) if not entry.users]
        if not oldest:
            return False
        del entries[min(oldest, key=lambda one: self._wrong(one[1], now))[0]]
        return True
