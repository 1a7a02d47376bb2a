"""Which files there are, of which tables, and in which order they are changed.

The order is why nothing that smtpd(8) accepts bounces in virtual(8): what delivers comes before what accepts
when rows are added, and after it when they are removed. What has been removed can be delivered to for some
time still (`lingers`): a message may have been accepted a moment before, or wait in the queue. smtpd(8) must
not go on accepting for so long, and so two tables have two files: one for accepting, and NAME.queued for what
has been accepted, which master.cf gives to virtual(8) and cleanup(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailmaps.config.settings import Settings
from mailmaps.maps.sources import plain_view_of
from mailmaps.maps.tables import KINDS, TableKind
from mailmaps.mirrors.keeper import GROUP_OF
from mailmaps.tableset import DELIVERY_OF_OURS

MAILBOXES, ALIASES = "virtual_mailbox_maps", "virtual_alias_maps"
UIDS, GIDS = "virtual_uid_maps", "virtual_gid_maps"

QUEUED = ".queued"

_WITH_QUEUED = (MAILBOXES, ALIASES)

# There is one table of each of these, whatever its name is in the settings.
_ROLES = (MAILBOXES, ALIASES, UIDS, GIDS)

# Adding goes from the first to the last; tables that are not named come at `_OTHERS`.
_ORDER = {
    UIDS: 0,
    GIDS: 0,
    MAILBOXES + QUEUED: 1,
    ALIASES + QUEUED: 2,
    MAILBOXES: 3,
    ALIASES: 4,
    "transport_maps": 5,
    # A domain that is ours before its mailboxes are known would have them refused (550).
    "virtual_mailbox_domains": 6,
    "virtual_alias_domains": 6,
    "relay_domains": 6,
    "mydestination": 6,
}
_OTHERS = 3


@dataclass(frozen=True, slots=True)
class FileTable:
    """A table that can be listed: all its sources are views.

    `name` is the parameter's where there is one table of it only, and `file` that in the settings. `views` in
    the order of the sources; `group` under which all changes of their keys are notified, or ""
    when only whole tables are. `replace` as in `mailmaps.database.views.ViewSource`.
    """

    name: str
    file: str
    kind: TableKind
    views: tuple[str, ...]
    group: str
    bare_keys: bool
    replace: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One file, which main.cf has as `file`."""

    name: str
    file: str
    table: FileTable

    @property
    def order(self) -> int:
        return _ORDER.get(self.name, _ORDER.get(self.table.kind.name, _OTHERS))

    @property
    def lingers(self) -> bool:
        """Whether removed rows stay for mail that has been accepted."""
        return self.name.endswith(QUEUED) or self.table.name in (UIDS, GIDS)


def listable(settings: Settings) -> list[FileTable]:
    """The tables whose rows can be listed."""
    return [_table(settings, name) for name in settings.tables if not why_not(settings, name)]


def why_not(settings: Settings, name: str) -> str:
    """Why a table cannot be a file; empty if it can."""
    if name.endswith(QUEUED):
        return f"a table that is a file must not be called ...{QUEUED}"
    parameter = settings.tables[name].parameter
    first = next(one for one, table in settings.tables.items() if table.parameter == parameter)
    if parameter in _ROLES and name != first:
        return f"{first} is {parameter} already; as a file, one table has to have the sources of both"
    queries = [source for source in settings.tables[name].sources if source.startswith("pgsql:")]
    return f"{', '.join(queries)} can be asked for a key, but not listed" if queries else ""


def targets(tables: list[FileTable]) -> list[Target]:
    """The files, in the order in which rows are added."""
    found = [Target(table.name, table.file, table) for table in tables]
    queued = [table for table in tables if table.name in _WITH_QUEUED]
    found += [Target(table.name + QUEUED, table.file + QUEUED, table) for table in queued]
    return sorted(found, key=lambda target: (target.order, target.name))


def _table(settings: Settings, name: str) -> FileTable:
    table = settings.tables[name]
    kind = KINDS[table.parameter]
    views = tuple(plain_view_of(name, source) for source in table.sources)
    groups = {GROUP_OF.get(view, "") for view in views}
    is_ours = name == "transport_maps" and settings.delivery != "virtual"
    return FileTable(
        kind.name if kind.name in _ROLES else name,
        name,
        kind,
        views,
        group=groups.pop() if len(groups) == 1 else "",
        bare_keys=kind.bare_keys or "builtin" not in table.sources,
        replace=dict.fromkeys(DELIVERY_OF_OURS, settings.delivery) if is_ours else {},
    )
