"""`mailmaps setup postfix` on a real Postfix of our own: what it writes, the way back, what it refuses."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner
from tests.conftest import Database
from tests.system.postfix import PrivatePostfix

from mailmaps import postconf
from mailmaps.cli import main
from mailmaps.config.edit import set_values
from mailmaps.setup import settings_text

pytestmark = [pytest.mark.postgres, pytest.mark.postfix]

FILES = ("main.cf", "master.cf")


@pytest.fixture
def postfix() -> Iterator[PrivatePostfix]:
    """A Postfix that has no table yet."""
    with PrivatePostfix({"recipient_delimiter": "+"}) as found:
        yield found


class Site:
    """mailmaps.toml beside main.cf, with files and mailboxes below Postfix's own folder."""

    def __init__(self, postfix: PrivatePostfix, database: Database) -> None:
        self.postfix = postfix
        self.folder = postfix.folder
        self.config = self.folder / "mailmaps.toml"
        self.files = self.folder / "files"
        self.base = self.folder / "vmail"
        found = postconf.read(self.folder)
        draft = settings_text.draft(self.config, None, {"dsn": database.reader_dsn}, found)
        text = set_values(draft.new, "filemaps", {"directory": json.dumps(str(self.files))})
        text = set_values(text, "postfix", {"virtual_mailbox_base": json.dumps(str(self.base))})
        text = set_values(text, "mirror", {"directory": json.dumps(str(self.folder / "mirror"))})
        text = set_values(text, "control", {"unix": json.dumps(str(self.folder / "control"))})
        self.config.write_text(text)

    async def run(self, *words: str, code: int = 0, typed: str = "") -> str:
        """The command; what it says."""
        arguments = [
            "setup",
            "postfix",
            "--config",
            str(self.config),
            "--config-dir",
            str(self.folder),
            *words,
        ]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, input=typed)
        assert result.exit_code == code, result.output
        return result.output

    def texts(self) -> dict[str, str]:
        return {name: (self.folder / name).read_text() for name in FILES}

    def copies(self) -> list[Path]:
        return sorted(self.folder.glob("*.before-*"))


@pytest_asyncio.fixture
async def site(postfix: PrivatePostfix, database: Database) -> AsyncIterator[Site]:
    yield Site(postfix, database)


async def test_the_lines_are_written_and_the_way_back_is_exact(site: Site) -> None:
    before = site.texts()
    said = await site.run("--reload", typed="y\n")
    written = postconf.parameters(site.folder)
    assert written["virtual_mailbox_domains"] == f"lmdb:{site.files}/virtual_mailbox_domains"
    assert written["virtual_mailbox_base"] == str(site.base)
    assert written["virtual_alias_domains"] == ""
    queued = {(one.service, one.parameter): one.value for one in postconf.all_overrides(site.folder)}
    assert queued["virtual/unix", "virtual_mailbox_maps"] == f"lmdb:{site.files}/virtual_mailbox_maps.queued"
    assert (site.files / "virtual_mailbox_maps.lmdb").exists()
    assert site.base.stat().st_mode & 0o7777 == 0o755
    assert "reload -- version" in site.postfix.log()
    # `postfix check` looks at who owns the queue, which is not as Debian has it here.
    assert [one for one in site.postfix.complaints() if "postfix-script" not in one] == []
    (line,) = [one for one in said.splitlines() if one.startswith("    cp -p ")]
    back = [shlex.split(one) for one in line.split("&&")]
    for words in back[:-1]:  # the last one reloads
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=60)
    assert site.texts() == before


async def test_run_again_it_changes_nothing(site: Site) -> None:
    await site.run("--yes")
    before, copies = site.texts(), site.copies()
    assert "has all of it already" in await site.run()
    assert (site.texts(), site.copies()) == (before, copies)


async def test_no_at_the_question_does_nothing(site: Site) -> None:
    before = site.texts()
    assert "nothing was done" in await site.run(typed="n\n", code=2)
    assert (site.texts(), site.copies()) == (before, [])
    assert not site.base.exists()
    assert not site.files.exists()


async def test_a_postfix_that_asks_pgsql_is_for_migrate(site: Site) -> None:
    cf = site.postfix.write("mailboxes.cf", "hosts = 127.0.0.1\nquery = SELECT 1\ndbname = x\n")
    site.postfix.configure({"virtual_mailbox_maps": f"pgsql:{cf}"})
    before = site.texts()
    said = await site.run("--yes", "--replace", code=2)
    assert "virtual_mailbox_maps" in said
    assert "mailmaps migrate" in said
    assert (site.texts(), site.copies()) == (before, [])


async def test_a_table_of_the_sites_own_is_not_replaced_unasked(site: Site) -> None:
    own = site.postfix.write("virtual", "a@example.org b@example.org\n")
    site.postfix.configure({"virtual_alias_maps": f"texthash:{own}"})
    before = site.texts()
    said = await site.run("--yes", code=2)
    assert f"main.cf: virtual_alias_maps is texthash:{own}" in said
    assert site.texts() == before
    await site.run("--yes", "--replace")
    assert postconf.parameters(site.folder)["virtual_alias_maps"].startswith("lmdb:")


async def test_what_the_site_says_about_notices_stays(site: Site) -> None:
    site.postfix.configure({"notify_classes": "resource, software, policy"})
    await site.run("--yes")
    assert postconf.parameters(site.folder)["notify_classes"] == "resource, software, policy"


async def test_network_tables_are_not_for_virtual_8(site: Site) -> None:
    before = site.texts()
    assert "virtual(8) refuses" in await site.run("--yes", "--map-type", "tcp", code=2)
    assert site.texts() == before


async def test_a_daemon_that_does_not_listen_stops_it(site: Site) -> None:
    text = site.config.read_text().replace('delivery = "virtual"', 'delivery = "lmtp:unix:private/lmtp"')
    for port in range(17011, 17018):
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{port - 17000}")  # echo, discard and their like
    site.config.write_text(text)
    before = site.texts()
    said = await site.run("--yes", code=2)
    assert "nobody listens at 127.0.0.1:12" in said
    assert site.texts() == before


async def test_files_that_postfix_reads_are_not_made_anew(site: Site) -> None:
    """An empty one would bounce mail; what happened to it is for a person to find out."""
    await site.run("--yes")
    (site.files / "virtual_mailbox_domains.lmdb").unlink()
    site.postfix.configure({"virtual_minimum_uid": "4000"})  # something to change
    text = (site.folder / "main.cf").read_text()
    for parameter in ("virtual_mailbox_domains", "transport_maps"):
        text += f"{parameter} = lmdb:{site.files}/{parameter}\n"
    site.postfix.write("main.cf", text)
    said = await site.run("--yes", code=2)
    assert "virtual_mailbox_domains" in said or "look" in said
    assert not (site.files / "virtual_mailbox_domains.lmdb").exists()


async def test_what_postfix_refuses_is_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`postfix check` complains: a program of that name which always does."""
    program = tmp_path / "postfix"
    program.write_text("#!/bin/sh\necho 'postfix: fatal: as told' >&2\nexit 1\n")
    program.chmod(0o755)
    before = site.texts()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/bin")
    said = await site.run("--yes", code=2)
    assert "fatal: as told" in said
    assert (site.texts(), site.copies()) == (before, [])


async def test_the_way_back_is_the_bytes_that_were_there(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A comment in Latin-1, and a `postfix check` that complains in it."""
    with (site.folder / "main.cf").open("ab") as file:
        file.write("# Grüße\n".encode("latin-1"))
    program = tmp_path / "postfix"
    program.write_bytes("#!/bin/sh\necho 'fatal: as told, Grüße' >&2\nexit 1\n".encode("latin-1"))
    program.chmod(0o755)
    before = {name: (site.folder / name).read_bytes() for name in FILES}
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/bin")
    assert "fatal: as told" in await site.run("--yes", code=2)
    assert {name: (site.folder / name).read_bytes() for name in FILES} == before
    assert site.copies() == []


async def test_the_folders_above_the_mailboxes_are_made(site: Site) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace(str(site.base), f"{site.folder}/srv/mail/boxes"))
    await site.run("--yes")
    assert (site.folder / "srv/mail/boxes").stat().st_mode & 0o7777 == 0o755


async def test_programs_of_postfix_are_found_without_sbin(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root by Debian's su(1), and from cron."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "done; the way back" in await site.run("--yes", "--reload")
    assert "reload -- version" in site.postfix.log()


@pytest.mark.parametrize("path", ["/var/spool/postfix/mailmaps/maps", "mailmaps/maps", "/mailmaps/maps"])
async def test_a_socketmap_of_ours_by_a_unix_socket_is_ours(site: Site, path: str) -> None:
    text = site.config.read_text()
    begin, socketmap, rest = text.partition("[socketmap]")
    rest = rest.replace('unix = ""', 'unix = "/var/spool/postfix/mailmaps/maps"', 1)
    site.config.write_text(begin + socketmap + rest)
    site.postfix.configure({"virtual_alias_maps": f"socketmap:unix:{path}:virtual_alias_maps"})
    await site.run(typed="n\n", code=2)
    said = await site.run("--yes")
    assert f"- virtual_alias_maps = socketmap:unix:{path}:virtual_alias_maps" in said
