"""`mailmaps filemaps --follow`: hears of changes and has the files follow, for ever.

Two things go on side by side, and their work on the files one after the other, in a thread:

* Keys that were notified are read in one transaction, with whatever they lead to, and taken over together.
* Everything is read whole, at first, when something could not be followed, and every `filemaps.compare`
  seconds. Keys that are notified meanwhile are newer than that reading and not touched by it.

Where nothing can be heard of at all (a pooler in between), everything is read whole now and then.

Why nothing is accepted whose target is not there: an alias row of a transaction is taken over together with
the rows of its targets, of the same transaction. And a whole reading is taken over only when everything that
was committed before it began has been notified (a beat has come back, `mailmaps.database.changes`) and taken
over: a target whose keys are left alone is in the files then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.changes import PROOF, Changes
from mailmaps.database.connect import (
    BREAKS,
    READING_SETTINGS,
    ConnectError,
    Refused,
    connect_to_listen,
    reason,
)
from mailmaps.database.watching import Watch, read_watches
from mailmaps.filemaps.fileset import FileSet, Missing, Report
from mailmaps.filemaps.folder import FolderError, is_forced, note_withheld
from mailmaps.filemaps.postmap import PostmapError
from mailmaps.filemaps.reading import ClosedRows, read_all, read_closed, snapshot, staged
from mailmaps.filemaps.targets import FileTable
from mailmaps.mirrors.environment import DiskTrouble, Unsound

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

from mailmaps.logs import events

log = events(__name__)

T = TypeVar("T")

# Seconds for a statement on the listening connection, as in `mailmaps.mirrors.following`.
ANSWER_LIMIT = 2.0

# Keys that are read one by one; for more, everything is.
MOST_KEYS = 20_000

# Seconds between attempts after trouble: doubled up to the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

# Everything is read again at the earliest after so many times what it took; other changes have their turn.
SHARE = 1

# The same, and so many seconds apart, where not all changes are notified, or none.
UNFOLLOWED_SHARE = 20
UNFOLLOWED = 30.0

# Seconds between looks at what has lingered for long enough, and at whether somebody forces us.
TICK = 1.0

# Ticks after which it is remembered on disk what lingers.
SAVE = 60

# Named keys that are logged one by one.
MOST_NAMED = 20

TROUBLES = (
    ConnectError, SettingsError, Refused, TimeoutError, *BREAKS,
    PostmapError, FolderError, DiskTrouble, Unsound,
)  # fmt: skip


class Service:
    """Follows until it is cancelled. `run`."""

    def __init__(
        self, settings: Settings, tables: list[FileTable], files: FileSet, *, force: bool = False
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._files = files
        self._connect = partial(connect_to_listen, settings.database, READING_SETTINGS)
        self._changes = Changes(self._connect, self, "files")
        self._thread = ThreadPoolExecutor(1, "files")
        self._keys: dict[str, set[str]] = {}
        self._newer: dict[str, set[str]] | None = None  # notified since a whole reading began
        self._is_void = False  # some of them were not taken over: that reading is worth nothing
        self._barriers: list[asyncio.Event] = []
        self._has_keys = asyncio.Event()
        self._is_due = asyncio.Event()
        self._is_due.set()
        self._heard: dict[float, asyncio.Event] = {}
        self._forced = asyncio.Event()
        if force:
            self._forced.set()
        self._may_at = 0.0  # not before is everything read again, unless somebody forces it
        self._watches: dict[str, Watch] = {}
        self._withheld: set[str] = set()  # what has been said of it since everything was read
        self._noted: set[str] | None = None  # what of it is written down; None: perhaps something else

    async def run(self) -> None:
        """Follow. Ends only by cancellation; what is under way on the files is finished then."""
        is_forced(self._files.folder)  # for somebody who ran before us
        self._changes.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self._follow_keys))
                group.create_task(self._keep(self._read_whole))
                group.create_task(self._keep(self._tick))
        finally:
            await self._changes.close()
            self._thread.shutdown()
            self._files.close()

    def listening(self) -> None:
        """Told by `Changes`, as all that follow."""
        self._is_due.set()

    def keys_changed(self, group: str, keys: Sequence[str]) -> None:
        if any(table.group == group for table in self._tables):
            self._keys.setdefault(group, set()).update(keys)
            if self._newer is not None:
                self._newer.setdefault(group, set()).update(keys)
            self._has_keys.set()

    def group_changed(self, group: str) -> None:
        if any(table.group == group for table in self._tables):
            self._is_due.set()

    def relation_changed(self, relation: str) -> None:
        views = {view for table in self._tables if not table.group for view in table.views}
        if any(relation in self._watches[view].relations for view in views & self._watches.keys()):
            self._is_due.set()

    async def look(self, connection: Connection) -> None:
        """Whether all changes are still notified, and the views still what they were."""
        views = list(dict.fromkeys(view for table in self._tables for view in table.views))
        async with asyncio.timeout(ANSWER_LIMIT):
            watches = await read_watches(connection, views)
        before, self._watches = self._watches, watches
        for view, watch in watches.items():
            known = before.get(view)
            if watch.problem and (known is None or known.problem != watch.problem):
                log.warning("not all changes are notified", view=view, reason=watch.problem)
            if known is not None and known.fingerprint != watch.fingerprint:
                self._is_due.set()

    async def catch_up(self, connection: Connection) -> None:
        """Reading keys takes a connection of its own: it must not hold up the beat."""

    def current_as_of(self, moment: float) -> None:
        for began, event in self._heard.items():
            if moment >= began:
                event.set()

    def deaf(self) -> None:
        """`listening` will come."""

    def unreachable(self) -> None:
        """The files stay what they are."""

    async def _keep(self, do: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again; trouble is said once, and tried again after a pause."""
        pause, said = FIRST_PAUSE, ""
        while True:
            try:
                await do()
                if said:
                    log.warning("the files follow again", it_was=said)
                pause, said = FIRST_PAUSE, ""
            except TROUBLES as error:
                text = reason(error) if isinstance(error, (Refused, TimeoutError, *BREAKS)) else str(error)
                if text != said:
                    log.error("the files stay as they are", reason=text)
                said = text
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _follow_keys(self) -> None:
        """Take over keys for as long as nothing fails, on one connection."""
        await self._has_keys.wait()
        connection = await self._connect()
        try:
            while True:
                await self._has_keys.wait()
                await self._take_keys(connection)
        finally:
            connection.terminate()

    async def _take_keys(self, connection: Connection) -> None:
        self._has_keys.clear()
        taken, self._keys = self._keys, {}
        barriers, self._barriers = self._barriers, []
        try:
            if sum(map(len, taken.values())) <= MOST_KEYS:
                async with snapshot(connection):
                    rows = await read_closed(connection, self._tables, taken, self._files.leads_to, MOST_KEYS)
            else:
                rows = None
            if rows is None:  # too many
                self._give_up_keys()
            elif rows.keys:
                await self._change(rows)
        except Missing:
            self._give_up_keys()
        except BaseException:
            for group, keys in taken.items():
                self._keys.setdefault(group, set()).update(keys)
            self._barriers += barriers
            self._has_keys.set()
            raise
        for barrier in barriers:
            barrier.set()

    def _give_up_keys(self) -> None:
        """A whole reading that begins from now on finds whatever these keys have."""
        self._is_due.set()
        self._is_void = True
        self._may_at = 0.0

    async def _change(self, rows: ClosedRows) -> None:
        report = await self._in_thread(partial(self._files.change, rows.found, rows.keys))
        self._tell(report, log.debug)
        self._tell_news()

    async def _read_whole(self) -> None:
        """Read everything once it is due."""
        await self._changes.tried()
        await self._wait_until_due()
        self._is_due.clear()
        try:
            await self._read_now()
        except BaseException:
            self._is_due.set()
            raise

    async def _wait_until_due(self) -> None:
        """Until something asks for it, or for `compare` seconds; though not too soon after the last time."""
        followed = self._changes.trouble is None and not any(one.problem for one in self._watches.values())
        compare = self._settings.filemaps.compare if followed else UNFOLLOWED
        with suppress(TimeoutError):
            async with asyncio.timeout(compare):
                await self._is_due.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._may_at):
                await self._forced.wait()

    async def _read_now(self) -> None:
        began = asyncio.get_running_loop().time()
        force = self._forced.is_set()
        is_done = False
        try:
            is_done = await self._bring_up(force=force)
        finally:
            newer, self._newer = self._newer or {}, None
            if not self._is_void:
                for group, keys in newer.items():  # older rows may have been taken over for them
                    self._keys.setdefault(group, set()).update(keys)
                    self._has_keys.set()
        if not is_done:
            return
        if force:
            self._forced.clear()
        for name in await self._in_thread(lambda: self._files.rows):
            await self._in_thread(partial(self._files.prove, name))
        self._tell_news()
        say = log.debug if self._may_at else log.info
        say("every file is current")
        now = asyncio.get_running_loop().time()
        is_followed = not any(one.problem for one in self._watches.values())
        self._may_at = now + (SHARE if is_followed else UNFOLLOWED_SHARE) * (now - began)

    async def _bring_up(self, *, force: bool) -> bool:
        """Whether that is done; else another reading is due."""
        loop = asyncio.get_running_loop()
        connection = await self._connect()
        try:
            with staged(self._files.folder, [table.name for table in self._tables]) as rows:
                self._newer, self._is_void = {}, False
                was_deaf = self._changes.trouble is not None
                await read_all(connection, self._tables, rows)
                if not was_deaf or self._newer or self._changes.trouble is None:
                    await self._all_is_heard(loop.time())
                if self._is_void:
                    return False
                newer = {key for keys in self._newer.values() for key in keys}
                report = await self._in_thread(partial(self._files.bring_up, rows, newer=newer, force=force))
        finally:
            connection.terminate()
        self._withheld.clear()
        self._tell(report)
        return True

    async def _all_is_heard(self, moment: float) -> None:
        """Wait until what was committed before `moment` has been notified, and taken over."""
        heard = self._heard[moment] = asyncio.Event()
        try:
            self._changes.hurry()
            async with asyncio.timeout(PROOF):
                await heard.wait()
        finally:
            del self._heard[moment]
        barrier = asyncio.Event()
        self._barriers.append(barrier)
        self._has_keys.set()
        async with asyncio.timeout(LONGEST_PAUSE):
            await barrier.wait()

    async def _tick(self) -> None:
        for _ in range(SAVE):
            await asyncio.sleep(TICK)
            if is_forced(self._files.folder):
                self._forced.set()
                self._is_due.set()
            if self._may_at and not self._is_due.is_set() and not self._files.is_complete():
                log.error("a file has gone", folder=self._files.folder)
                self._is_due.set()
            self._tell(await self._in_thread(self._files.expire), log.debug)
        await self._in_thread(self._files.save)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _tell(self, report: Report, say: Callable[..., None] = log.info) -> None:
        if text := report.summary():
            say("files have changed", what=text)
        for excess in report.withheld:
            if excess not in self._withheld:
                log.error("nothing is removed before mailmaps filemaps --force", reason=excess)
        self._withheld.update(report.withheld)
        if self._withheld != self._noted:
            self._note()

    def _note(self) -> None:
        """For commands that wait for us, and for `mailmaps check`."""
        try:
            note_withheld(self._files.folder, self._withheld)
            self._noted = set(self._withheld)
        except OSError as error:
            log.warning("what is withheld cannot be written down", path=error.filename, reason=error.strerror)

    def _tell_news(self) -> None:
        """Log what is named now and was not before."""
        news = self._files.take_news()
        for named in news[:MOST_NAMED]:
            log.counted(
                logging.WARNING,
                "a key is not in the files",
                table=named.table,
                key=named.key,
                reason=named.why,
            )
        if len(news) > MOST_NAMED:
            log.warning("more keys are not in the files", number=len(news) - MOST_NAMED)
