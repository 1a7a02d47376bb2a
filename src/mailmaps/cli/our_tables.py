"""Our own tables in a value of main.cf, whichever way Postfix comes to them: endpoint or file.

A table that is asked for something else than it knows gives wrong answers, not errors: so it matters which
one stands where, and not only that one of ours does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailmaps.cli.main_cf import Endpoints
from mailmaps.cli.postfix import FILE_TYPES
from mailmaps.config import Settings
from mailmaps.filemaps.targets import QUEUED

# A word of a list of tables: TYPE:NAME, `{...}` around an inline table.
WORD = re.compile(r"(?:[a-z][\w-]*:)+(?:\{.*?\}|[^\s,{}]+)")


@dataclass(frozen=True, slots=True)
class OurTable:
    """A word of main.cf that is a table of ours: its name in the settings, and what it answers.

    `name` and `parameter` are empty where the endpoint is ours, but no table is there.
    """

    word: str
    name: str
    parameter: str


class OurTables:
    """Finds them, by the settings."""

    def __init__(self, settings: Settings) -> None:
        self._tables = settings.tables
        self._endpoints = Endpoints(settings)
        self._by_port = {f"tcp:{one.tcp}": name for name, one in settings.tables.items() if one.tcp}
        self._folder = settings.filemaps.directory.rstrip("/") + "/"

    def in_value(self, value: str) -> list[OurTable]:
        """Those of ours, in their order."""
        return [found for word in WORD.findall(value) if (found := self.named(word)) is not None]

    def named(self, word: str) -> OurTable | None:
        """The table that `tcp:...`, `socketmap:...` or `lmdb:...` names, by proxymap(8) too, or None."""
        plain = word.removeprefix("proxy:")
        kind, _, path = plain.partition(":")
        if kind in FILE_TYPES:
            if not path.startswith(self._folder):
                return None
            name = path.removeprefix(self._folder).removesuffix(QUEUED)
        elif kind in ("tcp", "socketmap"):
            if not self._endpoints.is_ours(plain):
                return None
            name = self._by_port.get(plain, "") if kind == "tcp" else plain.rpartition(":")[2]
        else:
            return None
        table = self._tables.get(name)
        return OurTable(word, name if table else "", table.parameter if table else "")
