"""Who may relay, as `mailmaps check` and as a real smtpd(8) see it; what is right is not blamed."""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.system.postfix import PrivatePostfix, eventually

from mailmaps.cli.main_cf import merged, readers
from mailmaps.cli.restrictions import Step, lets_serve, steps_of
from mailmaps.cli.smtpd_checks import smtpd_findings
from mailmaps.config import Settings, parse
from mailmaps.findings import Level

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"
FILES = "/var/lib/mailmaps-filemaps"
SETTINGS = 'delivery = "virtual"\n[postfix]\nrecipient_delimiter = "+"\n'
RELAY, RECIPIENT = "smtpd_relay_restrictions", "smtpd_recipient_restrictions"
UNAUTH = "reject_unauth_destination"
EVERY_SMTPD = "smtp/inet, submission/inet, submissions/inet"

# The seed's, and the shipped ones'.
RIGHT = (
    f"permit_sasl_authenticated, {UNAUTH}",
    f"permit_mynetworks, permit_sasl_authenticated, {UNAUTH}",
    "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
    f"check_client_access static:DUNNO, {UNAUTH}",
    f"check_sender_access hash:/etc/postfix/access, {UNAUTH}",
    "Permit_Mynetworks, REJECT_UNAUTH_DESTINATION",
    f"{UNAUTH}, permit",
    f"{UNAUTH}, permit_tls_all_clientcerts, check_client_access static:OK",
    f"check_client_access {{ static:{{550 no}} }}, {UNAUTH}",
    f"check_client_mx_access static:OK, {UNAUTH}",
    f"reject_rbl_client list.test, {UNAUTH}",
)

pytestmark = pytest.mark.postfix


@pytest.fixture
def folder() -> Iterator[Path]:
    """A copy of the shipped configuration with files."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    with TemporaryDirectory(prefix="mailmaps-relay-", dir="/tmp") as name:
        for file in ("main.cf", "master.cf"):
            shutil.copy(EXAMPLES / "virtual" / file, Path(name) / file)
        yield Path(name)


def edit(folder: Path, option: str, *words: str) -> None:
    subprocess.run(["postconf", "-c", str(folder), option, *words], check=True, timeout=20)
    for name in ("main.cf", "master.cf"):
        os.utime(folder / name, (0, 0))  # Postfix's programs wait until a file has not changed for a second


def told(folder: Path, settings: Settings | None = None) -> list[tuple[Level, str, str]]:
    found = merged(smtpd_findings(settings or parse(SETTINGS), readers(folder)))
    return [(one.level, one.subject.removeprefix("master.cf "), one.text) for one in found]


@pytest.mark.parametrize("restrictions", RIGHT)
def test_a_right_list_is_not_blamed(folder: Path, restrictions: str) -> None:
    edit(folder, "-e", f"{RELAY}={restrictions}")
    assert told(folder) == []


def test_the_how_to_s_list_is_told_only_that_the_relay_list_is_empty(folder: Path) -> None:
    own = f"permit_mynetworks, permit_sasl_authenticated, reject_unauth_pipelining, {UNAUTH}"
    edit(folder, "-e", f"{RELAY}=", f"{RECIPIENT}={own}")
    assert [(level, text.partition(":")[0]) for level, _, text in told(folder)] == [
        (Level.WARNING, f"{RELAY} is empty")
    ]
    edit(folder, "-X", RELAY)  # since 2.10 the default of it closes the door
    assert told(folder) == []


@pytest.mark.parametrize(
    ("restrictions", "level", "text"),
    [
        ("permit_sasl_authenticated, warn_if_reject reject_unauth_destination", Level.ERROR, "not serve"),
        ("PERMIT, reject_unauth_destination", Level.ERROR, "not serve"),
        ("warn_if_reject permit, reject_unauth_destination", Level.ERROR, "an open relay"),
        ("mine, reject_unauth_destination", Level.ERROR, "an open relay"),
        ("check_client_access static:OK, reject_unauth_destination", Level.ERROR, "permits everybody"),
        ("Check_Client_Access static:{550}, reject_unauth_destination", Level.ERROR, "permits everybody"),
        ("static:RELAY, reject_unauth_destination", Level.ERROR, "check_recipient_access static:RELAY"),
        (
            f"check_sender_access lmdb:{FILES}/virtual_uid_maps, reject_unauth_destination",
            Level.ERROR,
            f"check_sender_access asks lmdb:{FILES}/virtual_uid_maps, which is virtual_uid_maps",
        ),
        (
            f"check_recipient_access proxy:lmdb:{FILES}/virtual_alias_maps.queued, {UNAUTH}",
            Level.ERROR,
            "which is virtual_alias_maps: its values are no actions",
        ),
        ("permit_naked_ip_address, reject_unauth_destination", Level.ERROR, "anybody may say HELO"),
        ("permit_dnswl_client list.test, reject_unauth_destination", Level.ERROR, "all hosts of that list"),
        ("permit_mx_backup, reject_unauth_destination", Level.WARNING, "permit_mx_backup_networks is empty"),
    ],
)
def test_a_hole_is_named(folder: Path, restrictions: str, level: Level, text: str) -> None:
    edit(folder, "-e", "smtpd_restriction_classes=mine", "mine=PERMIT")
    edit(folder, "-e", f"{RELAY}=permit_sasl_authenticated, {restrictions}")
    [(found_level, subject, found_text)] = told(folder)
    # On the submission ports the shipped master.cf has a list of its own.
    assert (found_level, subject) == (level, "smtp/inet")
    assert text in found_text
    edit(folder, "-e", f"{RECIPIENT}={UNAUTH}")
    assert told(folder) == [], "the other list refuses"


def test_certificates_of_every_authority(folder: Path) -> None:
    edit(folder, "-e", f"{RELAY}=permit_tls_all_clientcerts, {UNAUTH}")
    assert told(folder) == [], "nobody is asked for one"
    edit(folder, "-e", "smtpd_tls_ask_ccert=yes")
    assert told(folder) == [], "none is trusted"
    for value, level in (("/etc/site/ca.pem", Level.WARNING), ("/etc/ssl/certs/all.crt", Level.ERROR)):
        edit(folder, "-e", f"smtpd_tls_CAfile={value}")
        [(found, subject, text)] = told(folder)
        assert (found, subject) == (level, "smtp/inet")
        assert "whoever has a certificate of an authority" in text


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        (["-e", "receive_override_options=no_address_mappings"], EVERY_SMTPD),
        (["-P", "smtp/inet/receive_override_options=no_milters,no_address_mappings"], "smtp/inet"),
        (["-e", "receive_override_options=no_address_mappings", "content_filter=scan:[127.0.0.1]:10024"], ""),
        (["-e", "receive_override_options=no_header_body_checks"], ""),
        (["-e", "receive_override_options=no_address_mappings", "virtual_alias_maps="], ""),
    ],
)
def test_aliases_that_nobody_expands(folder: Path, changes: list[str], wrong: str) -> None:
    edit(folder, *changes)
    found = told(folder)
    assert [(level, subject) for level, subject, _ in found] == ([(Level.ERROR, wrong)] if wrong else [])
    assert all("cleanup(8) does not expand it" in text for _, _, text in found)


def test_a_list_is_read_as_smtpd_reads_it() -> None:
    values = {
        "smtpd_restriction_classes": "Mine check_us",
        "Mine": "warn_if_reject reject, permit",
        "check_us": "defer",
        RELAY: "Warn_If_Reject Mine, MINE, check_us; inline:{ {a.test = OK} }, Sleep 5 "
        "check_helo_access { hash:/x, search_order = full } reject_rbl_client reject".replace(";", ","),
    }
    assert steps_of(values, RELAY) == [
        Step("reject", "", warned=True),
        Step("permit", "", warned=True),
        Step("mine"),
        Step("defer"),
        Step("check_recipient_access", "inline:{ {a.test = OK} }"),
        Step("sleep", "5"),
        Step("check_helo_access", "{ hash:/x, search_order = full }"),
        Step("reject_rbl_client", "reject"),
    ]
    assert lets_serve(values, RELAY), "by the class check_us"


@pytest.mark.parametrize(
    ("restrictions", "takes"),
    [
        ("warn_if_reject permit, reject_unauth_destination", True),
        ("mine, reject_unauth_destination", True),
        ("static:OK, reject_unauth_destination", True),
        ("permit_naked_ip_address, reject_unauth_destination", True),
        ("check_client_access static:DUNNO, REJECT_UNAUTH_DESTINATION", False),
        ("check_client_mx_access static:OK, reject_unauth_destination", False),
    ],
)
def test_postfix_agrees(restrictions: str, takes: bool) -> None:
    """What is called an open relay relays for a stranger, and nothing else does."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    own = {
        RELAY: restrictions,
        RECIPIENT: "reject_non_fqdn_recipient",
        "smtpd_restriction_classes": "mine",
        "mine": "PERMIT",
        "mynetworks": "192.0.2.0/24",
    }
    with PrivatePostfix(own) as postfix:
        errors = [one for one in told(postfix.folder) if one[0] is Level.ERROR]
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=60) as client:
            client.helo("192.0.2.9")
            client.mail("a@stranger.example")
            code, _ = client.rcpt("b@elsewhere.example")
    assert (code == 250, bool(errors)) == (takes, takes)


@pytest.mark.parametrize(
    "restrictions",
    [
        "permit, reject_unauth_destination",
        "permit_sasl_authenticated, warn_if_reject reject_unauth_destination",
    ],
)
def test_postfix_agrees_that_it_does_not_serve(restrictions: str) -> None:
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    with PrivatePostfix({RELAY: f"{UNAUTH}", "mynetworks": ""}) as postfix:
        postfix.configure({RELAY: restrictions, RECIPIENT: "reject_non_fqdn_recipient"})
        assert [text.rpartition(": ")[2] for _, _, text in told(postfix.folder)] == [
            "smtpd(8) does not serve like that"
        ]
        postfix.reload()
        assert eventually(lambda: _gives_up(postfix), 60)


def _gives_up(postfix: PrivatePostfix) -> bool:
    """Whether a new smtpd(8) has said so; a connection may still meet one from before the reload."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", postfix.port), timeout=2) as probe:
        probe.recv(3)
    return "specify at least one working instance of" in postfix.log()
