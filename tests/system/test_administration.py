"""A mail domain made, used, held and removed by commands alone, with a real Postfix and `filemaps --follow`.

What a command has said is so when it ends: the next RCPT TO sees it. What waits does not bounce.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Database
from tests.system.filemaps import FileMaps
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually_async
from tests.system.smtp import Dialog, send

pytestmark = [pytest.mark.postfix, pytest.mark.postgres]

FILES, BASE = "/var/lib/mailmaps-filemaps", "/var/local/mail"
LIMIT = 60.0


@pytest.fixture
def mail() -> Iterator[Path]:
    """virtual_mailbox_base, empty."""
    mail = Path(tempfile.mkdtemp(prefix="mailmaps-mail-", dir="/tmp"))
    mail.chmod(0o755)
    yield mail
    shutil.rmtree(mail, ignore_errors=True)


class Commands:
    """`mailmaps ...` with one mailmaps.toml."""

    def __init__(self, config: Path) -> None:
        self.config = config

    async def __call__(self, *line: str) -> str:
        done = await self.done(*line)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def done(self, *line: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "mailmaps", *line[:2], "--config", str(self.config), *line[2:]]
        return await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, timeout=120, check=False, input="secret\n"
        )


async def code(postfix: PrivatePostfix, recipient: str) -> int:
    async with Dialog(postfix.port) as dialog:
        return (await dialog.rcpt(recipient)).code


async def test_a_domains_life(database: Database, mail: Path) -> None:
    with FileMaps(
        database.reader_dsn, filemaps={"most_removed": 0.9}, postfix={"virtual_mailbox_base": str(mail)}
    ) as maps:
        text = maps.config.read_text()
        maps.config.write_text(
            text.replace("[database]\n", f'[database]\nadmin_dsn = "{database.admin_dsn}"\n')
        )
        mailmaps = Commands(maps.config)
        await mailmaps("domain", "add", "ex.test")
        await mailmaps("account", "add", "jan", "jan@ex.test", "--password-stdin")
        maps.start()
        async with PrivatePostfix.from_example(
            "virtual", {FILES: str(maps.files), BASE: str(mail)}
        ) as postfix:
            await mailmaps(
                "account", "add", "eva", "eva@ex.test", "--password-stdin", "--address", "e@ex.test"
            )
            await mailmaps("forward", "add", "team@ex.test", "jan@ex.test", "eva@ex.test")
            for recipient in ("jan@ex.test", "eva@ex.test", "e@ex.test", "team@ex.test"):
                reply = await send(postfix.port, recipient, recipient)
                await postfix.removed(reply.queue_id)
            assert len(list((mail / "ex.test/jan/new").iterdir())) == 2
            assert len(list((mail / "ex.test/eva/new").iterdir())) == 3

            await mailmaps("domain", "disable", "ex.test")
            postfix.reload()  # trivial-rewrite(8) and smtpd(8) remember where mail goes (facts 8.1)
            held = await send(postfix.port, "held", "jan@ex.test")
            assert await eventually_async(lambda: "status=deferred" in postfix.log(), LIMIT)
            assert "mail for this domain is on hold" in postfix.log()
            await mailmaps("domain", "enable", "ex.test")
            postfix.reload()
            postfix.flush()
            await postfix.removed(held.queue_id)
            assert len(list((mail / "ex.test/jan/new").iterdir())) == 3

            await mailmaps("address", "disable", "e@ex.test")
            assert await code(postfix, "e@ex.test") == 550
            await mailmaps("address", "enable", "e@ex.test")
            assert await code(postfix, "e@ex.test") == 250
            await mailmaps("account", "disable", "eva")
            assert await code(postfix, "eva@ex.test") in (550, 451)
            await mailmaps("account", "enable", "eva")
            assert await code(postfix, "eva@ex.test") == 250
            await mailmaps("account", "remove", "eva", "--yes")
            assert await code(postfix, "eva@ex.test") == 550
            assert len(list((mail / "ex.test/eva/new").iterdir())) == 3
            assert "status=bounced" not in postfix.log()


async def test_removing_the_only_domain_is_withheld_until_forced(database: Database) -> None:
    with FileMaps(database.reader_dsn) as maps:
        text = maps.config.read_text()
        maps.config.write_text(
            text.replace("[database]\n", f'[database]\nadmin_dsn = "{database.admin_dsn}"\n')
        )
        mailmaps = Commands(maps.config)
        await mailmaps("domain", "add", "ex.test")
        await mailmaps("account", "add", "jan", "jan@ex.test", "--password-stdin")
        maps.start()
        remove = ("domain", "remove", "ex.test", "--with-accounts", "--yes")
        refused = await mailmaps.done(*remove)
        assert refused.returncode == 1, refused.stdout
        assert "keys would go; --force does it all the same; nothing was changed" in refused.stderr
        assert "ex.test" in await mailmaps("domain", "list")
        await mailmaps(*remove, "--force")
        assert await mailmaps("domain", "list", "--json") == ""
