"""Slows whoever guesses passwords, and nobody else.

A login waits before its password is looked at, for the longest of three delays that wrong guesses bring
about: for the account from this client, for the client whatever the account, and for the account from
wherever. The last does not touch a client from which the right user has logged in before, and never refuses:
nobody can lock a user out of his account from another address. A repeated wrong password (a phone with the
old one) is no guess. Guesses are forgotten by half every `HALF_LIFE`. What is under way counts as wrong until
it is known, so that a thousand guesses at once are no way around.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from mailmaps.maps.address import fold
from mailmaps.maps.answer import CannotSay

# Seconds. 4 for the delay leave 3.5 of the service's 7.5 for the database, the queue and the hash.
LONGEST_DELAY = 4.0
FIRST_DELAY = 0.5
HALF_LIFE = 300.0

# Wrong guesses that cost nothing. A client may be an office behind one address.
FREE_PAIR = 4
FREE_CLIENT = 20
FREE_ACCOUNT = 10

# Logins that may wait out a delay at a time: of one client, and of one account where no client is known (half
# of Postfix's default_process_limit: whoever guesses there must not hold up the right user).
MOST_WAITING = 8
MOST_WAITING_UNKNOWN = 50

# Entries of each kind; the longest unused goes first. Each is some 400 bytes.
MOST = 10_000

# Digests of wrong passwords that are known again, of each entry.
_MOST_DIGESTS = 4

# Clients of an account whose logins were right.
_MOST_KNOWN = 8

Key = TypeVar("Key", str, tuple[str, str])
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class _Entry:
    """Wrong guesses of one kind: `wrong` as of `since`; `under_way` may become wrong."""

    wrong: float = 0.0
    since: float = 0.0
    under_way: int = 0
    waiting: int = 0
    digests: list[bytes] = field(default_factory=list)
    known: list[str] = field(default_factory=list)


class Guess:
    """One login under way: `delay` in seconds to wait first, then tell what it was."""

    __slots__ = ("_entries", "_guesses", "_pair", "_user", "client", "delay")

    def __init__(
        self, guesses: Guesses, user: str, client: str, entries: Sequence[_Entry], delay: float
    ) -> None:
        self._guesses = guesses
        self._entries = entries
        self._pair = entries[0]
        self._user = user
        self.client = client
        self.delay = delay

    def was_wrong(self, digest: bytes) -> None:
        """The password that `digest` stands for was wrong."""
        self._guesses.count_wrong(self._entries, self._pair, digest)

    def was_right(self) -> None:
        """This client knows the password."""
        self._guesses.count_right(self._user, self.client, self._pair)


class Guesses:
    """All that is known of wrong guesses. `shared` are networks whose addresses stand for many people."""

    def __init__(self, shared: Sequence[IPNetwork] = (), clock: Callable[[], float] = monotonic) -> None:
        self._shared = shared
        self._clock = clock
        self._pairs: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._clients: OrderedDict[str, _Entry] = OrderedDict()
        self._accounts: OrderedDict[str, _Entry] = OrderedDict()

    @contextmanager
    def guess(self, user: str, client: str) -> Iterator[Guess]:
        """A login that has come. Raises `CannotSay` where too many of the client's wait already."""
        name, where = fold(user), self._client(client)
        pair, account = self._entry(self._pairs, (name, where)), self._entry(self._accounts, name)
        entries = [pair, account] + ([self._entry(self._clients, where)] if where else [])
        delay = max(self._delay(pair, FREE_PAIR), self._delay(entries[-1], FREE_CLIENT) if where else 0.0)
        if where not in account.known:
            delay = max(delay, self._delay(account, FREE_ACCOUNT))
        gate, most = (entries[-1], MOST_WAITING) if where else (pair, MOST_WAITING_UNKNOWN)
        if delay and gate.waiting >= most:
            raise CannotSay("too many logins of this client wait after wrong guesses")
        gate.waiting += bool(delay)
        for entry in entries:
            entry.under_way += 1
        try:
            yield Guess(self, name, where, entries, delay)
        finally:
            gate.waiting -= bool(delay)
            for entry in entries:
                entry.under_way -= 1

    def count_wrong(self, entries: Sequence[_Entry], pair: _Entry, digest: bytes) -> None:
        """A wrong password, unless it is one of this account and client again."""
        if digest in pair.digests:
            return
        pair.digests = [*pair.digests[1 - _MOST_DIGESTS :], digest]
        now = self._clock()
        for entry in entries:
            entry.wrong, entry.since = self._wrong(entry, now) + 1, now

    def count_right(self, user: str, client: str, pair: _Entry) -> None:
        """The right password: this client's guesses at this account are forgiven."""
        pair.wrong, pair.digests = 0.0, []
        account = self._entry(self._accounts, user)
        if client and client not in account.known:
            account.known = [*account.known[1 - _MOST_KNOWN :], client]

    def _wrong(self, entry: _Entry, now: float) -> float:
        return entry.wrong * math.exp2((entry.since - now) / HALF_LIFE)

    def _delay(self, entry: _Entry, free: int) -> float:
        over = round(self._wrong(entry, self._clock())) + entry.under_way - free
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

    def _entry(self, entries: OrderedDict[Key, _Entry], key: Key) -> _Entry:
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry(since=self._clock())
            while len(entries) > MOST:
                entries.popitem(last=False)
        entries.move_to_end(key)
        return entry
