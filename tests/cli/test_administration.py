"""The commands as they are typed: what comes by argv, stdin and a terminal, what goes out, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Database

from mailmaps.auth.passwords import verify

LIMIT = 60.0
COMMAND = [sys.executable, "-m", "mailmaps"]


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Path:
    path = tmp_path / "mailmaps.toml"
    path.write_text(f'''
[database]
dsn = "{database.reader_dsn}"
admin_dsn = "{database.admin_dsn}"
[filemaps]
directory = "{tmp_path / "none"}"
''')
    return path


def words(config: Path, line: str) -> list[str]:
    command, name, *rest = line.split()
    if command in ("import", "export"):
        return [*COMMAND, command, "--config", str(config), *([name, *rest] if name else rest)]
    return [*COMMAND, command, name, "--config", str(config), *rest]


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


async def run(config: Path, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        words(config, line),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


async def done(config: Path, line: str, stdin: str = "") -> str:
    result = await run(config, line, stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


async def test_from_nothing_to_an_account(database: Database, config: Path) -> None:
    await done(config, "domain add Ex.org")
    out = await done(config, "account add jan jan@ex.org --quota 5 --password-stdin --json", "geheim\n")
    made = json.loads(out)
    assert (made["username"], made["uid"], made["quota"]) == ("jan", 5001, 5)
    assert "geheim" not in out
    stored = await database.connection.fetchval("SELECT password FROM user_accounts")
    assert verify(b"geheim", stored)
    await done(config, "account passwd jan --password-stdin", "neu\n")
    assert verify(b"neu", await database.connection.fetchval("SELECT password FROM user_accounts"))
    await done(config, "address add jan j.w@ex.org")
    await done(config, "forward add team@ex.org jan@ex.org x@else.example")
    assert json.loads(await done(config, "forward show team@ex.org --json"))["targets"] == [
        "jan@ex.org",
        "x@else.example",
    ]
    assert json.loads(await done(config, "address show j.w@ex.org --json"))["username"] == "jan"
    assert "jan@ex.org" in await done(config, "account show jan")
    await done(config, "account change jan --forbid pop3 --quota 9")
    assert json.loads(await done(config, "account list --json")) | {"pop3": False, "quota": 9} == json.loads(
        await done(config, "account list --json --domain ex.org")
    )
    for line in (
        "address disable j.w@ex.org",
        "address enable j.w@ex.org",
        "forward disable team@ex.org",
        "forward enable team@ex.org",
        "account disable jan",
        "account enable jan",
        "domain disable ex.org",
        "domain enable ex.org",
        "forward remove team@ex.org --yes",
        "address remove j.w@ex.org --yes",
        "account remove jan --yes",
        "domain remove ex.org --yes",
    ):
        await done(config, line)
    assert await database.connection.fetchval("SELECT count(*) FROM domains") == 0


async def test_what_is_refused(database: Database, config: Path) -> None:
    await done(config, "domain add ex.org")
    for line, stdin, code, said in (
        ("domain add ex.org", "", 1, "is a domain of ours already; nothing was changed"),
        ("domain add ex..org", "", 1, "is no domain; nothing was changed"),
        ("domain remove ex.org", "", 1, "say --yes; nothing was changed"),
        ("account add jan jan@ex.org", "", 1, "--password-stdin takes it; nothing was changed"),
        ("account add jan jan@ex.org --password-stdin", "a\nb\n", 1, "must have one line"),
        ("account add jan jan@ex.org --hash-stdin", "!\n", 1, "no hash"),
        ("account add jan jan@ex.org --hash-stdin", "my password\n", 1, "no hash"),
        ("account show jan", "", 1, "there is no account jan"),
        ("account add jan jan@ex.org --folder --no-login", "", 1, "virtual_mailbox_base is not set"),
        ("account change jan", "", 2, "say what shall change"),
    ):
        result = await run(config, line, stdin)
        assert (result.returncode, said in result.stderr) == (code, True), (line, result)
    replace(config, "admin_dsn", "# admin_dsn")
    assert "database.admin_dsn is not set" in (await run(config, "domain list")).stderr
    replace(config, "[filemaps]", '[tables.virtual_alias_maps]\nsources = ["view:public.alias"]\n[filemaps]')
    assert "these are not our tables" in (await run(config, "domain add x.org")).stderr


def test_no_password_is_in_argv_or_the_help() -> None:
    for line in ("account add", "account passwd"):
        text = subprocess.run(
            [*COMMAND, *line.split(), "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert "--password " not in text


def at_a_terminal(config: Path, line: str, typed: list[tuple[str, str]]) -> tuple[int, str]:
    """Type after each of these questions; the exit code and what was shown."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], words(config, line))  # noqa: S606
    shown = ""
    try:
        while True:
            try:
                shown += os.read(fd, 4096).decode()
            except OSError:
                break
            if typed and typed[0][0] in shown.rpartition("\n")[2]:
                os.write(fd, typed.pop(0)[1].encode() + b"\n")
                shown += "\n"
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


async def test_at_a_terminal(database: Database, config: Path) -> None:
    await done(config, "domain add ex.org")
    twice = [("Password", "geheim"), ("Repeat", "geheim")]
    code, shown = await asyncio.to_thread(at_a_terminal, config, "account add jan jan@ex.org", twice)
    assert code == 0, shown
    assert "geheim" not in shown
    assert verify(b"geheim", await database.connection.fetchval("SELECT password FROM user_accounts"))
    code, shown = await asyncio.to_thread(at_a_terminal, config, "account remove jan", [("Yes?", "n")])
    assert code == 1
    assert "would be removed jan with jan@ex.org" in shown
    code, shown = await asyncio.to_thread(at_a_terminal, config, "account list", [])
    assert "username" in shown
    code, shown = await asyncio.to_thread(at_a_terminal, config, "account remove jan", [("Yes?", "y")])
    assert code == 0
    assert await database.connection.fetchval("SELECT count(*) FROM user_accounts") == 0


async def test_a_list_into_head(database: Database, config: Path) -> None:
    await database.connection.execute(
        """INSERT INTO domains VALUES (5001, 'ex.org');
           INSERT INTO user_accounts
           SELECT 'u' || g, g, 5001, 'x', 'u' || g || '@ex.org', 'ex.org/u' || g, 0, '1'
           FROM generate_series(1, 20000) g"""
    )
    command = " ".join(words(config, "account list --json"))
    shell = ["bash", "-c", f"{command} | head -2; echo ${{PIPESTATUS[0]}}"]
    result = await asyncio.to_thread(
        subprocess.run, shell, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 3
    assert len((await done(config, "account list --like u1999*")).splitlines()) == 11
    assert len((await done(config, "account list")).splitlines()) == 20000


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_the_middle(database: Database, config: Path, signum: signal.Signals) -> None:
    await done(config, "domain add ex.org")
    async with database.connect() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE user_accounts IN ACCESS EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(
            *words(config, "account add jan jan@ex.org --no-login"), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(LIMIT):
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'user_accounts'::regclass"
            )
            while not await database.connection.fetchval(waiting):
                await asyncio.sleep(0.05)
            process.send_signal(signum)
            _, said = await process.communicate()
        await transaction.rollback()
    assert process.returncode == 130
    assert b"interrupted; nothing was changed" in said
    assert await database.connection.fetchval("SELECT count(*) FROM user_accounts") == 0


async def test_import_and_export(database: Database, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text(
        "kind,domain,username,address\ndomain,ex.org,,\naccount,,jan,jan@ex.org\naccount,,eva,jan@ex.org\n"
    )
    for option, words_ in (("", "nothing was changed"), ("--dry-run", "would be refused: 1 lines")):
        result = await run(config, f"import {file} {option}")
        assert result.returncode == 65
        assert f"{file}:4: address: is an address of jan in line 3" in result.stderr
        assert words_ in result.stderr
    assert await database.connection.fetchval("SELECT count(*) FROM domains") == 0
    file.write_text(file.read_text().replace("eva,jan@", "eva,eva@"))
    assert "account: would be 2 new" in await done(config, f"import {file} --dry-run")
    assert "account: 2 new" in await done(config, f"import {file}")
    out = tmp_path / "out.csv"
    await done(config, f"export --output {out}")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "account: 0 new, 0 changed, 2 the same" in await done(config, f"import {out}")
    assert "password_hash" not in out.read_text()
    assert "File exists" in (await run(config, f"export --output {out}")).stderr


@pytest.mark.parametrize(("shell", "check"), [("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)])
def test_completion(shell: str, check: list[str] | None) -> None:
    script = subprocess.run(
        [*COMMAND, "completion", shell], capture_output=True, text=True, check=True
    ).stdout
    assert "_MAILMAPS_COMPLETE" in script
    if check:
        subprocess.run(check, input=script, text=True, check=True)
    asked = {
        **os.environ,
        "_MAILMAPS_COMPLETE": "bash_complete",
        "COMP_WORDS": "mailmaps account a",
        "COMP_CWORD": "2",
    }
    code = "import sys; sys.argv = ['mailmaps']; from mailmaps.cli import main; main(prog_name='mailmaps')"
    told = subprocess.run(
        [sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False
    ).stdout
    assert told == "plain,add\n"
