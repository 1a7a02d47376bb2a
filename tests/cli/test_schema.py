"""`mailmaps schema` as a person runs it: words, exit codes, and nothing done when something is wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Database
from tests.database.site import HOWTO_QUESTIONS, answers, dump, make_howto

from mailmaps.database.migrations import migrations
from mailmaps.database.sql_files import POLICY

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
def mailmaps(
    empty_database: Database,
) -> Callable[..., Coroutine[Any, Any, subprocess.CompletedProcess[str]]]:
    """Run `mailmaps schema ...` on the empty database."""

    async def run(*words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "mailmaps", "schema", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    async def with_dsn(*words: str) -> subprocess.CompletedProcess[str]:
        return await run(*words, "--dsn", empty_database.dsn)

    return with_dsn


async def test_create_then_status(mailmaps: Run) -> None:
    pending = await mailmaps("status")
    assert pending.returncode == 1
    assert pending.stdout.startswith(
        "the database holds no tables of ours, version 0\nthe schema mailpolicy is of version 0\n"
        "pending: 0001 howto\n"
    )
    assert "pending: mailpolicy 0001 policy\n" in pending.stdout
    created = await mailmaps("create")
    assert (created.returncode, created.stderr) == (0, "")
    assert "active is honoured" in created.stdout.splitlines()
    current = await mailmaps("status")
    assert current.returncode == 0
    assert current.stdout == (
        f"the database holds the schema of mailmaps, version {migrations()[-1].version}\n"
        f"the schema mailpolicy is of version {POLICY.migrations()[-1].version}\n"
    )
    again = await mailmaps("create")
    assert again.returncode == 2
    assert "use `mailmaps schema upgrade`" in again.stderr


async def test_the_howtos_database_step_by_step(mailmaps: Run, empty_database: Database) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute("UPDATE user_accounts SET active = '0' WHERE uid = 5002")
    before = dump(empty_database)
    dry = await mailmaps("upgrade", "--dry-run", "--honour-active")
    assert dry.returncode == 0
    assert "would apply 0003 widen" in dry.stdout
    undecided = await mailmaps("upgrade")
    assert undecided.returncode == 2
    assert "info_lx is inactive, yet gets mail today" in undecided.stderr
    assert dump(empty_database) == before
    done = await mailmaps("upgrade", "--ignore-active")
    assert done.returncode == 0, done.stderr
    assert await answers(empty_database) == HOWTO_QUESTIONS


async def test_the_settings_decide_where_no_flag_does(
    mailmaps: Run, empty_database: Database, tmp_path: Path
) -> None:
    config = tmp_path / "mailmaps.toml"
    config.write_text(
        "[database]\nhonour_active = false\n"
        '[postfix]\nrecipient_delimiter = "+-"\nowner_request_special = false\n'
    )
    assert (await mailmaps("create", "--config", str(config))).returncode == 0
    question = "SELECT honour_active, recipient_delimiter, owner_request_special FROM mailmaps.settings"
    assert tuple(await empty_database.connection.fetchrow(question) or ()) == (False, "+-", False)
    assert (await mailmaps("upgrade", "--config", str(config), "--honour-active")).returncode == 0
    assert await empty_database.connection.fetchval(question) is True


async def test_the_schema_of_the_policy_service_alone(mailmaps: Run, empty_database: Database) -> None:
    await empty_database.connection.execute("CREATE TABLE mailbox (username text)")
    newest = POLICY.migrations()[-1].version
    dry = await mailmaps("policy", "--dry-run")
    assert dry.stdout.startswith("would apply mailpolicy 0001 policy\n")
    made = await mailmaps("policy")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == dry.stdout.replace("would apply", "applied")
    status = await mailmaps("status")
    assert (status.returncode, status.stdout) == (
        0,
        f"the database holds no tables of ours, version 0\nthe schema mailpolicy is of version {newest}\n",
    )
    await empty_database.connection.execute("INSERT INTO mailpolicy.schema_version VALUES (999, 'x')")
    for command in ("policy", "status", "create"):
        refused = await mailmaps(command)
        assert refused.returncode == 2
        assert f"mailpolicy is of version 999, this mailmaps knows {newest}" in refused.stderr


async def test_a_database_that_is_not_there(empty_database: Database) -> None:
    words = ["schema", "status", "--dsn", empty_database.dsn.replace(empty_database.name, "nowhere")]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mailmaps", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'database "nowhere" does not exist' in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_role_that_may_not_is_told_so(empty_database: Database) -> None:
    words = ["schema", "create", "--dsn", empty_database.reader_dsn]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mailmaps", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "permission denied" in done.stderr


def test_show_prints_the_sql() -> None:
    words = [sys.executable, "-m", "mailmaps", "schema", "show"]
    whole = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert all(one.sql in whole for one in migrations())
    one = subprocess.run([*words, "3"], capture_output=True, text=True, check=True).stdout
    assert one.startswith("-- 0003_widen.sql\n")
    assert "CREATE VIEW" not in one
    policy = subprocess.run([*words, "--policy"], capture_output=True, text=True, check=True).stdout
    assert policy == "".join(
        f"-- {one.version:04}_{one.name}.sql\n{one.sql}\n" for one in POLICY.migrations()
    )
    assert subprocess.run([*words, "77"], capture_output=True, text=True, check=False).returncode == 2
