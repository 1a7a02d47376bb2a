"""Grants: who may send as what beyond his own addresses (mailpolicy.sender_grants), held whole in memory.

There are few of them, and each is one line that a postmaster wrote. The rule: what is not known is not
"none". Until they have been read, and when what was read is too old, whoever needs a grant is told to try
later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import monotonic

from mailmaps.maps.address import fold, quote, unquote

ANYBODY = "*"

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Grant:
    """One row. `expires` in seconds since the epoch; without `networks` it holds from everywhere."""

    number: int
    login: str
    address: str
    expires: float | None = None
    networks: tuple[IPNetwork, ...] = ()
    reason: str = ""

    def is_over(self, now: float) -> bool:
        """Whether it has expired; `now` is time.time()."""
        return self.expires is not None and self.expires <= now

    def holds_from(self, client: str) -> bool:
        """Whether a client of this address, as Postfix writes it, may use it."""
        if not self.networks:
            return True
        try:
            address = ip_address(client)
        except ValueError:  # "unknown"
            return False
        return any(address in network for network in self.networks)

    @property
    def text(self) -> str:
        """For `mailmaps senders explain` and logs."""
        where = f" from {', '.join(map(str, self.networks))}" if self.networks else ""
        return f"grant {self.number}: {self.login} as {self.address}{where}"


class Grants:
    """All grants. `longest` is for how many seconds they are believed after they were last confirmed."""

    def __init__(self, longest: float, clock: Callable[[], float] = monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._by_key: dict[str, tuple[Grant, ...]] = {}
        self._confirmed: float | None = None

    @property
    def are_known(self) -> bool:
        """Whether what is held can be believed."""
        return self._confirmed is not None and self._clock() - self._confirmed <= self._longest

    @property
    def count(self) -> int:
        """How many are held, expired ones too."""
        return sum(map(len, self._by_key.values()))

    def replace(self, grants: Iterable[Grant], age: float = 0.0) -> None:
        """These and no others, as they were `age` seconds ago."""
        by_key: dict[str, list[Grant]] = {}
        for grant in grants:
            by_key.setdefault(key_of(grant.address), []).append(grant)
        self._by_key = {key: tuple(some) for key, some in by_key.items()}
        self._confirmed = self._clock() - age

    def take_over(self, other: Grants) -> None:
        """What the other knows, as old as it is there."""
        self._by_key, self._confirmed = other._by_key, other._confirmed

    def confirm(self) -> None:
        """Nothing has changed."""
        self._confirmed = self._clock()

    def of(self, candidates: Sequence[str]) -> list[Grant]:
        """Those for any of these keys, the more special ones first."""
        if not self._by_key:
            return []
        return [grant for key in candidates for grant in self._by_key.get(key, ())]

    def services(self) -> tuple[Grant, ...]:
        """Those for anybody."""
        return self._by_key.get(ANYBODY, ())


def key_of(address: str) -> str:
    """How candidates spell it: folded, in external form."""
    bare = address == ANYBODY or address.startswith("@")
    return fold(address if bare else quote(unquote(address)))
