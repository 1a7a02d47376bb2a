"""smtpd_sender_login_maps: a table whose answer is made of the row and the grants."""

from __future__ import annotations

from collections.abc import Sequence

from mailmaps.maps import search
from mailmaps.maps.answer import Answer
from mailmaps.maps.cache import Cache, Row
from mailmaps.maps.counts import LookupCounts
from mailmaps.maps.lookup import Table, Times
from mailmaps.maps.plain import PlainAddresses, PlainSearch
from mailmaps.maps.sources import Source
from mailmaps.maps.tables import TableKind
from mailmaps.policy.ownership import Ownership


class SenderTable(Table):
    """As any table, but for what becomes of a row."""

    def __init__(
        self,
        name: str,
        kind: TableKind,
        sources: Sequence[Source],
        rules: search.Rules,
        cache: Cache,
        times: Times,
        ownership: Ownership,
        counts: LookupCounts | None = None,
    ) -> None:
        super().__init__(name, kind, sources, rules, cache, times, counts)
        self.ownership = ownership

    @property
    def rows_are_steady(self) -> bool:
        """Whether every row comes from memory and holds until `forget`."""
        return super().steady

    @property
    def steady(self) -> bool:
        """Grants end with time alone."""
        return self.ownership.grants is None and super().steady

    def _short_way(self, addresses: PlainAddresses | None) -> PlainSearch | None:
        """None: it makes answers out of rows by itself."""
        return None

    def _answer(self, question: search.Question, row: Row) -> Answer:
        return self.ownership.owners(question, row)
