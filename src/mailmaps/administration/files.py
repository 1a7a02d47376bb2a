"""The files that Postfix reads (docs/filemaps.md), brought to what a command has just committed.

Where `mailmaps filemaps --follow` runs, it is waited for; else they are brought up as `mailmaps filemaps`
does. What can be refused is refused before COMMIT, when `Files` are made ready. Whether an address is in the
files is asked of Postfix's own postmap(1).
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailmaps.config.settings import Settings
from mailmaps.filemaps.fileset import FileSet
from mailmaps.filemaps.folder import AlreadyFollowed, FolderError, ask_to_force, following, withheld
from mailmaps.filemaps.once import Failed, bring_up
from mailmaps.filemaps.targets import FileTable, listable, targets
from mailmaps.postconf import environment

# Seconds that a `--follow` may take to follow one change; it takes hundredths, and some ten while it reads a
# million accounts.
FOLLOW_LIMIT = 60.0

# Seconds between looks.
PAUSE = 0.05

# Seconds for one postmap(1).
POSTMAP_LIMIT = 20.0


class FilesTrouble(Exception):
    """The files are not what they should be; the text says why."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A key that a table's file shall have now, or shall not: what smtpd(8) accepts by."""

    table: str
    key: str
    there: bool = True
    value: str = ""  # what it shall have in its value, if it is there


class Files:
    """The files, ready to be changed. Use `ready`."""

    def __init__(self, settings: Settings, tables: list[FileTable], held: ExitStack) -> None:
        """`held` has what keeps others from bringing them up. Raises `FolderError`, OSError."""
        self._settings = settings
        self._tables = tables
        self._held = held
        self._folder = Path(settings.filemaps.directory)
        self._set: FileSet | None = None  # None: somebody else brings them up now
        self._take_over()

    def _take_over(self) -> bool:
        """Whether it is ours to bring them up, from now on."""
        try:
            self._held.enter_context(following(self._folder))
        except AlreadyFollowed:
            return False
        self._set = FileSet(self._settings, self._tables)
        return True

    async def bring_up(self, probes: Sequence[Probe], *, force: bool = False) -> None:
        """Have them say what is committed; `force`: however much vanishes. Raises `FilesTrouble`."""
        try:
            if self._set is None and await self._is_followed(probes, force=force):
                return
            assert self._set is not None
            result = await bring_up(self._settings, self._tables, self._set, force=force)
        except (Failed, FolderError) as error:
            raise FilesTrouble(str(error)) from None
        except OSError as error:
            raise FilesTrouble(f"{error.filename or self._folder}: {error.strerror}") from None
        for probe in self._of_files(probes):
            if await asyncio.to_thread(self._has, probe) is not probe.there:
                why = "; ".join(result.report.withheld)
                text = f"{why}; --force does it all the same" if why else "the file does not say so"
                raise FilesTrouble(f"{probe.key} in {probe.table}: {text}")

    def _of_files(self, probes: Sequence[Probe]) -> list[Probe]:
        """Those of tables that are files."""
        names = {table.name for table in self._tables}
        return [probe for probe in probes if probe.table in names]

    async def bring_back(self) -> bool:
        """After a failure: have them say again what the database says; whether that worked."""
        if self._set is None:
            return True  # the follower does it when it can
        try:
            self._set = FileSet(self._settings, self._tables)
            await self.bring_up([])
        except (FilesTrouble, FolderError, OSError):
            return False
        return True

    async def _is_followed(self, probes: Sequence[Probe], *, force: bool) -> bool:
        """Wait until who follows has brought them up; False: that was another command, and it is our turn."""
        if force:
            ask_to_force(self._folder)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FOLLOW_LIMIT
        for probe in self._of_files(probes):
            while await asyncio.to_thread(self._has, probe) is not probe.there:
                if self._take_over():
                    return False
                if not (probe.there or force) and (why := self._withheld(probe.table)):
                    raise FilesTrouble(f"{why}; --force does it all the same")
                if loop.time() > deadline:
                    raise FilesTrouble(
                        f"{self._folder}: `mailmaps filemaps --follow` has not followed within "
                        f"{FOLLOW_LIMIT:g} s ({probe.key} in {probe.table}); see its log"
                    )
                await asyncio.sleep(PAUSE)
        return True

    def _withheld(self, table: str) -> str:
        """Why the process that follows takes nothing out of a table's file, if so."""
        return next((why for why in withheld(self._folder) if why.startswith(f"{table}:")), "")

    def _has(self, probe: Probe) -> bool:
        file = self._folder / next(one.file for one in self._tables if one.name == probe.table)
        words = ["postmap", *_config(self._settings), "-q", probe.key]
        words.append(f"{self._settings.filemaps.type}:{file}")
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                timeout=POSTMAP_LIMIT,
                check=False,
                env=environment(),
            )
        except FileNotFoundError:
            raise FilesTrouble("postmap is not installed here") from None
        except subprocess.TimeoutExpired:
            raise FilesTrouble(f"{file}: postmap has waited for {POSTMAP_LIMIT:g} s: it is locked") from None
        found = done.stdout.decode(errors="replace").strip()
        return bool(found) and probe.value in found


def _config(settings: Settings) -> list[str]:
    directory = settings.postfix.config_directory
    return ["-c", directory] if (Path(directory) / "main.cf").exists() else []


def are_used(settings: Settings) -> bool:
    """Whether there are files that the tables are kept in. Raises `FilesTrouble`: that cannot be seen."""
    folder = Path(settings.filemaps.directory)
    try:
        names = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise FilesTrouble(f"filemaps.directory: {folder}: {error.strerror}") from None
    ending = settings.filemaps.type
    return any(f"{one.file}.{ending}" in names for one in targets(listable(settings)))


@contextmanager
def ready(settings: Settings) -> Iterator[Files | None]:
    """The files, None where they are not used. While it is open nobody else brings them up.

    Raises `FilesTrouble`.
    """
    if not are_used(settings):
        yield None
        return
    tables = listable(settings)
    with ExitStack() as held:
        try:
            files = Files(settings, tables, held)
        except FolderError as error:
            raise FilesTrouble(str(error)) from None
        except OSError as error:
            raise FilesTrouble(f"filemaps.directory: {error.filename}: {error.strerror}") from None
        yield files
