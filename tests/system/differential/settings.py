"""The settings under which sites are compared: the product of all, and the pairs for every day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from tests.system.daemon import Value

LOCAL = "local.test"
"""In mydestination, so that bare local parts are asked for it."""
ORIGIN = "origin.test"
"""myorigin."""


@dataclass(frozen=True)
class Settings:
    """One choice."""

    recipient_delimiter: str
    propagate: bool
    """The default of propagate_unmatched_extensions; otherwise it is empty."""
    owner_request_special: bool
    smtputf8_enable: bool

    def __str__(self) -> str:
        return (
            f"recipient_delimiter={self.recipient_delimiter or 'empty'}"
            f", propagate_unmatched_extensions={'default' if self.propagate else 'empty'}"
            f", owner_request_special={_word(self.owner_request_special)}"
            f", smtputf8_enable={_word(self.smtputf8_enable)}"
        )

    @property
    def short(self) -> str:
        """For a narrow place."""
        flags = (self.propagate, self.owner_request_special, self.smtputf8_enable)
        return f"{self.recipient_delimiter or 'empty'} {' '.join(map(_word, flags))}"

    def rules(self) -> dict[str, Value]:
        """[postfix] of mailmaps.toml."""
        return {
            "recipient_delimiter": self.recipient_delimiter,
            "propagate_unmatched_extensions": ["canonical", "virtual"] if self.propagate else [],
            "owner_request_special": self.owner_request_special,
            "smtputf8_enable": self.smtputf8_enable,
            "myorigin": ORIGIN,
            "mydestination": [LOCAL],
            "inet_interfaces": ["127.0.0.1"],
        }

    def main_cf(self) -> Mapping[str, str]:
        """The same in main.cf."""
        return {name: _main_cf(value) for name, value in self.rules().items()}


PRODUCT = tuple(
    Settings(*choice) for choice in product(("", "+", "+-"), (True, False), (True, False), (True, False))
)
"""All 24."""

PAIRS = (
    Settings("", True, True, True),
    Settings("", False, False, False),
    Settings("+", True, False, True),
    Settings("+", False, True, False),
    Settings("+-", True, True, False),
    Settings("+-", False, False, True),
)
"""Any two values of any two settings occur together in one of these six."""


def _word(value: bool) -> str:
    return "yes" if value else "no"


def _main_cf(value: Value) -> str:
    if isinstance(value, bool):
        return _word(value)
    return str(value) if isinstance(value, str | int | float) else ", ".join(value)
