"""What becomes of a site: the fate of each use of `pgsql:`, and what is written for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailmaps.migration.uses import Segment, Use


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the new tables answer: `map_type` tcp or socketmap, and the first port that is ours to give.

    `first_port` 0: the default ports of the tables that have one, and `FIRST_OF_OTHERS` for the others.
    """

    map_type: str
    first_port: int = 0

    @property
    def socketmap(self) -> str:
        """The socketmap_table(5) endpoint; socketmap.inet by default."""
        return f"127.0.0.1:{self.first_port or 17020}"

    def port(self, default: int, used: set[int]) -> int:
        """The tcp_table(5) port of a table that has, or has not (0), a default one."""
        if default and not self.first_port:
            return default
        start = self.first_port + 1 if self.first_port else FIRST_OF_OTHERS
        return next(number for number in range(start, 65536) if number not in used)

    def of(self, table: NewTable) -> str:
        """How main.cf names a table."""
        if self.map_type == "tcp":
            return f"tcp:127.0.0.1:{table.port}"
        return f"socketmap:inet:{self.socketmap}:{table.name}"


FIRST_OF_OTHERS = 17033  # 17011-17032 belong to the tables with a port of their own (maps/tables.py)


@dataclass(frozen=True, slots=True)
class NewTable:
    """One [tables.NAME] of the new mailmaps.toml. `parameter` decides its search order."""

    name: str
    parameter: str
    sources: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one segment of a use: `table` it moves to, or None and `why` it stays.

    `broken`: it stays because of something that is wrong today too. `follows`: nothing is written here,
    the value changes with the parameter that it names.
    """

    use: Use
    segment: Segment
    table: NewTable | None
    why: str = ""
    broken: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A value to write. `old` None: nothing is written there today; `why` is for people."""

    parameter: str
    service: str
    old: str | None
    new: str
    why: str


@dataclass
class Plan:
    """The fates of all uses, and the tables and changes that come of them.

    `kept` are those of the changes that leave one service with `pgsql:`, because it reads a parameter
    otherwise than main.cf. `endpoints` are the tables by the word that main.cf has for them.
    """

    fates: list[Fate] = field(default_factory=list)
    tables: list[NewTable] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    kept: list[Change] = field(default_factory=list)
    endpoints: dict[str, NewTable] = field(default_factory=dict)

    @property
    def moved(self) -> list[Fate]:
        """The uses that move."""
        return [fate for fate in self.fates if fate.table is not None]

    @property
    def staying(self) -> list[Fate]:
        """The uses that stay with `pgsql:`."""
        return [fate for fate in self.fates if fate.table is None and not fate.follows]
