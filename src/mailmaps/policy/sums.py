"""How much is sent and how much may be: four numbers, messages and recipients in an hour and in a day."""

from __future__ import annotations

from typing import Literal, NamedTuple

Scope = Literal["login", "domain"]

HOUR = "an hour"
DAY = "a day"


class Sums(NamedTuple):
    """What was sent lately."""

    messages_hour: int = 0
    messages_day: int = 0
    recipients_hour: int = 0
    recipients_day: int = 0

    def plus(self, messages: int, recipients: int) -> Sums:
        """With so much more."""
        return Sums(
            self.messages_hour + messages,
            self.messages_day + messages,
            self.recipients_hour + recipients,
            self.recipients_day + recipients,
        )

    def plus_all(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*(mine + more for mine, more in zip(self, other, strict=True)))

    def beyond(self, other: Sums) -> Sums:
        """What this has more than the other, never less than nothing."""
        return Sums(*(max(0, mine - less) for mine, less in zip(self, other, strict=True)))


class Allowed(NamedTuple):
    """What may be sent; None is no limit."""

    messages_hour: int | None = None
    messages_day: int | None = None
    recipients_hour: int | None = None
    recipients_day: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """Whether there is nothing to count for."""
        return self == UNLIMITED

    @property
    def smallest(self) -> Breach:
        """The smallest of the limits, of which there is one."""
        return min(
            Breach(limit, *_words(name)) for name, limit in self._asdict().items() if limit is not None
        )

    def broken_by(self, sums: Sums) -> Breach | None:
        """The first limit that so much would be over."""
        for name, limit, much in zip(self._fields, self, sums, strict=True):
            if limit is not None and much > limit:
                return Breach(limit, *_words(name))
        return None


def _words(field: str) -> tuple[str, str]:
    unit, _, window = field.partition("_")
    return unit, HOUR if window == "hour" else DAY


UNLIMITED = Allowed()


class Breach(NamedTuple):
    """A limit that was reached: the number, "messages" or "recipients", "an hour" or "a day"."""

    limit: int
    unit: str
    window: str
