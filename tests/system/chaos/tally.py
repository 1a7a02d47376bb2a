"""What was said and what arrived, counted by trouble, and the verdict on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.table import Table
from tests.system.chaos.people import Recipient
from tests.system.lmtp_sink import Delivery
from tests.system.smtp import PROBE, Reply

KINDS = ("2xx", "4xx", "5xx", "lost")


class Attempt(NamedTuple):
    """One session. `reply` None: the connection broke; `was_sent`: when the data were on their way."""

    trouble: str
    address: str
    reply: Reply | None
    probe: str = ""
    was_sent: bool = False

    @property
    def kind(self) -> str:
        return "lost" if self.reply is None else f"{self.reply.code // 100}xx"


@dataclass
class Tally:
    """`accepted`: the recipient of each message that was taken, by its probe."""

    messages: list[Attempt] = field(default_factory=list)
    probes: list[Attempt] = field(default_factory=list)
    accepted: dict[str, Recipient] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each trouble lasted in all."""

    def wrong(self, deliveries: Sequence[Delivery], messages: int) -> list[str]:
        """A line for whatever must not be; none: it is proven. `messages` were to be sent."""
        return [
            *(
                f"{one.address} exists, and was told {one.reply}"
                for one in self.messages
                if one.kind == "5xx"
            ),
            *(
                f"{one.address} exists not, and was told {one.reply}"
                for one in self.probes
                if one.kind == "2xx"
            ),
            *(f"a bounce to {one.recipient}" for one in deliveries if not one.sender),
            *self._wrong_deliveries(deliveries),
            *([f"{len(self.accepted)} of {messages} messages were taken"] * (len(self.accepted) != messages)),
        ]

    def _wrong_deliveries(self, deliveries: Iterable[Delivery]) -> list[str]:
        arrived: dict[str, list[str]] = {}
        for delivery in deliveries:
            arrived.setdefault(delivery.header(PROBE), []).append(delivery.recipient)
        unsure = {one.probe for one in self.messages if one.reply is None and one.was_sent}
        wrong = []
        for probe in self.accepted.keys() | arrived.keys():
            recipient = self.accepted.get(probe)
            wanted = sorted(recipient.arrives) if recipient else []
            if probe not in unsure and sorted(arrived.get(probe, [])) != wanted:
                wrong.append(f"message {probe} for {recipient} arrived at {arrived.get(probe, [])}")
        return wrong

    def reasons(self) -> Counter[str]:
        """The texts of 4xx, without the address in them."""
        attempts = [one for one in (*self.messages, *self.probes) if one.kind == "4xx"]
        texts = (
            f"{one.reply.code} {one.reply.text}".replace(one.address, "...") for one in attempts if one.reply
        )
        return Counter(texts)

    def table(self) -> Table:
        """A line for each trouble, one for all."""
        table = Table(
            "trouble", "s", *(f"known {kind}" for kind in KINDS), *(f"unknown {kind}" for kind in KINDS)
        )
        for column in table.columns[1:]:
            column.justify = "right"
        known, unknown = (
            Counter((one.trouble, one.kind) for one in part) for part in (self.messages, self.probes)
        )
        for trouble in [*self.seconds, "in all"]:
            troubles = list(self.seconds) if trouble == "in all" else [trouble]
            cells = [
                sum(count[one, kind] for one in troubles) for count in (known, unknown) for kind in KINDS
            ]
            table.add_row(trouble, f"{sum(self.seconds[one] for one in troubles):.0f}", *map(str, cells))
        return table
