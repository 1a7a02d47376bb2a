"""`mailmaps filemaps`: everything once."""

from __future__ import annotations

from dataclasses import dataclass

from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.connect import (
    BREAKS,
    READING_SETTINGS,
    ConnectError,
    Refused,
    connect_to_listen,
    reason,
)
from mailmaps.filemaps.contents import Named
from mailmaps.filemaps.fileset import FileSet, Report
from mailmaps.filemaps.postmap import PostmapError
from mailmaps.filemaps.reading import read_all, remove_left_over, staged
from mailmaps.filemaps.targets import FileTable
from mailmaps.mirrors.environment import DiskTrouble, Unsound


class Failed(Exception):
    """The files stay as they were; the text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was done, how many rows each file has now, how many of them linger, and what was named."""

    report: Report
    rows: dict[str, int]
    lingering: int
    named: list[Named]


async def bring_up(
    settings: Settings, tables: list[FileTable], files: FileSet, *, force: bool = False
) -> Result:
    """Make the files what the database says. Raises `Failed`, `FolderError`."""
    try:
        remove_left_over(files.folder)
        connection = await connect_to_listen(settings.database, READING_SETTINGS)
        try:
            with staged(files.folder, [table.name for table in tables]) as rows:
                await read_all(connection, tables, rows)
                report = files.bring_up(rows, force=force)
        finally:
            connection.terminate()
        for name in files.rows.keys() - report.replaced:
            files.prove(name)
        result = Result(report, files.rows, files.removed, files.named)
        files.close()
        return result
    except (Refused, TimeoutError, *BREAKS) as error:
        raise Failed(reason(error)) from error
    except (ConnectError, SettingsError, PostmapError, DiskTrouble, Unsound) as error:
        raise Failed(str(error)) from error
