"""A site made from PostfixAdmin's documentation moves with two commands, and comes back.

The same messages are sent three times: to Postfix with `proxy:pgsql:`, to Postfix with mailmaps, and after
the way back. Delivery is by virtual(8), as that documentation has it: it refuses network tables, so a
migration that forgets it would be seen by deferred mail.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiosmtplib
import asyncpg
import pytest
import pytest_asyncio
from tests.system.lmtp_sink import LmtpSink
from tests.system.postfix import PrivatePostfix
from tests.system.processes import eventually
from tests.system.sites import Login
from tests.system.sites.postfixadmin import SCHEMA, SITE
from tests.system.smtp import PROBE, Refused, send

from mailmaps.config.edit import set_values
from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

DATABASE = "postfixadmin"
PASSWORD = "only in the .cf files"

ROWS = """
INSERT INTO domain (domain, transport, backupmx) VALUES
  ('ex.test', 'virtual', false), ('alias.test', 'virtual', false), ('catch.test', 'virtual', false),
  ('relay.test', 'relay:', true);
INSERT INTO mailbox (username, maildir, domain) VALUES
  ('ann@ex.test', 'ex.test/ann/', 'ex.test'), ('bob@ex.test', 'ex.test/bob/', 'ex.test'),
  ('keeper@catch.test', 'catch.test/keeper/', 'catch.test');
INSERT INTO alias (address, goto, domain) VALUES
  ('ann@ex.test', 'ann@ex.test', 'ex.test'), ('bob@ex.test', 'bob@ex.test', 'ex.test'),
  ('info@ex.test', 'ann@ex.test,bob@ex.test', 'ex.test'), ('away@ex.test', 'x@outside.test', 'ex.test'),
  ('keeper@catch.test', 'keeper@catch.test', 'catch.test'),
  ('@catch.test', 'keeper@catch.test', 'catch.test');
INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('alias.test', 'ex.test');
"""

RECIPIENTS = (
    "ann@ex.test",
    "Ann@EX.test",
    "ann+ext@ex.test",
    "info@ex.test",
    "info+News@ex.test",
    "away+Tag@ex.test",
    "ann@alias.test",
    "info+x@alias.test",
    "whoever@catch.test",
    "keeper+x@catch.test",
    "nobody@ex.test",
    "nobody@alias.test",
    "x@sub.ex.test",
    "x@sub.relay.test",
    "x@nowhere.test",
    '"ann bee"@ex.test',
    '"quoted"@catch.test',
)


@dataclass
class Site:
    """PostgreSQL, Postfix with PostfixAdmin's files, and where mail for others ends."""

    postgres: EmbeddedPostgres
    postfix: PrivatePostfix
    outside: LmtpSink
    mail: Path

    async def outcome(self, round_: str) -> dict[str, object]:
        """What became of one message to each of `RECIPIENTS`: the reply, or who got it where."""
        sent = (self._send(f"{round_} {address}", address) for address in RECIPIENTS)
        return dict(zip(RECIPIENTS, await asyncio.gather(*sent), strict=True))

    async def _send(self, probe: str, address: str) -> object:
        try:
            reply = await send(self.postfix.port, probe, address)
        except aiosmtplib.SMTPServerDisconnected as error:
            raise AssertionError(f"{probe}\n{self.postfix.log()[-6000:]}") from error
        except Refused as refused:
            return refused.reply.code, refused.reply.text.partition(":")[0]
        await self.postfix.removed(reply.queue_id)
        return self.outside.recipients(PROBE, probe) + sorted(self._maildirs(probe))

    def _maildirs(self, probe: str) -> Iterator[str]:
        for file in self.mail.glob("*/*/new/*"):
            headers = file.read_text().partition("\n\n")[0]
            if f"{PROBE}: {probe}\n" in headers:
                delivered_to = headers.partition("Delivered-To: ")[2].partition("\n")[0]
                yield f"{file.parent.parent.relative_to(self.mail)} as {delivered_to}"

    def main_cf(self) -> str:
        return subprocess.run(
            ["sh", "-c", f"postconf -c {self.postfix.folder} -n; postconf -c {self.postfix.folder} -M"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def run_script(self, script: Path) -> None:
        subprocess.run(["sh", str(script)], check=True, capture_output=True)
        for name in ("main.cf", "master.cf"):
            os.utime(self.postfix.folder / name, (0, 0))  # Postfix waits a second for a file just written
        self.postfix.reload()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(mail_postgres: EmbeddedPostgres, outside: LmtpSink) -> AsyncIterator[Site]:
    await _fill(mail_postgres)
    async with AsyncExitStack() as stack:
        mail = Path(stack.enter_context(TemporaryDirectory(prefix="mailmaps-maildirs-", dir="/tmp")))
        owner = pwd.getpwnam("postfix")
        os.chown(mail, owner.pw_uid, owner.pw_gid)
        postfix = PrivatePostfix({})
        postfix.settings.update(_main_cf(postfix.folder, mail, outside, owner.pw_uid, owner.pw_gid))
        login = Login(f"127.0.0.1:{mail_postgres.port}", "postfixadmin", PASSWORD, DATABASE)
        for name in SITE.files:
            postfix.write(name, SITE.file(name, login))
        await stack.enter_async_context(postfix)
        yield Site(mail_postgres, postfix, outside, mail)


def _main_cf(folder: Path, mail: Path, outside: LmtpSink, uid: int, gid: int) -> dict[str, str]:
    """The lines that PostfixAdmin's documentation asks for, with this test's own delivery to others."""

    def maps(parameter: str) -> str:
        return ",\n  ".join(f"proxy:pgsql:{folder}/{name}" for name in SITE.sources(parameter))

    return {
        "virtual_mailbox_domains": maps("virtual_mailbox_domains"),
        "virtual_alias_maps": maps("virtual_alias_maps"),
        "virtual_mailbox_maps": maps("virtual_mailbox_maps"),
        "relay_domains": f"$mydestination, {maps('relay_domains')}",
        "transport_maps": maps("transport_maps"),
        "smtpd_sender_login_maps": maps("smtpd_sender_login_maps"),
        "smtpd_sender_restrictions": "reject_unauthenticated_sender_login_mismatch",
        "virtual_mailbox_base": str(mail),
        "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{uid}",
        "virtual_gid_maps": f"static:{gid}",
        "default_transport": outside.nexthop,
        "relay_transport": outside.nexthop,
        "recipient_delimiter": "+",
    }


async def _fill(postgres: EmbeddedPostgres) -> None:
    server = await asyncpg.connect(postgres.dsn())
    try:
        await server.execute(f"CREATE DATABASE {DATABASE}")
        await server.execute(f"CREATE ROLE postfixadmin LOGIN PASSWORD '{PASSWORD}'")
    finally:
        await server.close()
    connection = await asyncpg.connect(postgres.dsn(DATABASE))
    try:
        await connection.execute(SCHEMA + ROWS)
        await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO postfixadmin")
    finally:
        await connection.close()


def mailmaps(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a postmaster does."""
    command = [sys.executable, "-m", "mailmaps", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def serving(folder: Path, port: int) -> Iterator[Path]:
    """`mailmaps serve` with the file that `mailmaps migrate` wrote; only the control socket is moved."""
    config = folder / "mailmaps.toml"
    text = set_values(config.read_text(), "control", {"unix": f'"{folder}/control.sock"'})
    config.write_text(set_values(text, "cache", {"ttl": "0.0", "negative_ttl": "0.0"}))
    with (folder / "log").open("wb") as log:
        words = [sys.executable, "-m", "mailmaps", "serve", "--config", str(config)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        answers = eventually(lambda: process.poll() is not None or _listens(port), 30.0)
        assert answers, (folder / "log").read_text()
        assert process.poll() is None, (folder / "log").read_text()
        yield config
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_range(length: int) -> int:
    """The first of so many ports in a row that nobody listens on, outside the ephemeral range."""
    while True:
        first = random.randrange(20000, 32000 - length)
        if not any(_listens(port) for port in range(first, first + length)):
            return first


@pytest.mark.parametrize("map_type", ["tcp", "socketmap"])
async def test_there_and_back(site: Site, tmp_path: Path, map_type: str) -> None:
    before, main_cf = await site.outcome(f"{map_type} before"), site.main_cf()
    assert before["ann+ext@ex.test"] == ["ex.test/ann as ann+ext@ex.test"], "the site works"
    assert before["away+Tag@ex.test"] == ["x+Tag@outside.test"]
    first, out = free_range(20), tmp_path / "moved"
    migrate = ["--config-dir", str(site.postfix.folder), "--map-type", map_type, "--first-port", str(first)]
    done = await asyncio.to_thread(mailmaps, "migrate", *migrate, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in "".join(file.read_text() for file in out.iterdir()) + done.stdout
    assert site.main_cf() == main_cf, "nothing has been touched"
    with serving(out, first) as config:
        await _compare(site, config, tmp_path)
        await asyncio.to_thread(site.run_script, out / "switch.sh")
        lines = [line for line in site.main_cf().splitlines() if "pgsql:" in line]
        names = [line.split()[0] for line in lines]
        assert names == ["proxy_read_maps", "virtual"], "only virtual(8) asks PostgreSQL"
        assert await site.outcome(f"{map_type} moved") == before
        await asyncio.to_thread(site.run_script, out / "back.sh")
        assert site.main_cf() == main_cf
    assert await site.outcome(f"{map_type} back") == before
    assert [line for line in site.postfix.complaints() if "map" in line or "table" in line] == []


async def _compare(site: Site, config: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{address}\n" for address in RECIPIENTS))
    for source in (["--keys", str(keys)], ["--all"], ["--maillog", str(site.postfix.log_file)]):
        done = await asyncio.to_thread(mailmaps, "compare", "--config", str(config), *source)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ": 0 different, 0 that one side cannot say, 0 that neither can say\n" in done.stdout
        assert "no keys from" not in done.stderr


async def test_a_difference_is_found(site: Site, tmp_path: Path) -> None:
    first, out = free_range(20), tmp_path / "moved"
    words = ["--config-dir", str(site.postfix.folder), "--first-port", str(first), "--out", str(out)]
    await asyncio.to_thread(mailmaps, "migrate", *words)
    config = out / "mailmaps.toml"
    config.write_text(config.read_text().replace('recipient_delimiter = "+"', 'recipient_delimiter = ""'))
    keys = tmp_path / "keys"
    keys.write_text("info+News@ex.test\ninfo@ex.test\n")
    with serving(out, first) as served:
        # A wrong [postfix] section is the daemon's alone: the old side goes by Postfix's own settings.
        command = ["compare", "--config", str(served), "--keys", str(keys), "--table", "virtual_alias_maps"]
        done = await asyncio.to_thread(mailmaps, *command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == (
        "different: virtual_alias_maps info+News@ex.test: "
        "old 'ann+News@ex.test,bob+News@ex.test', new not found\n"
        "2 lookups, 2 of them found: 1 different, 0 that one side cannot say, 0 that neither can say\n"
    )


async def test_a_daemon_or_a_database_that_is_away(site: Site, tmp_path: Path) -> None:
    first, out = free_range(20), tmp_path / "moved"
    words = ["--config-dir", str(site.postfix.folder), "--first-port", str(first), "--out", str(out)]
    await asyncio.to_thread(mailmaps, "migrate", *words)
    keys = tmp_path / "keys"
    keys.write_text("info@ex.test\n")
    command = ["compare", "--config", str(out / "mailmaps.toml"), "--keys", str(keys)]
    done = await asyncio.to_thread(mailmaps, *command)
    assert done.returncode == 75
    assert "mailmaps does not answer for" in done.stderr
    with serving(out, first):
        site.postgres.stop()
        try:
            done = await asyncio.to_thread(mailmaps, *command, "--table", "virtual_alias_maps")
        finally:
            site.postgres.start()
    assert done.returncode == 75, done.stdout + done.stderr
    assert done.stdout.startswith("neither can say: virtual_alias_maps info@ex.test: old cannot say (")
    assert PASSWORD not in done.stdout + done.stderr
