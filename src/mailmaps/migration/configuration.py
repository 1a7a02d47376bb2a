"""The configuration of one Postfix, read once, and a way to expand a single word of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mailmaps import postconf
from mailmaps.migration import words
from mailmaps.migration.readers import APPROVALS
from mailmaps.postconf import Override, Service

_REFERENCE = re.compile(r"\$[({]?\s*(\w+)|\{\$(\w+)")


@dataclass(frozen=True)
class Configuration:
    """What `postconf` says about one configuration directory.

    `written` is what main.cf sets, `raw` what is in force (defaults included), `expanded` the same with
    values in the place of `$name`. `local` gives the expanded `-o name=value` by service and name. `notes`
    say what of the settings that decide a search cannot be taken over.
    """

    directory: Path
    written: dict[str, str]
    raw: dict[str, str]
    expanded: dict[str, str]
    overrides: tuple[Override, ...]
    local: dict[tuple[str, str], str]
    services: dict[str, Service]
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Postfix's mail_version."""
        return self.expanded.get("mail_version", "")

    @cached_property
    def classes(self) -> frozenset[str]:
        """The smtpd_restriction_classes of all services: parameters of the site's own with restrictions."""
        values = [
            one.get("smtpd_restriction_classes", "") for one in (self.expanded, *self.in_force.values())
        ]
        return frozenset(text for value in values for text in words.texts(value))

    @cached_property
    def in_force(self) -> dict[str, dict[str, str]]:
        """By service with overrides what is in force in it, expanded. Raises `postconf.PostconfError`."""
        names = dict.fromkeys(one.service for one in self.overrides)
        return {name: self._expanded_with(self.overrides_of(name)) for name in names}

    def exceptions(self, service: str) -> list[str]:
        """The parameters that decide a search and are others in this service than in main.cf."""
        values = self.in_force.get(service, self.expanded)
        return [name for name in postconf.SEARCH if values.get(name, "") != self.expanded.get(name, "")]

    def reads(self, name: str) -> bool:
        """Whether the value of this parameter is a list that some program of Postfix reads."""
        return (name in self.builtin or name in self.classes) and name not in APPROVALS

    @cached_property
    def builtin(self) -> frozenset[str]:
        """The parameters that Postfix itself reads."""
        return postconf.builtin_names()

    def overrides_of(self, service: str) -> list[Override]:
        """The `-o name=value` of one service."""
        return [one for one in self.overrides if one.service == service]

    def words(self, value: str, service: str = "") -> tuple[words.Word, ...]:
        """The words of a value that `service` reads ("": every service that has no override)."""
        return tuple(
            words.Word(raw, self._expansion(raw, service), before) for before, raw in words.split(value)
        )

    def references(self, text: str) -> frozenset[str]:
        """The parameters that a text names with `$`, and those that these name, and so on."""
        found: set[str] = set()
        pending = [text]
        while pending:
            for match in _REFERENCE.finditer(pending.pop()):
                name = match[1] or match[2]
                if name not in found:
                    found.add(name)
                    pending.append(self.raw.get(name, ""))
        return frozenset(found)

    def _expanded_with(self, overrides: list[Override]) -> dict[str, str]:
        return postconf.parameters(self.directory, all_of_them=True, expanded=True, local=overrides)

    def _expansion(self, raw: str, service: str) -> tuple[str, ...]:
        if "$" not in raw:
            return (raw,)
        return words.texts(postconf.expand(self.directory, raw, self.overrides_of(service)))


def read(directory: Path) -> Configuration:
    """Read a configuration directory. Raises `postconf.PostconfError`."""
    directory = directory.resolve()
    return Configuration(
        directory,
        written=postconf.parameters(directory),
        raw=postconf.parameters(directory, all_of_them=True),
        expanded=postconf.parameters(directory, all_of_them=True, expanded=True),
        overrides=tuple(postconf.all_overrides(directory)),
        local={
            (one.service, one.parameter): one.value
            for one in postconf.all_overrides(directory, expanded=True)
        },
        services=postconf.services(directory),
        notes=tuple(postconf.read(directory).notes),
    )
