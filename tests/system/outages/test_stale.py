"""How long what is held is believed without the database, restarts of the daemon included.

Found: `max_stale`. Not found, while nobody can reach the server: `max_stale_not_found`. Who may send as whom,
either: `max_stale_senders`. Beyond these it is "later". A daemon that starts without the database, even after
kill -9, has its files and their age; what is wrong with a file is noticed and said.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.system.daemon import TABLES, Daemon
from tests.system.outages import data, truth
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.site import Site, absent_places, fresh, proven, says

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

MANY = 20_000
"""Addresses made at once: reading them takes longer than noticing that PostgreSQL is gone."""

ASLEEP = 6.0
"""Seconds; a beat proves something for 4.5."""

KNOWN = [place for place in data.ROWS_OF_THEIR_OWN if place not in data.SENDERS_KNOWN]
UNKNOWN = [place for place in data.UNKNOWN if place not in data.SENDERS_UNKNOWN]


def is_unavailable(answer: Answer) -> bool:
    return isinstance(answer, Unavailable)


async def kinds(daemon: Daemon, places: list[Place]) -> set[type[Answer]]:
    """The kinds of answers that these get now."""
    return {type(await ask(daemon, place, kind)) for place in places for kind in ("tcp", "socketmap")}


@asynccontextmanager
async def away(site: Site) -> AsyncIterator[None]:
    """Killed, for a while."""
    await site.server.kill()
    try:
        yield
    finally:
        await site.server.start()


async def test_not_found_is_believed_for_a_while(site: Site) -> None:
    with Daemon(site.settings(cache={"max_stale_not_found": 4.0})) as daemon:
        await proven(daemon)
        async with away(site):
            assert await kinds(daemon, UNKNOWN) == {type(NOT_FOUND)}
            await says(daemon, UNKNOWN[0], is_unavailable)
            assert await kinds(daemon, UNKNOWN) == {Unavailable}
            assert await kinds(daemon, KNOWN) == {Found}
            assert await kinds(daemon, list(data.SENDERS_KNOWN)) == {Found}
        await says(daemon, UNKNOWN[0], NOT_FOUND)


async def test_found_is_believed_for_longer(site: Site) -> None:
    with Daemon(site.settings(cache={"max_stale": 4.0, "max_stale_not_found": 4.0})) as daemon:
        await proven(daemon)
        async with away(site):
            assert await kinds(daemon, KNOWN) == {Found}
            await says(daemon, KNOWN[0], is_unavailable)
            assert await kinds(daemon, KNOWN) == {Unavailable}
        await says(daemon, KNOWN[0], lambda answer: isinstance(answer, Found))
        await proven(daemon)
        assert await kinds(daemon, KNOWN) == {Found}


async def test_rights_to_send_are_believed_for_less_long(site: Site) -> None:
    with Daemon(site.settings(cache={"max_stale_senders": 4.0})) as daemon:
        await proven(daemon)
        async with away(site):
            assert await kinds(daemon, list(data.SENDERS_KNOWN)) == {Found}
            assert await kinds(daemon, list(data.SENDERS_UNKNOWN)) == {type(NOT_FOUND)}
            await says(daemon, data.SENDERS_KNOWN[0], is_unavailable)
            assert await kinds(daemon, [*data.SENDERS_KNOWN, *data.SENDERS_UNKNOWN]) == {Unavailable}
            assert await kinds(daemon, KNOWN) == {Found}
            assert await kinds(daemon, UNKNOWN) == {type(NOT_FOUND)}
        await says(daemon, data.SENDERS_KNOWN[0], lambda answer: isinstance(answer, Found))


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_a_restart_without_the_database_answers_from_disk(site: Site, how: str) -> None:
    """Also what was changed a moment before, once it had been seen."""
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        await site.execute(
            "INSERT INTO mailmaps.forwards VALUES ('late@w.test', 'x@elsewhere.test');"
            "DELETE FROM mailmaps.forwards WHERE address = 'team@fixed.test'"
        )
        late, team = (Place("virtual_alias_maps", key) for key in ("late@w.test", "team@fixed.test"))
        await says(daemon, late, Found("x@elsewhere.test"))
        await says(daemon, team, NOT_FOUND)
        for _ in range(2):
            await asyncio.to_thread(daemon.stop if how == "SIGTERM" else daemon.kill)
            async with away(site):
                await asyncio.to_thread(daemon.start)
                known = [place for place in KNOWN if place != team]
                assert await kinds(daemon, [*known, late, *data.SENDERS_KNOWN]) == {Found}
                assert await kinds(daemon, [*UNKNOWN, team, *data.SENDERS_UNKNOWN]) == {type(NOT_FOUND)}
                assert await ask(daemon, late) == Found("x@elsewhere.test")
            await proven(daemon)
            await site.agrees(daemon)


async def test_a_restart_makes_nothing_younger(site: Site) -> None:
    limits = {"max_stale": 6.0, "max_stale_not_found": 6.0, "max_stale_senders": 6.0}
    with Daemon(site.settings(cache=limits)) as daemon:
        await proven(daemon)
        async with away(site):
            await says(daemon, KNOWN[0], is_unavailable)
            for end in (daemon.kill, daemon.stop):
                await asyncio.to_thread(end)
                await asyncio.to_thread(daemon.start)
                assert await kinds(daemon, [*data.KNOWN, *data.UNKNOWN]) == {Unavailable}
        await proven(daemon)


async def test_a_reload_without_the_database_keeps_what_is_held(site: Site) -> None:
    """The reload itself is refused or not; what is answered is as before."""
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        async with away(site):
            await asyncio.to_thread(daemon.command, "reload")
            assert await kinds(daemon, list(data.KNOWN)) == {Found}
            assert await kinds(daemon, list(data.UNKNOWN)) == {type(NOT_FOUND)}
        await proven(daemon)
        await site.agrees(daemon)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def cut_by_a_page(file: Path) -> None:
    os.truncate(file, max(0, file.stat().st_size - 4096))


def overwritten(file: Path) -> None:
    """Every page but the first two, which tell where the others are."""
    with file.open("r+b") as stream:
        for start in range(8192, file.stat().st_size, 4096):
            stream.seek(start)
            stream.write(random.randbytes(4096))


def one_byte_changed(file: Path) -> None:
    """In a value: `s0@fixed.test` goes to somebody else, and nothing of LMDB's own is touched."""
    content = bytearray(file.read_bytes())
    found = -1
    while (found := content.find(b"fixed.test", found + 1)) >= 0:
        content[found : found + 10] = b"wrong.test"
    file.write_bytes(content)


def of_noise(file: Path) -> None:
    file.write_bytes(random.randbytes(100_000))


def of_zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def a_symbolic_link(file: Path) -> None:
    file.rename(file.with_suffix(".aside"))
    file.symlink_to(file.with_suffix(".aside"))


def of_another_table(file: Path) -> None:
    """With all that lies beside it."""
    donor = "virtual_gid_maps" if file.stem == "virtual_uid_maps" else "virtual_uid_maps"
    for other in file.parent.glob(f"{donor}.lmdb*"):
        if other.is_file():
            shutil.copy2(other, file.parent / other.name.replace(donor, file.stem))


def gone(file: Path) -> None:
    file.unlink()


DAMAGES = (
    truncated, emptied, cut_by_a_page, overwritten, one_byte_changed, of_noise, of_zeros, a_symbolic_link,
    of_another_table, gone,
)  # fmt: skip


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("first", [0, 4])
async def test_damaged_files_are_noticed_and_made_anew(site: Site, how: str, first: int) -> None:
    """Each table's in another way. Without the database the answer is "later"; with it, it is made anew."""
    damages = {table: DAMAGES[(first + number) % len(DAMAGES)] for number, table in enumerate(TABLES)}
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        async with site.connect() as connection:
            right = await truth.answers(connection, absent_places())
        await asyncio.to_thread(daemon.stop if how == "SIGTERM" else daemon.kill)
        for table, damage in damages.items():
            damage(daemon.mirrors / f"{table}.lmdb")
        async with away(site):
            await asyncio.to_thread(daemon.start)
            said = {place: await ask(daemon, place) for place in right}
            log = daemon.log()
        wrong = {
            f"{damages[place.table].__name__}: {place}": answer
            for place, answer in said.items()
            if not isinstance(answer, Unavailable)
        }
        assert wrong == {}
        unsaid = [table for table in TABLES if f"{table}.lmdb: " not in log and damages[table] is not gone]
        assert unsaid == [], log
        await proven(daemon)
        await site.agrees(daemon)


async def test_the_files_of_another_database_are_not_believed(site: Site) -> None:
    """The settings name another database, and it is away."""
    async with fresh(site.server) as (other,):
        with Daemon(site.settings()) as daemon:
            await proven(daemon)
            await asyncio.to_thread(daemon.stop)
            daemon.config.write_text(daemon.config.read_text().replace(f"/{site.name}", f"/{other.name}"))
            async with away(site):
                await asyncio.to_thread(daemon.start)
                assert await kinds(daemon, [*data.KNOWN, *data.UNKNOWN]) == {Unavailable}
            await other.execute("DELETE FROM mailmaps.forwards WHERE address = 'team@fixed.test'")
            await proven(daemon)
            await other.agrees(daemon)


@pytest.mark.parametrize("directory", ["/proc/mirrors", "/dev/null/mirrors"])
async def test_a_directory_that_cannot_be_written_keeps_nobody_waiting(site: Site, directory: str) -> None:
    with Daemon(site.settings(mirror={"directory": directory})) as daemon:
        await proven(daemon)
        await site.agrees(daemon)
        assert directory in daemon.log()
        async with away(site):
            assert await kinds(daemon, list(data.KNOWN)) == {Found}


async def test_two_daemons_do_not_share_their_files(site: Site) -> None:
    with Daemon(site.settings()) as first:
        await proven(first)
        with Daemon(site.settings(mirror={"directory": str(first.mirrors)})) as second:
            await proven(second)
            await site.execute("INSERT INTO mailmaps.forwards VALUES ('new@w.test', 'x@elsewhere.test')")
            for daemon in (first, second):
                await says(daemon, Place("virtual_alias_maps", "new@w.test"), Found("x@elsewhere.test"))
                await site.agrees(daemon)
            assert str(first.mirrors) in second.log()
        await site.agrees(first)


async def test_without_mirrors_everything_is_asked(site: Site) -> None:
    """Then what was found once is found in an outage, and nothing else is said."""
    known, never_asked = KNOWN[:20], Place("virtual_alias_maps", "team@fixed.test")
    with Daemon(site.settings(mirror={"enabled": False})) as daemon:
        await site.agrees(daemon)
        assert await kinds(daemon, known) == {Found}
        async with away(site):
            assert await kinds(daemon, known) == {Found}
            assert await kinds(daemon, [Place("virtual_alias_maps", "nobody-new@fixed.test")]) == {
                Unavailable
            }
        await says(daemon, never_asked, lambda answer: isinstance(answer, Found))


async def test_a_change_that_was_told_and_not_yet_read_is_not_denied(site: Site) -> None:
    """Many addresses made, and PostgreSQL gone before they could be read: rows are known to be missing."""
    made = [Place("virtual_alias_maps", f"made{number}@w.test") for number in range(1, MANY, MANY // 20)]
    with Daemon(site.settings()) as daemon:
        await proven(daemon)
        await site.execute(
            "INSERT INTO mailmaps.forwards SELECT 'made' || n || '@w.test', 'x@elsewhere.test' "
            f"FROM generate_series(1, {MANY}) n; CHECKPOINT"
        )
        await says(daemon, made[0], Found("x@elsewhere.test"))
        async with away(site):
            assert type(NOT_FOUND) not in await kinds(daemon, made)
        await proven(daemon)
        await site.agrees(daemon)


async def test_a_daemon_that_was_asleep_does_not_answer_with_what_it_knew(site: Site) -> None:
    """As a virtual machine is while it moves: SIGSTOP for longer than a beat proves something."""
    place = Place("virtual_alias_maps", "team@fixed.test")
    with Daemon(site.settings()) as daemon:
        for number in range(3):
            await proven(daemon)
            os.kill(daemon.pid, signal.SIGSTOP)
            await site.execute(
                f"UPDATE mailmaps.forwards SET target = 'n{number}@elsewhere.test' "
                "WHERE address = 'team@fixed.test' AND target LIKE '%elsewhere.test'"
            )
            await asyncio.sleep(ASLEEP)
            asked = [asyncio.ensure_future(ask(daemon, place, kind)) for kind in ("tcp", "socketmap") * 5]
            await asyncio.sleep(0.2)
            os.kill(daemon.pid, signal.SIGCONT)
            answers = [answer for answer in await asyncio.gather(*asked) if isinstance(answer, Found)]
            assert {answer.value.count(f"n{number}@") for answer in answers} == {1}
