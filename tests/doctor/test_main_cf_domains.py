"""The classes of domains that main.cf itself names, by real postconf and postmap."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.conftest import Database

from mailmaps.config import parse
from mailmaps.doctor.counted import Counted
from mailmaps.doctor.domains import domain_findings
from mailmaps.doctor.main_cf_domains import class_findings
from mailmaps.doctor.match_list import MatchList, NotAsked
from mailmaps.findings import Level
from mailmaps.maps.search import Rules
from mailmaps.tableset import rules

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"
OURS = ["a.test", "b.test"]

pytestmark = pytest.mark.postfix


@pytest.fixture
def folder() -> Iterator[Path]:
    """A copy of the shipped configuration for LMTP: nothing in it is a file."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    with TemporaryDirectory(prefix="mailmaps-classes-", dir="/tmp") as name:
        folder = Path(name)
        for file in ("main.cf", "master.cf"):
            shutil.copy(EXAMPLES / "lmtp" / file, folder / file)
        (folder / "names").write_text("c.test\n!b.test\n# a.test\nb.test d.test\n")
        (folder / "table").write_text("a.test x\nold.test x\n")
        (folder / "all").write_text("/./ x\n")
        yield folder


def edit(folder: Path, *words: str) -> None:
    named = [word.replace("FOLDER", str(folder)) for word in words]
    subprocess.run(["postconf", "-c", str(folder), *named], check=True, timeout=20)
    for name in ("main.cf", "master.cf"):
        os.utime(folder / name, (0, 0))  # Postfix's programs wait until a file has not changed for a second


def told(folder: Path, our_rules: Rules | None = None) -> list[tuple[Level, str, str]]:
    counted = Counted(None)
    found = list(class_findings(OURS, our_rules or rules(parse("")), counted, folder)) + counted.findings()
    return [(one.level, one.subject, one.text.replace(str(folder), "FOLDER")) for one in found]


@pytest.mark.parametrize(
    "change",
    [
        [],
        ["virtual_alias_domains=other.test"],
        ["relay_domains=other.test, $mydestination"],
        ["relay_domains=regexp:FOLDER/none"],
        ["virtual_alias_domains=!a.test, texthash:FOLDER/table"],
        ["virtual_alias_domains=pgsql:/etc/postfix/none.cf"],  # another check's
        ["mydestination=x.a.test, FOLDER/other"],
    ],
)
def test_what_is_right(folder: Path, change: list[str]) -> None:
    (folder / "none").write_text("/^secret\\.test$/ x\n")
    (folder / "other").write_text("else.test\n")
    edit(folder, *(["-e", *change] if change else ["-n"]))
    assert told(folder) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            "virtual_alias_domains=A.test",
            "a.test is in virtual_mailbox_domains and, by A.test, in virtual_alias",
        ),
        ("virtual_alias_domains=texthash:FOLDER/table", "by texthash:FOLDER/table, in virtual_alias_domains"),
        (
            "mydestination=localhost, proxy:texthash:FOLDER/table",
            "in mydestination, which counts: mail for its",
        ),
        (
            "mydestination=inline:{ b.test=x }",
            "b.test is in virtual_mailbox_domains and, by inline:{ b.test=x }",
        ),
    ],
)
def test_a_class_that_counts_before_ours(folder: Path, change: str, text: str) -> None:
    edit(folder, "-e", change)
    [(level, subject, found)] = told(folder)
    assert (level, subject) == (Level.ERROR, "domains")
    assert text in found


def test_a_class_behind_ours_is_only_a_warning(folder: Path) -> None:
    edit(folder, "-e", "relay_domains=test")
    assert [level for level, _, _ in told(folder)] == [Level.WARNING] * 2, "a name stands for subdomains"
    edit(folder, "-e", "parent_domain_matches_subdomains=")
    assert told(folder) == []
    edit(folder, "-e", "relay_domains=.test")
    assert [level for level, _, _ in told(folder)] == [Level.WARNING] * 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("relay_domains=static:ALL", "static:ALL has every domain there is: this host is an open relay"),
        (
            "relay_domains=regexp:FOLDER/all",
            "regexp:FOLDER/all has every domain there is: this host is an open relay",
        ),
        ("virtual_alias_domains=static:x", "bounces"),
        ("virtual_mailbox_domains=static:x", "no mail leaves this host"),
    ],
)
def test_a_class_that_has_everything(folder: Path, change: str, text: str) -> None:
    edit(folder, "-e", change)
    [(level, subject, found)] = told(folder)
    assert (level, subject) == (Level.ERROR, f"postfix {change.partition('=')[0]}")
    assert text in found


def test_what_trivial_rewrite_alone_is_told_counts(folder: Path) -> None:
    edit(folder, "-P", "rewrite/unix/relay_domains=static:ALL")
    assert [subject for _, subject, _ in told(folder)] == ["postfix relay_domains"]
    edit(folder, "-P", "rewrite/unix/relay_domains=")
    edit(folder, "-P", "cleanup/unix/relay_domains=static:ALL")
    assert told(folder) == []


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    for word in ("FOLDER/gone", "texthash:FOLDER/gone"):
        edit(folder, "-e", f"virtual_alias_domains={word}")
        [(level, subject, text)] = told(folder)
        assert (level, subject) == (Level.WARNING, "postfix virtual_alias_domains")
        assert text.startswith("not looked at: ")


def test_a_match_list(folder: Path) -> None:
    words = f"{folder}/names, texthash:{folder}/table"
    found = MatchList(words, folder).matching(["a.test", "b.test", "c.test", "d.test", "e.test"])
    assert found == {"a.test": f"texthash:{folder}/table", "c.test": "c.test", "d.test": "d.test"}
    with pytest.raises(NotAsked, match="gone"):
        MatchList(f"texthash:{folder}/gone", folder).matching(["a.test"])


async def test_check_tells_of_it(empty_database: Database, folder: Path) -> None:
    await empty_database.connection.execute(
        "CREATE TABLE domains (key text, value text); INSERT INTO domains VALUES ('a.test', 'x')"
    )
    settings = parse(
        f'builtin_tables = false\n[database]\ndsn = "{empty_database.dsn}"\n[postfix]\nconfig_directory = '
        f'"{folder}"\n[tables.virtual_mailbox_domains]\nsources = ["view:public.domains"]\n'
    )
    edit(folder, "-e", "virtual_alias_domains=a.test")
    for named in (None, folder):
        found = await domain_findings(settings, rules(settings), most=5, config_dir=named)
        assert any("by a.test, in virtual_alias_domains" in one.text for one in found)


async def test_an_open_relay_is_seen_without_the_database(folder: Path) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    settings = parse(f'[database]\ndsn = "{dsn}"\n[postfix]\nconfig_directory = "{folder}"\n')
    edit(folder, "-e", "relay_domains=static:ALL")
    found = await domain_findings(settings, rules(settings), most=5)
    assert [one.subject for one in found] == ["domains", "postfix relay_domains"]


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("", ["c.test", "d.test"]),
        ("c.test, $mydestination", ["d.test"]),
        ("FOLDER/names", []),
        ("tcp:127.0.0.1:1, other.test", []),  # asks somebody; which table is another check's
    ],
)
def test_relays_that_postfix_does_not_ask_for(folder: Path, value: str, refused: list[str]) -> None:
    edit(folder, f"relay_domains={value}")
    counted = Counted(None)
    found = list(class_findings(OURS, rules(parse("")), counted, folder, ["c.test", "d.test"]))
    texts = [one.text for one in found + counted.findings() if "to be passed on" in one.text]
    assert [text.partition(" ")[0] for text in texts] == refused
