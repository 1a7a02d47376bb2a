"""Does each program of Postfix read the right table? As shipped they do; what is wrong is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mailmaps.cli.check import postfix_findings
from mailmaps.cli.postfix_checks import table_findings
from mailmaps.config import Settings, parse
from mailmaps.filemaps.folder import following, is_followed, note_withheld
from mailmaps.findings import Finding, Level

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"
SHIPPED = "/var/lib/mailmaps-filemaps"
NAMES = (
    "virtual_mailbox_domains transport_maps smtpd_sender_login_maps virtual_alias_maps virtual_mailbox_maps "
    "virtual_alias_maps.queued virtual_mailbox_maps.queued virtual_uid_maps virtual_gid_maps"
).split()

pytestmark = pytest.mark.postfix


@dataclass
class Site:
    """A copy of a shipped configuration whose files are there."""

    folder: Path
    delivery: str = "virtual"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def settings(self) -> Settings:
        return parse(f'delivery = "{self.delivery}"\n[filemaps]\ndirectory = "{self.files}"\n')

    def edit(self, option: str, *settings: str) -> None:
        """Change main.cf (-e), master.cf (-P, -M, -X) as a user does."""
        words = ["postconf", "-c", str(self.folder), option, *settings]
        subprocess.run([word.replace("FILES", str(self.files)) for word in words], check=True, timeout=20)
        self.date_back()

    def date_back(self) -> None:
        """Postfix's programs wait until a file has not changed for a second."""
        for name in ("main.cf", "master.cf"):
            os.utime(self.folder / name, (0, 0))

    def without_queued(self) -> None:
        """As with the lines of main.cf alone."""
        self.edit("-PX", "virtual/unix/virtual_mailbox_maps", "cleanup/unix/virtual_alias_maps")

    def findings(self) -> list[Finding]:
        return table_findings(self.settings, self.folder)

    def told(self) -> list[tuple[Level, str, str]]:
        """What is found, the folder's name left out."""
        return [
            (one.level, one.subject.removeprefix("master.cf "), one.text.replace(str(self.files), "FILES"))
            for one in self.findings()
        ]


@pytest.fixture(autouse=True)
def _followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody keeps the files current."""
    monkeypatch.setattr("mailmaps.cli.postfix_checks.is_followed", lambda _: True)


@pytest.fixture
def folder() -> Iterator[Path]:
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    # pytest's own folders are closed to the postfix user, and that is one of the findings.
    with TemporaryDirectory(prefix="mailmaps-check-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def site(folder: Path) -> Site:
    site = Site(folder)
    site.files.mkdir(mode=0o755)
    for name in NAMES:
        (site.files / f"{name}.lmdb").touch(0o644)
    return _copied(site, "virtual")


@pytest.fixture
def lmtp_site(folder: Path) -> Site:
    return _copied(Site(folder, "lmtp:unix:private/dovecot-lmtp"), "lmtp")


def _copied(site: Site, example: str) -> Site:
    for name in ("main.cf", "master.cf"):
        text = (EXAMPLES / example / name).read_text()
        (site.folder / name).write_text(text.replace(SHIPPED, str(site.files)))
    site.date_back()
    return site


def test_the_shipped_configurations_fit(site: Site) -> None:
    fits = (Level.OK, "postfix", "it reads files that are there and fit together")
    assert site.told() == [fits]


def test_lmtp_fits_without_files(lmtp_site: Site) -> None:
    assert lmtp_site.told() == []


def test_virtual_with_network_tables(site: Site) -> None:
    site.without_queued()
    site.edit("-e", "virtual_mailbox_maps=tcp:127.0.0.1:17014", "virtual_uid_maps=proxy:socketmap:inet:h:1:u")
    told = site.told()
    for parameter, table in (
        ("virtual_mailbox_maps", "tcp:127.0.0.1:17014"),
        ("virtual_uid_maps", "socketmap:inet:h:1:u"),
    ):
        text = f"{parameter} has {table}, which virtual(8) refuses: mail is deferred with 4.3.5"
        assert (Level.ERROR, "virtual/unix", text) in told


def test_network_tables_for_virtual_do_not_matter_when_dovecot_delivers(site: Site) -> None:
    site.delivery = "lmtp:unix:private/dovecot-lmtp"
    site.without_queued()
    site.edit("-P", "cleanup/unix/virtual_alias_maps=lmdb:FILES/virtual_alias_maps.queued")
    site.edit("-e", "virtual_mailbox_maps=tcp:127.0.0.1:17014")
    assert [level for level, _, _ in site.told()] == [Level.OK]


@pytest.mark.parametrize(
    ("where", "setting", "services"),
    [
        (
            "-e",
            "virtual_mailbox_maps=tcp:127.0.0.1:17014",
            ["smtp/inet", "submission/inet", "submissions/inet"],
        ),
        ("-P", "smtp/inet/virtual_mailbox_maps=socketmap:inet:127.0.0.1:17020:x", ["smtp/inet"]),
        ("-P", "submission/inet/virtual_alias_maps=tcp:127.0.0.1:17013", ["submission/inet"]),
        ("-P", "cleanup/unix/virtual_alias_maps=tcp:127.0.0.1:17013", ["cleanup/unix"]),
    ],
)  # fmt: skip
def test_two_doors(site: Site, where: str, setting: str, services: list[str]) -> None:
    site.edit(where, setting)
    told = site.told()
    assert [subject for _, subject, _ in told] == services
    for level, _, text in told:
        assert level is Level.ERROR
        assert "asks the daemon" in text
        assert "virtual(8) finds its mailboxes in files" in text


@pytest.mark.parametrize("table", ["tcp:192.0.2.1:17014", "socketmap:inet:127.0.0.1:999:x"])
def test_a_door_of_others(site: Site, table: str) -> None:
    """What somebody else answers, say a list of recipients of another host, is his."""
    site.edit("-P", f"smtp/inet/virtual_mailbox_maps=lmdb:FILES/virtual_mailbox_maps,{table}")
    assert [level for level, _, _ in site.told()] == [Level.OK]


def test_two_doors_for_aliases_in_front_of_dovecot(lmtp_site: Site) -> None:
    lmtp_site.files.mkdir()
    (lmtp_site.files / "virtual_alias_maps.queued.lmdb").touch()
    lmtp_site.edit("-P", "cleanup/unix/virtual_alias_maps=lmdb:FILES/virtual_alias_maps.queued")
    told = lmtp_site.told()
    assert [(level, subject) for level, subject, _ in told] == [
        (Level.ERROR, "smtp/inet"),
        (Level.ERROR, "submission/inet"),
        (Level.ERROR, "submissions/inet"),
    ]
    assert "cleanup(8) finds aliases in files" in told[0][2]


def test_a_socket_is_ours_by_either_of_its_paths(site: Site) -> None:
    unix = "/var/spool/postfix/mailmaps/map"
    settings = site.settings.model_copy(
        update={"socketmap": site.settings.socketmap.model_copy(update={"unix": unix})}
    )
    for path in ("mailmaps/map", unix):
        site.edit("-P", f"smtp/inet/virtual_mailbox_maps=socketmap:unix:{path}:virtual_mailbox_maps")
        assert [one.level for one in table_findings(settings, site.folder)] == [Level.ERROR]
    site.edit("-P", "smtp/inet/virtual_mailbox_maps=socketmap:unix:other/map:virtual_mailbox_maps")
    assert [one.level for one in table_findings(settings, site.folder)] == [Level.OK]


def test_without_the_files_for_mail_in_the_queue(site: Site) -> None:
    site.without_queued()
    site.edit("-e", "virtual_mailbox_maps=hash:/etc/postfix/first, lmdb:FILES/virtual_mailbox_maps")
    findings = site.findings()
    assert [(one.level, one.subject) for one in findings] == [
        (Level.WARNING, "master.cf virtual/unix"),
        (Level.WARNING, "master.cf cleanup/unix"),
    ]
    assert "mail in the queue for a mailbox that was just removed bounces" in findings[0].text
    for finding in findings:
        command, option, words = finding.remedy.split(" ", 2)
        assert (command, option) == ("postconf", "-P")
        site.edit(option, words.strip("'"))
    assert [level for level, _, _ in site.told()] == [Level.OK], "the remedies are right"


def test_smtpd_must_not_accept_what_was_removed(site: Site) -> None:
    site.edit("-e", "virtual_mailbox_maps=lmdb:FILES/virtual_mailbox_maps.queued")
    told = site.told()
    assert [(level, subject) for level, subject, _ in told] == [
        (Level.ERROR, "smtp/inet"),
        (Level.ERROR, "submission/inet"),
        (Level.ERROR, "submissions/inet"),
    ]
    assert "mail for a mailbox that was removed is accepted, and may bounce" in told[0][2]


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("virtual_uid_maps=pgsql:/etc/postfix/uids.cf", True),
        ("virtual_uid_maps=static:5000", False),
        ("virtual_uid_maps=lmdb:FILES/virtual_uid_maps, static:5000", False),
        ("virtual_uid_maps=static:5000 pgsql:/etc/postfix/uids.cf", True),
    ],
)
def test_owners_from_elsewhere(site: Site, setting: str, wrong: bool) -> None:
    site.edit("-e", setting)
    [(level, subject, text)] = site.told()
    assert level is (Level.ERROR if wrong else Level.OK)
    if wrong:
        assert subject == "virtual/unix"
        assert text.startswith(
            "virtual_mailbox_maps and virtual_gid_maps from our files, virtual_uid_maps from elsewhere"
        )


def test_aliases_that_cleanup_does_not_know(site: Site) -> None:
    site.edit("-e", "virtual_alias_maps=lmdb:FILES/virtual_alias_maps, hash:/etc/postfix/virtual")
    found = site.findings()
    assert [(one.level, one.subject.removeprefix("master.cf ")) for one in found] == [
        (Level.ERROR, "smtp/inet"),
        (Level.ERROR, "submission/inet"),
        (Level.ERROR, "submissions/inet"),
    ]
    assert "virtual_alias_maps has hash:/etc/postfix/virtual, which is not in that of" in found[0].text
    command, option, words = found[0].remedy.split(" ", 2)
    assert (command, option) == ("postconf", "-P")
    site.edit(option, words.strip("'"))
    assert [level for level, _, _ in site.told()] == [Level.OK], "the remedy is right"


@pytest.mark.parametrize(
    ("limit", "message", "wrong"),
    [("0", "0", False), ("51200000", "10240000", False), ("100", "10240000", True), ("100", "0", True)],
)
def test_a_limit_that_virtual_does_not_start_with(site: Site, limit: str, message: str, wrong: bool) -> None:
    site.edit("-e", f"virtual_mailbox_limit={limit}", f"message_size_limit={message}")
    [(level, subject, text)] = site.told()
    assert (level, subject) == ((Level.ERROR, "virtual/unix") if wrong else (Level.OK, "postfix"))
    assert ("virtual(8) cannot start" in text) is wrong


def test_a_file_that_is_not_there(site: Site) -> None:
    (site.files / "transport_maps.lmdb").unlink()
    (site.files / "virtual_mailbox_maps.queued.lmdb").unlink()
    assert site.told() == [
        (Level.ERROR, "main.cf", "lmdb:FILES/transport_maps: there is no FILES/transport_maps.lmdb"),
        (
            Level.ERROR,
            "virtual/unix",
            "lmdb:FILES/virtual_mailbox_maps.queued: there is no FILES/virtual_mailbox_maps.queued.lmdb",
        ),
    ]


def test_files_that_nobody_writes_any_more(site: Site) -> None:
    for name in ("transport_maps.cdb", "old.lmdb"):
        (site.files / name).touch()
    site.edit("-e", "transport_maps=cdb:FILES/transport_maps", "canonical_maps=lmdb:FILES/old")
    told = site.told()
    assert sorted(text.partition(":FILES/")[2] for _, _, text in told) == [
        "old: with these settings mailmaps filemaps does not write old.lmdb",
        "transport_maps: with these settings mailmaps filemaps does not write transport_maps.cdb",
    ]
    assert {(level, subject) for level, subject, _ in told} == {(Level.ERROR, "main.cf")}


def test_files_that_virtual_cannot_read(site: Site) -> None:
    for name in ("transport_maps", "virtual_uid_maps"):
        (site.files / f"{name}.lmdb").chmod(0o600)
    [(level, subject, text)] = site.told()
    assert (level, subject) == (Level.ERROR, "virtual/unix"), "all others are opened by root"
    assert text.startswith("lmdb:FILES/virtual_uid_maps cannot be read by postfix")


def test_check_tells_of_it(site: Site) -> None:
    site.edit("-e", "virtual_mailbox_limit=100")
    texts = [one.text for one in postfix_findings(site.settings, site.folder)]
    assert any("virtual_mailbox_limit (100) is less than" in text for text in texts)


def test_files_that_nobody_keeps_current(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.cli.postfix_checks.is_followed", is_followed)
    [(level, _, text)] = site.told()
    assert (level, text) == (Level.WARNING, "nobody keeps the files current at this moment")
    with following(site.files):
        assert [level for level, _, _ in site.told()] == [Level.OK]
        note_withheld(site.files, ["virtual_alias_maps: all of its 7 keys would go"])
        [(level, _, text)] = site.told()
        assert (level, text) == (
            Level.ERROR,
            "virtual_alias_maps: all of its 7 keys would go, and do not",
        )
        note_withheld(site.files, [])
        assert [level for level, _, _ in site.told()] == [Level.OK]
