"""What `mailmaps check` says of main.cf and master.cf as postconf reads them.

As shipped nothing is wrong. Each case changes one thing of the shipped configuration, as a postmaster would.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.system.ports import steady_ports

from mailmaps.cli.main_cf import merged, readers
from mailmaps.cli.smtpd_checks import smtpd_findings
from mailmaps.cli.socket_checks import socket_findings
from mailmaps.cli.table_checks import table_list_findings
from mailmaps.config import Settings, parse
from mailmaps.findings import Finding, Level

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"
SETTINGS = 'delivery = "lmtp:unix:private/dovecot-lmtp"\n[postfix]\nrecipient_delimiter = "+"\n'
EVERY_SMTPD = "smtp/inet, submission/inet, submissions/inet"
EVERYBODY = f"{EVERY_SMTPD}, cleanup/unix, rewrite/unix, local/unix, virtual/unix"

pytestmark = pytest.mark.postfix


@pytest.fixture
def folder() -> Iterator[Path]:
    """A copy of the shipped configuration for LMTP, with a queue directory that holds the auth socket."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    with TemporaryDirectory(prefix="mailmaps-main-cf-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("main.cf", "master.cf"):
            shutil.copy(EXAMPLES / "lmtp" / file, folder / file)
        (folder / "queue" / "mailmaps").mkdir(parents=True)
        edit(folder, "-e", f"queue_directory={folder}/queue")
        with closing(bound(folder / "queue/mailmaps/auth")):
            yield folder


def bound(path: Path, mode: int = 0o666) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(mode)
    return sock


def edit(folder: Path, option: str, *words: str) -> None:
    """Change main.cf (-e, -X) or master.cf (-P, -F)."""
    subprocess.run(["postconf", "-c", str(folder), option, *words], check=True, timeout=20)
    for name in ("main.cf", "master.cf"):
        os.utime(folder / name, (0, 0))  # Postfix's programs wait until a file has not changed for a second


def told(findings: list[Finding]) -> list[tuple[Level, str, str]]:
    return [(one.level, one.subject.removeprefix("master.cf "), one.text) for one in merged(findings)]


def tables(folder: Path, settings: Settings | None = None) -> list[tuple[Level, str, str]]:
    return told(table_list_findings(settings or parse(SETTINGS), readers(folder)))


def doors(folder: Path, settings: Settings | None = None) -> list[tuple[Level, str, str]]:
    return told(smtpd_findings(settings or parse(SETTINGS), readers(folder)))


def sockets(folder: Path) -> list[tuple[Level, str, str]]:
    return told(socket_findings(readers(folder)))


@pytest.mark.parametrize("example", ["lmtp", "virtual"])
def test_as_shipped_nothing_is_wrong(folder: Path, example: str) -> None:
    for file in ("main.cf", "master.cf"):
        shutil.copy(EXAMPLES / example / file, folder / file)
    edit(folder, "-e", f"queue_directory={folder}/queue")
    assert tables(folder) + doors(folder) + sockets(folder) == []


@pytest.mark.parametrize(
    ("change", "level", "subject", "text"),
    [
        (
            ("-e", "alias_maps=socketmap:inet:192.0.2.1:1:x"),
            Level.ERROR,
            "local/unix",
            "alias_maps has socketmap:inet:192.0.2.1:1:x, which local(8) refuses",
        ),
        (
            ("-X", "virtual_alias_domains"),
            Level.WARNING,
            "postfix virtual_alias_domains",
            "is not set, so Postfix asks tcp:127.0.0.1:17013 about every domain",
        ),
        (
            ("-X", "virtual_mailbox_domains"),
            Level.ERROR,
            "postfix virtual_mailbox_domains",
            "is not set, so Postfix asks tcp:127.0.0.1:17014, which has addresses",
        ),
        (
            ("-e", "virtual_alias_maps=hash:/etc/postfix/virtual, tcp:127.0.0.1:17013"),
            Level.WARNING,
            EVERYBODY,
            "virtual_alias_maps has hash:/etc/postfix/virtual beside ours",
        ),
        (
            ("-e", "transport_maps=proxy:tcp:127.0.0.1:17011"),
            Level.WARNING,
            EVERYBODY,
            "transport_maps asks by proxymap(8)",
        ),
        (
            ("-e", "virtual_alias_maps=tcp:127.0.0.1:17011"),
            Level.ERROR,
            EVERYBODY,
            "virtual_alias_maps asks tcp:127.0.0.1:17011, which is transport_maps",
        ),
        (
            ("-e", "virtual_mailbox_domains=lmdb:/var/lib/mailmaps-filemaps/virtual_alias_maps"),
            Level.ERROR,
            EVERYBODY,
            "virtual_mailbox_domains asks lmdb:/var/lib/mailmaps-filemaps/virtual_alias_maps, which is "
            "virtual_alias_maps: its answers mean something else",
        ),
        (
            ("-e", "virtual_alias_domains=proxy:lmdb:/var/lib/mailmaps-filemaps/virtual_mailbox_domains"),
            Level.ERROR,
            EVERYBODY,
            "which is virtual_mailbox_domains: its answers mean something else",
        ),
        (
            ("-e", "virtual_mailbox_domains=$virtual_mailbox_maps"),
            Level.ERROR,
            EVERYBODY,
            "virtual_mailbox_domains asks tcp:127.0.0.1:17014, which is virtual_mailbox_maps",
        ),
        (
            ("-e", "virtual_alias_domains=$virtual_alias_maps"),
            Level.WARNING,
            "postfix virtual_alias_domains",
            "is $virtual_alias_maps, so Postfix asks tcp:127.0.0.1:17013 about every domain",
        ),
        (
            ("-P", "submission/inet/virtual_alias_maps=socketmap:inet:127.0.0.1:17020:aliases"),
            Level.ERROR,
            "submission/inet",
            "virtual_alias_maps asks socketmap:inet:127.0.0.1:17020:aliases, and mailmaps has no table "
            "aliases",
        ),
        (
            ("-e", "virtual_alias_maps=tcp:127.0.0.1:17020"),
            Level.ERROR,
            EVERYBODY,
            "virtual_alias_maps asks tcp:127.0.0.1:17020, and mailmaps has another protocol there",
        ),
    ],
)
def test_tables(folder: Path, change: tuple[str, str], level: Level, subject: str, text: str) -> None:
    edit(folder, *change)
    [(found_level, found_subject, found_text)] = tables(folder)
    assert (found_level, found_subject) == (level, subject)
    assert text in found_text


def test_a_domain_list_may_be_mixed_and_a_table_lent(folder: Path) -> None:
    edit(
        folder,
        "-e",
        "relay_domains=$mydestination, tcp:127.0.0.1:17031",
        "address_verify_transport_maps=tcp:127.0.0.1:17011",
        "local_recipient_maps=$virtual_mailbox_maps",
    )
    assert tables(folder) == []


def test_the_defaults_of_files(folder: Path) -> None:
    for file in ("main.cf", "master.cf"):
        shutil.copy(EXAMPLES / "virtual" / file, folder / file)
    edit(folder, "-X", "virtual_alias_domains", "virtual_mailbox_domains")
    own = parse('delivery = "virtual"\n[postfix]\nrecipient_delimiter = "+"\n')
    assert [(level, text.partition(",")[0]) for level, _, text in tables(folder, own)] == [
        (Level.WARNING, "is not set"),
        (Level.ERROR, "is not set"),
    ]


def test_an_alias_source_that_knows_bare_keys_is_the_worse_default(folder: Path) -> None:
    edit(folder, "-X", "virtual_alias_domains")
    own = parse(SETTINGS + '[tables.virtual_alias_maps]\nsources = ["view:site.aliases"]\n')
    [(_, _, text)] = tables(folder, own)
    assert text.endswith("a row of view:site.aliases whose key is a domain makes it one")


def test_a_port_where_nobody_listens(folder: Path) -> None:
    [port] = steady_ports(1)
    edit(folder, "-e", f"virtual_alias_maps=tcp:127.0.0.1:{port}")
    [(level, _, text)] = tables(folder)
    assert level is Level.ERROR
    assert f"virtual_alias_maps asks tcp:127.0.0.1:{port}, where nobody listens" in text
    with socket.create_server(("127.0.0.1", port)):
        assert tables(folder) == []


RELAY = "smtpd_relay_restrictions"


@pytest.mark.parametrize(
    ("changes", "level", "subject", "text"),
    [
        (
            [("-e", "mynetworks=127.0.0.0/8 0.0.0.0/0")],
            Level.ERROR,
            EVERY_SMTPD,
            "mynetworks has 0.0.0.0/0: every",
        ),
        ([("-e", "mynetworks=[::]/0")], Level.ERROR, EVERY_SMTPD, "mynetworks has [::]/0: everybody"),
        (
            [("-e", "mynetworks=8.8.0.0/16")],
            Level.WARNING,
            EVERY_SMTPD,
            "8.8.0.0/16: 65,536 addresses may relay",
        ),
        (
            [
                (
                    "-P",
                    f"smtp/inet/{RELAY}=",
                    "smtp/inet/smtpd_recipient_restrictions=reject_unauth_destination",
                )
            ],
            Level.WARNING,
            "smtp/inet",
            f"{RELAY} is empty: what permits in smtpd_recipient_restrictions",
        ),
        (
            [("-P", f"smtp/inet/{RELAY}=permit_mynetworks")],
            Level.ERROR,
            "smtp/inet",
            "smtpd(8) does not serve like that",
        ),
        (
            [("-P", f"submission/inet/{RELAY}=reject")],
            Level.WARNING,
            "submission/inet",
            "no permit_sasl_authenticated lets them send to other domains",
        ),
        (
            [("-P", f"smtp/inet/{RELAY}=permit,reject_unauth_destination")],
            Level.ERROR,
            "smtp/inet",
            "smtpd(8) does not serve like that",
        ),
        (
            [("-P", f"smtp/inet/{RELAY}=check_sender_access,tcp:127.0.0.1:17012,reject_unauth_destination")],
            Level.ERROR,
            "smtp/inet",
            "check_sender_access asks tcp:127.0.0.1:17012, which is virtual_mailbox_domains",
        ),
        (
            [("-P", "smtp/inet/smtpd_sasl_auth_enable=yes", "smtp/inet/smtpd_tls_auth_only=yes")],
            Level.WARNING,
            "smtp/inet",
            "people can log in at port 25",
        ),
        (
            [
                (
                    "-P",
                    "submission/inet/smtpd_tls_security_level=may",
                    "submission/inet/smtpd_tls_auth_only=no",
                )
            ],
            Level.ERROR,
            "submission/inet",
            "passwords are taken without TLS",
        ),
        ([("-e", "smtpd_tls_cert_file=")], Level.ERROR, EVERY_SMTPD, "TLS is offered without a certificate"),
        (
            [("-e", "smtpd_reject_unlisted_recipient=no")],
            Level.WARNING,
            EVERY_SMTPD,
            "smtpd_reject_unlisted_recipient is no",
        ),
        ([("-e", "virtual_mailbox_maps=")], Level.WARNING, EVERY_SMTPD, "virtual_mailbox_maps is empty"),
        (
            [("-e", "relay_domains=tcp:127.0.0.1:17031")],
            Level.WARNING,
            EVERY_SMTPD,
            "relay_recipient_maps is empty",
        ),
    ],
)
def test_doors(folder: Path, changes: list[tuple[str, ...]], level: Level, subject: str, text: str) -> None:
    for option, *words in changes:
        edit(folder, option, *words)
    [(found_level, found_subject, found_text)] = doors(folder)
    assert (found_level, found_subject) == (level, subject)
    assert text in found_text


@pytest.mark.parametrize(
    "changes",
    [
        (
            "-e",
            "mynetworks=127.0.0.0/8 10.0.0.0/8 192.0.2.0/24 8.8.8.0/24 [fe80::]/64 !8.0.0.0/8 hash:/etc/x",
        ),
        ("-P", f"smtp/inet/{RELAY}=reject_unauth_destination,permit"),
        (
            "-P",
            f"smtp/inet/{RELAY}=reject_unauth_destination,check_sender_access,tcp:127.0.0.1:17012",
        ),
        ("-P", "submission/inet/smtpd_tls_auth_only=no"),
        ("-e", "smtpd_tls_chain_files=/etc/ssl/all.pem", "smtpd_tls_cert_file="),
        ("-e", "smtpd_tls_cert_file=", "smtpd_tls_eccert_file=/etc/ssl/ec.pem"),
    ],
)
def test_doors_that_are_right(folder: Path, changes: tuple[str, ...]) -> None:
    edit(folder, *changes)
    assert doors(folder) == []


def test_an_access_table_of_ours_is_only_doubted_where_it_can_be_forged(folder: Path) -> None:
    own = parse(SETTINGS + '[tables.check_sender_access]\ntcp = "127.0.0.1:17050"\nsources = ["view:a.b"]\n')
    table = "check_sender_access,tcp:127.0.0.1:17050"
    edit(folder, "-P", f"smtp/inet/{RELAY}={table},reject_unauth_destination")
    [(level, _, text)] = doors(folder, own)
    assert level is Level.WARNING
    assert "anybody may claim" in text
    edit(folder, "-P", f"smtp/inet/{RELAY}=reject_unauth_destination,{table}")
    assert doors(folder, own) == []


def test_a_socket_outside_of_the_chroot(folder: Path) -> None:
    with closing(bound(folder / "auth")):
        edit(folder, "-P", f"submission/inet/smtpd_sasl_path={folder}/auth")
        [(level, subject, text)] = sockets(folder)
        assert (level, subject) == (Level.ERROR, "submission/inet")
        assert "which this service cannot see" in text
        edit(folder, "-F", "submission/inet/chroot=n")
        assert sockets(folder) == []


def test_a_socket_that_is_not_there_is_none_or_is_closed(folder: Path) -> None:
    policy = "submission/inet/smtpd_data_restrictions=check_policy_service,unix:mailmaps/policy"
    edit(folder, "-P", policy)
    [(level, _, text)] = sockets(folder)
    assert level is Level.WARNING
    assert text.endswith("queue/mailmaps/policy, which is not there")
    path = folder / "queue/mailmaps/policy"
    path.touch()
    [(level, _, text)] = sockets(folder)
    assert (level, text.endswith("which is no socket")) == (Level.ERROR, True)
    path.unlink()
    with closing(bound(path, 0o600)):
        [(level, _, text)] = sockets(folder)
        assert (level, "postfix may not connect to" in text) == (Level.ERROR, True)
        path.chmod(0o666)
        assert sockets(folder) == []
        path.parent.chmod(0o700)
        found = socket_findings(readers(folder))
        assert {one.remedy for one in found} == {f"chmod o+x {path.parent}"}


def test_a_socketmap_in_the_chroot(folder: Path) -> None:
    with closing(bound(folder / "queue/mailmaps/maps")):
        edit(folder, "-e", "virtual_alias_maps=socketmap:unix:mailmaps/maps:virtual_alias_maps")
        assert sockets(folder) == []
        edit(folder, "-e", "virtual_alias_maps=socketmap:unix:mailmaps/gone:virtual_alias_maps")
        assert {level for level, _, _ in sockets(folder)} == {Level.WARNING}
