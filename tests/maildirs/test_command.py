"""`mailmaps maildirs` with a real database and real folders: words and exit codes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.conftest import Database
from tests.maildirs.conftest import listing

from mailmaps.cli.maildirs import maildirs
from mailmaps.demo.data import HOWTO, MORE

pytestmark = pytest.mark.postgres

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to many users: needs root")

Run = Callable[..., Awaitable[tuple[int, list[str]]]]

MADE = [
    "lxtreme.nl/: missing -> 0711 0:0",
    "lxtreme.nl/info/: missing -> 0700 5002:5001 with cur, new, tmp",
    "lxtreme.nl/janwillem.janssen/: missing -> 0700 5001:5001 with cur, new, tmp",
    "second.example/: missing -> 0711 0:0",
    "second.example/anna/: missing -> 0700 5003:5002 with cur, new, tmp",
]
DEFERRED = (
    "virtual(8) makes no box in a folder that its user may not write: mail for a new account is "
    "deferred (4.2.0), not bounced, until this command has made its box"
)


@pytest.fixture
def run(tmp_path: Path, base: Path, database: Database) -> Run:
    """Runs the command: exit code and lines. In a thread, since it brings its own event loop."""

    async def invoke(*words: str, postfix: str | None = None, more: str = "") -> tuple[int, list[str]]:
        postfix = f'virtual_mailbox_base = "{base}"' if postfix is None else postfix
        config = tmp_path / "mailmaps.toml"
        config.write_text(f'[database]\ndsn = "{database.dsn}"\n[postfix]\n{postfix}\n{more}')
        arguments = ["--config", str(config), *words]
        result = await asyncio.to_thread(CliRunner().invoke, maildirs, arguments, catch_exceptions=False)
        return result.exit_code, result.output.splitlines()

    return invoke


def summary(base: Path, text: str) -> list[str]:
    return [f"3 boxes below {base}: {text}"]


@AS_ROOT
async def test_dry_run_then_apply_then_nothing(run: Run, database: Database, base: Path) -> None:
    await database.connection.execute(HOWTO + MORE)
    assert await run() == (
        1,
        [
            *(f"to do: {line}" for line in MADE),
            DEFERRED,
            *summary(base, "5 to do"),
            "nothing was changed; --apply does what is to do",
        ],
    )
    assert listing(base) == {}
    done = [f"done: {line}" for line in MADE]
    assert await run("--apply") == (0, [*done, DEFERRED, *summary(base, "5 done")])
    made = listing(base)
    assert len(made) == 2 + 3 * 4
    nothing = (0, summary(base, "nothing to do"))
    assert await run() == await run("--apply") == nothing
    assert listing(base) == made
    await database.connection.execute("UPDATE user_accounts SET active = '0' WHERE username = 'info_lx'")
    (base / "lxtreme.nl/info/cur/1").write_text("mail")
    assert await run("--apply") == (0, [f"2 boxes below {base}: nothing to do"])
    assert (base / "lxtreme.nl/info/cur/1").read_text() == "mail"


@AS_ROOT
async def test_the_howtos_folders(
    run: Run, database: Database, base: Path, folder: Callable[..., Path]
) -> None:
    """As its listing has them: the group's write bit goes, all else stays, and the command is content."""
    await database.connection.execute(HOWTO)
    folder(".", 0o775)
    folder("lxtreme.nl", 0o770, 101, 5001)
    folder("lxtreme.nl/info", 0o700, 5002, 5001)
    folder("lxtreme.nl/janwillem.janssen", 0o700, 5001, 5001)
    before = listing(base)
    note = "note: the base: 0775 0:0 -> without g+w and o+w: whoever may write it can rename whole domains"
    closed = "lxtreme.nl/: 0770 101:5001 -> 0750: whoever may write it could replace the boxes in it"
    code, lines = await run()
    assert (code, lines[:2]) == (1, [note, f"to do: {closed}"])
    assert listing(base) == before
    code, lines = await run("--apply")
    assert (code, lines[:2], lines[-2:]) == (
        0,
        [note, f"done: {closed}"],
        [DEFERRED, f"2 boxes below {base}: 7 done, 1 note"],
    )
    expected = {"lxtreme.nl": "drwxr-x--- 101:5001"}
    for name, uid in (("info", 5002), ("janwillem.janssen", 5001)):
        for inner in ("cur", "new", "tmp"):
            expected[f"lxtreme.nl/{name}/{inner}"] = f"drwx------ {uid}:5001"
    assert listing(base) == before | expected
    assert await run("--apply") == (0, [note, f"2 boxes below {base}: 1 note"])


@AS_ROOT
async def test_what_is_refused_is_named_and_the_rest_is_done(
    run: Run, database: Database, base: Path
) -> None:
    await database.connection.execute(HOWTO + MORE)
    await database.connection.execute(
        """UPDATE user_accounts SET mailbox = '../../etc' WHERE username = 'info_lx';
        UPDATE user_accounts SET uid = 99 WHERE username = 'anna'"""
    )
    code, lines = await run("--apply")
    assert code == 1
    assert lines == [
        'left alone: ../../etc/: the path has "." or ".." in it (info@lxtreme.nl)',
        *(f"done: {MADE[number]}" for number in (0, 2)),
        "left alone: second.example/anna/: its uid 99 is below 100, virtual_minimum_uid "
        "(anna@second.example)",
        DEFERRED,
        f"1 boxes below {base}: 2 done, 2 left alone",
    ]
    assert not (base / "second.example").exists()
    code, lines = await run("--minimum-uid", "99", "--apply")
    assert lines[-1] == f"2 boxes below {base}: 2 done, 1 left alone"
    assert (base / "second.example/anna").stat().st_uid == 99
    code, lines = await run("--base", str(base), postfix="virtual_minimum_uid = 5002")
    assert lines[1].startswith(
        "left alone: lxtreme.nl/janwillem.janssen/: its uid 5001 is below 5002, virtual_"
    )


@AS_ROOT
async def test_hand_over(run: Run, database: Database, base: Path) -> None:
    await database.connection.execute(HOWTO)
    await run("--apply")
    await database.connection.execute("UPDATE user_accounts SET uid = 6002 WHERE username = 'info_lx'")
    before = listing(base)
    assert (await run("--apply"))[0] == 1
    assert listing(base) == before
    assert (await run("--hand-over"))[0] == 1
    assert listing(base) == before
    assert (await run("--hand-over", "--apply"))[0] == 0
    assert (base / "lxtreme.nl/info/new").stat().st_uid == 6002
    assert await run() == (0, [f"2 boxes below {base}: nothing to do"])


async def test_apply_is_roots(run: Run, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert await run("--apply") == (
        1,
        ["Error: --apply needs root: the folders become those of many users"],
    )


async def test_settings_that_do_not_do(run: Run, base: Path) -> None:
    no_base = "Error: there is no base: set postfix.virtual_mailbox_base, or give --base DIR"
    assert await run(postfix="") == (78, [no_base])
    relative = "Error: the base mail is not an absolute path, which virtual(8) refuses too"
    assert await run("--base", "mail") == (78, [relative])
    for root in ("/", "/.", "//"):
        code, lines = await run("--base", root)
        assert (code, lines[0][-54:]) == (78, "is the whole system; its folders are not ours to judge")
    code, lines = await run("--base", f"{base}/none")
    assert (code, lines[0]) == (
        1,
        f"Error: {base}/none: No such file or directory; the base is not made, it may be a disk's",
    )
    assert not (base / "none").exists()
    cf = '[tables.virtual_gid_maps]\nsources = ["pgsql:/etc/postfix/gids.cf"]'
    code, lines = await run(more=cf)
    assert code == 78
    assert lines[0].startswith(
        "Error: tables.virtual_gid_maps answers from pgsql:/etc/postfix/gids.cf, a query"
    )


async def test_the_base_may_be_a_link(run: Run, database: Database, base: Path) -> None:
    await database.connection.execute(HOWTO)
    link = base.parent / "link"
    link.symlink_to(base)
    code, lines = await run("--base", str(link))
    assert (code, lines[-2]) == (1, f"2 boxes below {link}: 3 to do")


async def test_a_database_that_cannot_be_asked(run: Run, database: Database, base: Path) -> None:
    await database.connection.execute("DROP VIEW mailmaps.virtual_uid_maps")
    missing = 'relation "mailmaps.virtual_uid_maps" does not exist (42P01)'
    assert await run() == (69, [f"Error: the database cannot be asked: {missing}"])


async def test_an_empty_database(run: Run, base: Path) -> None:
    assert await run() == (0, [f"0 boxes below {base}: nothing to do"])
