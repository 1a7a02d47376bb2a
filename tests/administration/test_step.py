"""All or nothing, whichever part breaks: folders, files, the database, a signal."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.administration.site import Domain, raises
from tests.conftest import Database

from mailmaps.administration import accounts, domains, files, step
from mailmaps.administration.boxes import Boxes
from mailmaps.administration.files import Files, FilesTrouble
from mailmaps.administration.step import Refusal, Unclear, carry_out, forced
from mailmaps.database.administration import Work
from mailmaps.filemaps import folder
from mailmaps.filemaps.folder import following
from mailmaps.filemaps.targets import listable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mailbox folders need root")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    made = tmp_path / "base"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def site(database: Database, base: Path) -> Domain:
    return Domain(database, base)


async def test_rows_and_folder(site: Domain, base: Path) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    status = (base / "ex.org/jan/new").stat()
    assert (status.st_uid, status.st_gid) == (5001, 5001)


async def test_a_folder_in_the_way(site: Domain, base: Path) -> None:
    await site.domain()
    os.mkfifo(base / "ex.org")
    before = await site.picture()
    assert "is neither file nor folder" in await raises(Refusal, site.account("jan", "jan@ex.org"))
    assert await site.picture() == before


async def test_no_base(site: Domain, base: Path) -> None:
    await asyncio.to_thread(base.rmdir)
    assert "may be a disk's" in await raises(Refusal, site.domain())


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for eight files."""
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=5,mode=755", "tmpfs", str(place)], check=False
    )
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk(database: Database, tiny: Path) -> None:
    site = Domain(database, tiny)
    await site.domain()
    before = await site.picture()
    assert "No space left" in await raises(Refusal, site.account("jan", "jan@ex.org"))
    assert await site.picture() == before


async def test_a_mailbox_with_mail_is_nobodys_by_accident(site: Domain, base: Path) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    (base / "ex.org/jan/new/1").write_text("secret")
    os.chown(base / "ex.org/jan/new/1", 5001, 5001)
    change = await site.do(accounts.remove("jan", with_mail=False))
    assert any(f"stays in {base}/ex.org/jan" in line for line in change.said)
    assert (base / "ex.org/jan/new/1").exists()
    said = await raises(Refusal, site.account("other", "jan@ex.org"))
    assert "there is mail in ex.org/jan already" in said
    assert (await site.account("jan", "jan@ex.org", adopt=True)).result["uid"] == 5001


async def test_with_mail(site: Domain, base: Path) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    (base / "ex.org/jan/new/1").write_text("mail")
    await site.do(accounts.remove("jan", with_mail=True))
    assert not list((base / "ex.org").iterdir())
    assert (await site.account("jan", "jan@ex.org")).result["uid"] == 5002


async def test_what_a_killed_command_left_is_in_nobodys_way(site: Domain, base: Path) -> None:
    await site.domain()
    for name in ("ex.org/jan", "ex.org/jan/new"):
        (base / name).mkdir(parents=True)
        os.chown(base / name, 5777, 5777)
    await site.account("jan", "jan@ex.org")
    assert (base / "ex.org/jan").stat().st_uid == 5001


class Follower(Files):
    """Files whose bringing up fails, or waits."""

    def __init__(self, site: Domain, fails: BaseException | None) -> None:
        self.site = site
        self.fails = fails
        self.reached = asyncio.Event()

    async def bring_up(self, probes: object, *, force: bool = False) -> None:
        self.reached.set()
        if self.fails is not None:
            raise self.fails
        await asyncio.Event().wait()

    async def bring_back(self) -> bool:
        return True


class Ready:
    def __init__(self, follower: Follower) -> None:
        self.follower = follower

    def __call__(self, _: object) -> Ready:
        return self

    def __enter__(self) -> Files:
        return self.follower

    def __exit__(self, *_: object) -> None:
        return


async def test_files_that_fail_after_commit(site: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.domain()
    await site.account("eva", "eva@ex.org", without=["pop3"], addresses=["e@ex.org"])
    before = await site.picture()
    monkeypatch.setattr(step, "ready", Ready(Follower(site, FilesTrouble("the disk is full"))))
    said = await raises(Refusal, site.account("jan", "jan@ex.org", without=["imap"]))
    assert "the disk is full; nothing was changed" in said
    assert await site.picture() == before
    for prepare in (
        accounts.remove("eva", with_mail=True),
        domains.remove("ex.org", with_accounts=True, with_mail=True),
        domains.disable("ex.org"),
        accounts.set_active(["eva"], None, active=False),
        accounts.change("eva", password="x", quota=7, rights={"pop3": True}),
    ):
        await raises(Refusal, site.do(prepare))
        assert await site.picture() == before
    monkeypatch.undo()
    assert (await site.account("jan", "jan@ex.org")).result["uid"] == 5002  # nobody has had it


async def test_a_signal_after_commit(site: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.domain()
    before = await site.picture()
    follower = Follower(site, None)
    monkeypatch.setattr(step, "ready", Ready(follower))
    task = asyncio.ensure_future(site.account("jan", "jan@ex.org"))
    await follower.reached.wait()
    assert await site.value("SELECT count(*) FROM user_accounts") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await site.picture() == before


async def test_what_cannot_be_taken_back_is_said(site: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.domain()

    class Meddling(Follower):
        async def bring_up(self, probes: object, *, force: bool = False) -> None:
            await self.site.database.connection.execute("UPDATE user_accounts SET quota = 99")
            raise FilesTrouble("the disk is full")

    monkeypatch.setattr(step, "ready", Ready(Meddling(site, None)))
    said = await raises(Unclear, site.account("jan", "jan@ex.org"))
    assert "could not be taken back" in said
    assert "changed by somebody else" in said
    assert await site.value("SELECT count(*) FROM user_accounts") == 1
    assert site.base is not None
    assert (site.base / "ex.org/jan").is_dir()


async def test_a_signal_before_commit(site: Domain) -> None:
    await site.domain()
    before = await site.picture()
    reached = asyncio.Event()
    add = accounts.add(accounts.NewAccount("jan", "jan@ex.org", None, folder=True), 100)

    async def slow(work: Work, boxes: Boxes | None) -> step.Change:
        change = await add(work, boxes)
        reached.set()
        await asyncio.Event().wait()
        return change

    task = asyncio.ensure_future(carry_out(site.settings, slow))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await site.picture() == before


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_that_breaks_at_commit(
    site: Domain, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The answer is lost: what became of it is found out on another connection."""
    await site.domain()
    before = await site.picture()
    commit = Work.commit

    async def broken(work: Work) -> None:
        transaction = work._transaction
        assert transaction is not None
        pid = await work.value("SELECT pg_backend_pid()")
        original = transaction.commit

        async def lost() -> None:
            if when == "after":
                await original()
            await site.database.connection.fetch("SELECT pg_terminate_backend($1)", pid)
            await work.connection.fetch("SELECT pg_sleep(5)")

        monkeypatch.setattr(type(transaction), "commit", lambda _: lost(), raising=True)
        try:
            await commit(work)
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(Work, "commit", broken)
    if when == "after":
        await site.account("jan", "jan@ex.org")
        assert await site.value("SELECT count(*) FROM user_accounts") == 1
    else:
        assert "was not committed" in await raises(Refusal, site.account("jan", "jan@ex.org"))
        assert await site.picture() == before


async def test_when_nobody_can_say(site: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailmaps.database import administration

    await site.domain()
    monkeypatch.setattr(administration, "ASKING_LIMIT", 0.0)

    async def lost(work: Work) -> None:
        await work._ask_for("12345")

    monkeypatch.setattr(Work, "commit", lost)
    said = await raises(Unclear, site.account("jan", "jan@ex.org"))
    assert "cannot be said now" in said
    assert "pg_xact_status('12345')" in said


@pytest.mark.postfix
async def test_the_files_follow_in_the_same_step(database: Database, base: Path, tmp_path: Path) -> None:
    there = tmp_path / "files"
    site = Domain(database, base, there)
    await site.domain()
    assert not files.are_used(site.settings)
    with files.ready(site.settings) as none:
        assert none is None
    await site.account("first", "first@ex.org")  # no file is made of nothing
    with ExitStack() as held:  # as `mailmaps filemaps` would once
        await Files(site.settings, listable(site.settings), held).bring_up([])
    assert files.are_used(site.settings)
    await site.account("jan", "jan@ex.org")
    assert _postmap(there, "virtual_mailbox_maps", "jan@ex.org") == "ex.org/jan/"
    await site.do(forced(accounts.remove("jan", with_mail=False)))
    assert _postmap(there, "virtual_mailbox_maps", "jan@ex.org") == ""
    before = await site.picture()
    with following(there):  # another is at work there, and follows nothing
        files_limit, files.FOLLOW_LIMIT = files.FOLLOW_LIMIT, 0.3
        try:
            assert "has not followed" in await raises(Refusal, site.account("eva", "eva@ex.org"))
        finally:
            files.FOLLOW_LIMIT = files_limit
    assert await site.picture() == before


@pytest.mark.postfix
async def test_files_that_are_locked(
    database: Database, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Domain(database, base, tmp_path / "files")
    await _with_files(site)
    before = await site.picture()
    monkeypatch.setattr(folder, "LIMIT", 0.3)
    with folder.held(tmp_path / "files"):
        said = await raises(Unclear, site.account("jan", "jan@ex.org"))
    assert "has been writing for" in said
    assert "run `mailmaps filemaps`" in said  # nor could they be looked at again
    assert await site.picture() == before
    await site.account("jan", "jan@ex.org")


@pytest.mark.postfix
async def test_a_full_disk_under_the_files(database: Database, base: Path, tiny: Path) -> None:
    site = Domain(database, base, tiny, "cdb")
    subprocess.run(["mount", "-o", "remount,nr_inodes=0,size=1m", str(tiny)], check=True)  # noqa: ASYNC221
    await _with_files(site)
    before = await site.picture()
    filler = ["dd", "if=/dev/zero", f"of={tiny}/filler", "bs=4k"]
    subprocess.run(filler, capture_output=True, check=False)  # noqa: ASYNC221
    said = await raises((Refusal, Unclear), site.account("jan", "jan@ex.org"))  # type: ignore[arg-type]
    assert "No space left" in said or "disk" in said.lower() or "postmap" in said, said
    assert await site.picture() == before
    (tiny / "filler").unlink()
    await site.account("jan", "jan@ex.org")


@pytest.mark.postfix
async def test_who_comes_while_another_command_is_at_the_files_does_his_own(
    database: Database, base: Path, tmp_path: Path
) -> None:
    """The other has read before he committed, and ends: nobody else would bring up what he wrote."""
    there = tmp_path / "files"
    site = Domain(database, base, there)
    await _with_files(site)
    with following(there):
        adding = asyncio.ensure_future(site.account("eva", "eva@ex.org"))
        while not await site.value("SELECT true FROM user_accounts WHERE username = 'eva'"):
            await asyncio.sleep(0.05)
        assert not adding.done()
    await adding
    assert _postmap(there, "virtual_mailbox_maps", "eva@ex.org") == "ex.org/eva/"


async def _with_files(site: Domain) -> None:
    """A site whose files are there."""
    await site.domain()
    await site.account("first", "first@ex.org")
    with ExitStack() as held:
        await Files(site.settings, listable(site.settings), held).bring_up([])


def _postmap(there: Path, name: str, key: str) -> str:
    words = ["postmap", "-q", key, f"lmdb:{there / name}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
