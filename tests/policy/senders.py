"""A table smtpd_sender_login_maps in memory, for the tests of the sender check."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mailmaps.maps.answer import CannotSay
from mailmaps.maps.cache import Cache
from mailmaps.maps.lookup import Times
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import ABSENT, SILENT, Recalled, Rows
from mailmaps.maps.tables import KINDS
from mailmaps.policy.grants import Grants
from mailmaps.policy.ownership import BUILTIN, Ownership, Switches
from mailmaps.policy.sender_table import SenderTable

RULES = Rules(recipient_delimiter="+", myorigin="a.example", mydestination=frozenset({"mx.a.example"}))

# (Two of one local part, so that what is known of an address and of its extension differ.)
ROWS = {
    "jan@a.example": ("o jan",),
    "team@a.example": ("f jan", "f anna"),
    "anna@b.example": ("o anna",),
    "@b.example": ("a anna",),
    "gone@a.example": ("o !inactive",),
}


class MemorySource:
    """Knows `rows` at once, or only when asked; `fault` is what asking ends in."""

    name = BUILTIN
    bare_keys = one_by_one = exactly = volatile = False
    age = None

    def __init__(self, rows: Mapping[str, tuple[str, ...]], *, held: bool = True) -> None:
        self.rows = rows
        self.held = held
        self.fault: str | None = None

    @property
    def steady(self) -> bool:
        return self.held

    def known(self, key: str) -> Recalled:
        return self.rows.get(key, ABSENT) if self.held else SILENT

    def stale(self, key: str) -> Recalled:
        return SILENT

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise CannotSay(self.fault)
        return {key: self.rows[key] for key in candidates if key in self.rows}


def sender_table(source: MemorySource, switches: Switches, grants: Grants | None = None) -> SenderTable:
    """The table over one source."""
    cache = Cache(ttl=0, negative_ttl=0, size=0, negative_size=0)
    times = Times(deadline=5.0, volatile_ttl=0.0, max_stale=0.0)
    kind = KINDS["smtpd_sender_login_maps"]
    return SenderTable(kind.name, kind, [source], RULES, cache, times, Ownership(switches, grants))
