"""How much each login and each domain may send: the settings, and what the database says otherwise for
some.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from time import time

from mailmaps.maps.address import fold
from mailmaps.policy.sums import UNLIMITED, Allowed, Scope


@dataclass(frozen=True, slots=True)
class Override:
    """One row of mailpolicy.sending_limits. A number that is None is the setting's, 0 is no limit; `until` is
    in seconds since the epoch."""

    scope: Scope
    name: str
    numbers: tuple[int | None, int | None, int | None, int | None]
    exempt: bool = False
    reason: str = ""
    until: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether its time has passed."""
        return self.until is not None and self.until <= now


class LimitBook:
    """`defaults` for each scope in the order of `Allowed`, 0 is no limit; `exempt` are logins without any."""

    def __init__(
        self,
        defaults: Mapping[Scope, tuple[int, int, int, int]],
        exempt: Collection[str] = (),
        *,
        has_overrides: bool = False,
    ) -> None:
        """`has_overrides`: there is a database that may have some, which has still to be read."""
        self._defaults = defaults
        self._exempt = frozenset(fold(login) for login in exempt)
        self._overrides: dict[tuple[str, str], Override] = {}
        self.is_known = not has_overrides

    @property
    def limits_anybody(self) -> bool:
        """Whether there is any limit at all."""
        return any(any(numbers) for numbers in self._defaults.values()) or bool(self._overrides)

    def replace(self, overrides: Iterable[Override]) -> None:
        """These and no others."""
        self._overrides = {(one.scope, fold(one.name)): one for one in overrides}
        self.is_known = True

    def override(self, scope: Scope, name: str) -> Override | None:
        """The one in force for a name (folded)."""
        one = self._overrides.get((scope, name))
        return None if one is None or one.is_over(time()) else one

    def overrides(self) -> list[Override]:
        """All, those that have ended too."""
        return list(self._overrides.values())

    def of(self, scope: Scope, name: str) -> Allowed:
        """What a name (folded) may send."""
        one = self.override(scope, name)
        if (scope == "login" and name in self._exempt) or (one is not None and one.exempt):
            return UNLIMITED
        numbers = self._defaults.get(scope, (0, 0, 0, 0))
        if one is not None:
            numbers = tuple(
                usual if own is None else own for own, usual in zip(one.numbers, numbers, strict=True)
            )  # type: ignore[assignment]
        return Allowed(*(number or None for number in numbers))

    def is_exempt(self, login: str) -> bool:
        """Whether a login (folded) is not limited by its domain's limits either."""
        one = self.override("login", login)
        return login in self._exempt or (one is not None and one.exempt)
