"""A site's rows in memory, as a whole reading or as the rows of some keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mailmaps.config import Settings, parse
from mailmaps.filemaps.fileset import FileSet, Report
from mailmaps.filemaps.reading import Staged, staged
from mailmaps.filemaps.targets import ALIASES, GIDS, MAILBOXES, QUEUED, UIDS, listable
from mailmaps.maps.row_bytes import Rows, pack

__all__ = ["ALIASES", "GIDS", "MAILBOXES", "QUEUED", "UIDS", "Files"]

# By table and key; no values: the key is known and answers nothing.
State = Mapping[str, Mapping[str, tuple[str, ...]]]


class Files:
    """A set of files in a folder of its own."""

    def __init__(self, folder: Path, **filemaps: str | float) -> None:
        self.folder = folder
        self.settings = _settings(folder, filemaps)
        self.tables = listable(self.settings)
        self.set = FileSet(self.settings, self.tables)

    def bring_up(self, state: State, *, force: bool = False, newer: Collection[str] = ()) -> Report:
        """A whole reading that found `state`; what was not replaced is proven, as the command does."""
        with self._staged(state) as rows:
            report = self.set.bring_up(rows, force=force, newer=newer)
        for name in self.set.rows:
            if name not in report.replaced:
                self.set.prove(name)
        return report

    def change(self, state: State, keys: Collection[str]) -> Report:
        """These keys were notified, and now `state` is the case."""
        found = {
            table.name: {
                key: state.get(table.name, {})[key] for key in keys if key in state.get(table.name, {})
            }
            for table in self.tables
        }
        return self.set.change(found, keys)

    def rows(self, name: str) -> dict[str, str]:
        """What a file has."""
        file = self.set._files[name]
        assert file.open()
        return {key.decode(): value.decode() for key, value in file.rows()}

    def all_rows(self) -> dict[str, dict[str, str]]:
        return {name: self.rows(name) for name in self.set._files}

    @contextmanager
    def _staged(self, state: State) -> Iterator[Staged]:
        with staged(self.folder, [table.name for table in self.tables]) as rows:
            for table in self.tables:
                some = sorted(
                    (key.encode(), pack(values)) for key, values in state.get(table.name, {}).items()
                )
                rows.put(table.name, Rows.of(some), union=False, is_first=True)
            yield rows


def _settings(folder: Path, filemaps: Mapping[str, str | float]) -> Settings:
    given = {"directory": str(folder), **filemaps}
    lines = ["[postfix]", 'recipient_delimiter = "+"', "virtual_minimum_uid = 5000", "[filemaps]"]
    lines += [f"{name} = {value!r}" for name, value in given.items()]
    return parse("\n".join(lines), "test.toml")


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that ends with its example; in memory, or syncing would take all the time."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mailmaps-files-", dir=parent) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
