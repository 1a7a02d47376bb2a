"""One command: rows, mailbox folders and files together, or none of them.

The order is that of what can be taken back. Rows are written and checked in a transaction; folders are made;
the files are made ready; COMMIT; the files follow, since they are read from what is committed. Whatever
fails before COMMIT ends the transaction and removes the folders; whatever fails after it, a signal too,
takes the rows back in a second transaction. Mail is deleted last. When a second failure keeps the first from
being undone, the error says what stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mailmaps.administration.boxes import Boxes, BoxTrouble, boxes_of
from mailmaps.administration.files import Files, FilesTrouble, Probe, ready
from mailmaps.administration.names import BadName
from mailmaps.config.settings import Settings
from mailmaps.database.administration import CannotWrite, CommitUnknown, Work, open_work

T = TypeVar("T")

# Keys that are looked up in the files after a change: the first and the last of more.
MOST_PROBES = 40


class Refusal(Exception):
    """Nothing was done; the text says why.

    `temporary`: the same may be done later. `cause`: what was raised.
    """

    def __init__(self, text: str, cause: Exception) -> None:
        super().__init__(text)
        self.temporary: bool = getattr(cause, "temporary", False)
        self.cause = cause


class Unclear(Exception):
    """Not all and not nothing, or nobody knows: the text says exactly what stands and what to look at."""


@dataclass(frozen=True, slots=True)
class NewBox:
    """A mailbox folder to make."""

    path: str
    uid: int
    gid: int
    address: str


@dataclass
class Change:
    """What a command does besides rows, and what it says.

    `result` is one JSON object; `boxes` are made, those of `gone` deleted with their mail; `notes` are for
    people.
    """

    result: dict[str, Any]
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    boxes: list[NewBox] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    force: bool = False
    keeps: bool = False  # what is committed stays, whatever becomes of the files


Prepare = Callable[[Work, Boxes | None], Awaitable[Change]]


def forced(prepare: Prepare) -> Prepare:
    """The same, however much it takes out of Postfix's files."""

    async def prepared(work: Work, boxes: Boxes | None) -> Change:
        change = await prepare(work, boxes)
        change.force = True
        return change

    return prepared


async def carry_out(settings: Settings, prepare: Prepare) -> Change:
    """Do it. Raises `Refusal`: nothing is changed; `Unclear`; CancelledError: nothing is changed."""
    work, boxes = await _opened(settings)
    try:
        return await _Step(settings, work, boxes).run(prepare)
    finally:
        work.connection.terminate()
        if boxes is not None:
            boxes.close()


async def look(settings: Settings, prepare: Prepare) -> Change:
    """What it would do and say, with nothing written and nothing made. Raises `Refusal`."""
    work, boxes = await _opened(settings)
    try:
        await work.begin()
        return await prepare(work, boxes)
    except (BadName, CannotWrite, BoxTrouble) as error:
        raise Refusal(str(error), error) from None
    finally:
        work.connection.terminate()
        if boxes is not None:
            boxes.close()


async def _opened(settings: Settings) -> tuple[Work, Boxes | None]:
    """The database and the base of mailboxes. Raises `Refusal`."""
    try:
        boxes = boxes_of(settings)
    except BoxTrouble as error:
        raise Refusal(str(error), error) from None
    try:
        return await open_work(settings), boxes
    except BaseException as error:
        if boxes is not None:
            boxes.close()
        if isinstance(error, CannotWrite):
            raise Refusal(str(error), error) from None
        raise


class _Step:
    def __init__(self, settings: Settings, work: Work, boxes: Boxes | None) -> None:
        self._settings = settings
        self._work = work
        self._boxes = boxes
        self._committed = False
        self._given_up = False

    async def run(self, prepare: Prepare) -> Change:
        try:
            await self._work.begin()
            change = await prepare(self._work, self._boxes)
            change.probes = await self._expected(change.probes)
            self._folders(change)
            with ready(self._settings) as files:
                await _to_its_end(self._commit(), tells=not change.keeps)
                if files is not None:
                    await self._follow(files, change)
            if self._boxes is not None:
                change.notes += self._boxes.drop()
                change.notes += self._boxes.warnings
            return change
        except CommitUnknown as error:
            raise Unclear(f"{error}. Folders that were made for it stay") from None
        except (BadName, CannotWrite, BoxTrouble, FilesTrouble) as error:
            left = await _to_its_end(self._give_up(), tells=False)
            if left:
                raise Unclear(f"{error}; {'; '.join(left)}") from None
            raise Refusal(f"{error}; nothing was changed", error) from None
        except BaseException as error:
            left = await _to_its_end(self._give_up(), tells=False)
            if left:
                raise Unclear(f"interrupted: {'; '.join(left)}") from error
            raise

    async def _expected(self, probes: list[Probe]) -> list[Probe]:
        """The probes with what our views say now: a removed address may fall to an alias domain, say.

        Not of tables that have other sources besides.
        """
        found = []
        for probe in [*probes[: MOST_PROBES // 2], *probes[MOST_PROBES // 2 :][-MOST_PROBES // 2 :]]:
            table = self._settings.tables.get(probe.table)
            if table is not None and table.sources == ["builtin"]:
                query = f"SELECT bool_or(value IS NOT NULL) FROM mailmaps.{probe.table} WHERE key = $1"  # noqa: S608
                there = bool(await self._work.value(query, probe.key))
                found.append(replace(probe, there=there, value=probe.value if there else ""))
        return found

    def _folders(self, change: Change) -> None:
        if self._boxes is None:
            return
        for box in change.boxes:
            self._boxes.make(box.path, box.uid, box.gid, box.address)
        for path in change.gone:
            self._boxes.put_aside(path)

    async def _commit(self) -> None:
        await self._work.commit()
        self._committed = True

    async def _follow(self, files: Files, change: Change) -> None:
        try:
            await files.bring_up(change.probes, force=change.force)
        except BaseException as error:
            if change.keeps:
                self._given_up = True
                raise Unclear(f"all is written, but not in Postfix's files: {_words(error)}") from error
            left = await _to_its_end(self._give_up(), tells=False)
            if not await _to_its_end(files.bring_back(), tells=False):
                left.append("all else is taken back, but files may have some of it: run `mailmaps filemaps`")
            if left:
                raise Unclear(f"{_words(error)}; {'; '.join(left)}") from error
            raise

    async def _give_up(self) -> list[str]:
        """Take back everything; what could not be, in words. The second time there is nothing left to do."""
        if self._given_up:
            return []
        self._given_up = True
        left = []
        if self._committed:
            try:
                await self._work.take_back()
            except (CannotWrite, CommitUnknown) as error:
                return [f"the rows are written and could not be taken back ({error}); all else is as wanted"]
        else:
            await self._work.rollback()
        if self._boxes is not None:
            left += self._boxes.undo()
        return left


async def _to_its_end(doing: Coroutine[Any, Any, T], *, tells: bool = True) -> T:
    """Await it to its end, whatever signals come; then let the first one through, if it `tells`."""
    task = asyncio.ensure_future(doing)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            interrupted = error
        except Exception:  # told by result()
            break
    result = task.result()
    if interrupted is not None and tells:
        raise interrupted
    return result


def _words(error: BaseException) -> str:
    return "interrupted" if isinstance(error, asyncio.CancelledError) else str(error)
