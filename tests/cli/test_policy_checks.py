"""Is the policy service asked where it must be? As shipped it is; what is wrong is named."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import Database

from mailmaps.cli.check import postfix_findings
from mailmaps.cli.main_cf import readers, smtpds
from mailmaps.cli.policy_checks import asks_us, service_findings, writing_findings
from mailmaps.cli.restrictions import Asked, Smtpd, asked
from mailmaps.config import Settings, parse
from mailmaps.findings import Finding, Level

EXAMPLES = Path(__file__).parent.parent.parent / "postfix"

ASK = "check_policy_service inet:127.0.0.1:17018"
SASL = {"smtpd_sasl_auth_enable": "yes", "mynetworks": "127.0.0.0/8"}

SENDER, DATA = "smtpd_sender_restrictions", "smtpd_data_restrictions"


def smtpd(name: str = "submission/inet", **values: str) -> Smtpd:
    return Smtpd(name, SASL | values)


def told(findings: list[Finding]) -> list[tuple[Level, str]]:
    return [(one.level, one.subject.removeprefix("master.cf ")) for one in findings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("reject_unlisted_sender", None),
        (ASK, ("inet:127.0.0.1:17018", {})),
        ("a,check_policy_service,unix:mailmaps/policy,b", ("unix:mailmaps/policy", {})),
        (
            "check_policy_service { inet:h:1, timeout = 10s, default_action=DUNNO }",
            ("inet:h:1", {"timeout": "10s", "default_action": "DUNNO"}),
        ),
        ("ours", ("inet:h:2", {})),
        ("check_policy_service", ("", {})),
    ],
)
def test_a_list_is_read(text: str, expected: tuple[str, Mapping[str, str]] | None) -> None:
    classes = {
        "smtpd_restriction_classes": "ours, circle",
        "ours": "circle, check_policy_service inet:h:2",
        "circle": "circle",
    }
    found = asked({**classes, SENDER: text})
    assert found == ([Asked(SENDER, *expected)] if expected else [])


@pytest.mark.parametrize(
    ("before", "values", "behind"),
    [
        ("permit_sasl_authenticated", {}, "permit_sasl_authenticated"),
        ("permit_sasl_authenticated", {"smtpd_sasl_auth_enable": "no"}, ""),
        ("permit_mynetworks, permit", {}, "permit_mynetworks"),
        ("warn_if_reject PERMIT", {}, "permit"),
        ("permit_mynetworks", {"mynetworks": ""}, ""),
        ("reject_unlisted_sender, permit", {}, "permit"),
        ("trusted", {"smtpd_restriction_classes": "trusted", "trusted": "permit"}, "permit"),
    ],
)
def test_what_permits_before_is_an_error(before: str, values: dict[str, str], behind: str) -> None:
    found = service_findings(parse(""), [smtpd(**{SENDER: f"{before}, {ASK}", DATA: ASK}, **values)])
    if behind:
        assert told(found) == [(Level.ERROR, "submission/inet")]
        assert f"{SENDER}: {behind} stands before check_policy_service" in found[0].text
    else:
        assert told(found) == [(Level.OK, "policy")]


def test_a_service_whose_refusals_are_only_logged() -> None:
    found = service_findings(parse(""), [smtpd(**{SENDER: f"Warn_If_Reject {ASK}", DATA: ASK})])
    assert told(found) == [(Level.WARNING, "submission/inet")]
    assert f"{SENDER}: warn_if_reject stands before check_policy_service" in found[0].text


def test_a_permit_of_another_list_does_not_matter() -> None:
    relay = {"smtpd_relay_restrictions": "permit_sasl_authenticated, reject"}
    assert told(service_findings(parse(""), [smtpd(**{SENDER: ASK}, **relay)])) == [(Level.OK, "policy")]


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ("", {SENDER: ASK}, []),
        ("login_recipients_day = 500", {SENDER: ASK}, [(Level.WARNING, "limits")]),
        ("domain_messages_hour = 1", {}, [(Level.WARNING, "limits")]),
        ('action = "hold"', {SENDER: ASK}, [(Level.WARNING, "limits")]),
        ("login_recipients_day = 500", {SENDER: ASK, DATA: ASK}, []),
        ("login_recipients_day = 500", {"smtpd_end_of_data_restrictions": ASK}, []),
    ],
)
def test_limits_that_nobody_asks_about(
    settings: str, values: dict[str, str], expected: list[tuple[Level, str]]
) -> None:
    found = service_findings(parse(f"[limits]\n{settings}\n"), [smtpd(**values)])
    assert [one for one in told(found) if one[0] is not Level.OK] == expected


def test_a_door_without_the_check_is_named() -> None:
    doors = [
        smtpd(**{SENDER: ASK, DATA: ASK}),
        smtpd("submissions/inet"),
        smtpd("smtp/inet", smtpd_sasl_auth_enable="no"),
    ]
    assert told(service_findings(parse(""), doors)) == [(Level.WARNING, "submissions/inet")]
    doors[1] = smtpd("submissions/inet", **{SENDER: "reject_authenticated_sender_login_mismatch"})
    assert told(service_findings(parse(""), doors)) == [(Level.OK, "policy")]
    limits = parse("[limits]\nlogin_messages_day = 9\n")
    assert told(service_findings(limits, doors)) == [(Level.WARNING, "submissions/inet")]


def test_observing_beside_the_map() -> None:
    observing = parse('[senders]\nmode = "observe"\n')
    assert told(service_findings(observing, [smtpd(**{SENDER: ASK})])) == [(Level.OK, "policy")] * 2
    both = smtpd(**{SENDER: f"{ASK}, reject_sender_login_mismatch"})
    assert told(service_findings(observing, [both])) == [
        (Level.WARNING, "submission/inet"),
        (Level.OK, "policy"),
    ]
    assert told(service_findings(parse(""), [both])) == [(Level.OK, "policy")]


def test_a_default_action_that_opens_the_door() -> None:
    ours = {SENDER: "check_policy_service { inet:127.0.0.1:17018, default_action=DUNNO }"}
    assert told(service_findings(parse(""), [smtpd(**ours)])) == [(Level.WARNING, "submission/inet")]
    everywhere = {"smtpd_policy_service_default_action": "OK"}
    assert told(service_findings(parse(""), [smtpd(**{SENDER: ASK}, **everywhere)])) == [
        (Level.WARNING, "submission/inet")
    ]
    usual = {"smtpd_policy_service_default_action": "451 4.3.5 Server configuration problem"}
    assert told(service_findings(parse(""), [smtpd(**{SENDER: ASK}, **usual)])) == [(Level.OK, "policy")]


def test_a_port_near_ours_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr("mailmaps.cli.policy_checks.NEAR", range(port, port + 1))
        other = smtpd(**{SENDER: f"check_policy_service inet:127.0.0.1:{port}"})
        assert service_findings(parse(""), [other]) == []
    [found] = service_findings(parse(""), [other])
    assert found.level is Level.WARNING
    assert found.text.endswith("where nobody listens; mailmaps does at 127.0.0.1:17018")
    far = smtpd(
        **{SENDER: "check_policy_service inet:192.0.2.1:17018, check_policy_service unix:private/spf"}
    )
    assert service_findings(parse(""), [far]) == []


@pytest.mark.parametrize(
    ("endpoint", "is_ours"),
    [
        ("inet:127.0.0.1:17018", True),
        ("inet:localhost:17018", True),
        ("inet:127.0.0.1:17019", False),
        ("inet:192.0.2.1:17018", False),
        ("unix:mailmaps/policy", True),
        ("unix:/var/spool/postfix/mailmaps/policy", True),
        ("mailmaps/policy", True),
        ("unix:private/policy", False),
        ("unix:", False),
    ],
)
def test_our_endpoint(endpoint: str, is_ours: bool) -> None:
    settings = parse('[policy]\nunix = "/var/spool/postfix/mailmaps/policy"\n')
    assert asks_us(settings, [smtpd(**{SENDER: f"check_policy_service {endpoint}"})]) is is_ours
    assert not asks_us(
        parse('[policy]\ninet = ""\n'), [smtpd(**{SENDER: f"check_policy_service {endpoint}"})]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of postfix/lmtp."""
    if shutil.which("postconf") is None:
        pytest.skip("Postfix is not installed: make test-packages")
    for name in ("main.cf", "master.cf"):
        shutil.copy(EXAMPLES / "lmtp" / name, tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    return tmp_path


def edit(folder: Path, option: str, *settings: str) -> None:
    """Change it as a user does."""
    subprocess.run(["postconf", "-c", str(folder), option, *settings], check=True, timeout=20)


@pytest.mark.parametrize("example", ["lmtp", "virtual"])
def test_the_shipped_configurations_ask_as_they_must(folder: Path, example: str) -> None:
    for name in ("main.cf", "master.cf"):
        shutil.copy(EXAMPLES / example / name, folder / name)
    settings = parse("[limits]\nlogin_recipients_day = 500\n")
    [found] = service_findings(settings, smtpds(readers(folder)))
    assert found.level is Level.OK
    port25 = f"smtp/inet ({SENDER}); " if example == "lmtp" else ""
    both = f"({SENDER}, {DATA})"
    assert found.text == f"asked by {port25}submission/inet {both}; submissions/inet {both}"


def test_how_postfix_completes_a_sender_matters_when_we_are_asked(folder: Path) -> None:
    def named(settings: Settings) -> set[str]:
        return {one.subject for one in postfix_findings(settings, folder) if one.level is Level.ERROR}

    edit(folder, "-e", "append_dot_mydomain=yes")
    assert "postfix.append_dot_mydomain" in named(parse(""))
    assert "postfix.append_dot_mydomain" not in named(parse('[policy]\ninet = "127.0.0.1:1"\n'))


def test_the_howtos_order_is_an_error(folder: Path) -> None:
    edit(
        folder,
        "-P",
        f"submission/inet/{SENDER}=permit_sasl_authenticated,check_policy_service,inet:127.0.0.1:17018",
    )
    assert (Level.ERROR, "submission/inet") in told(postfix_findings(parse(""), folder))


async def test_the_database_that_is_written_to_is_looked_at(database: Database) -> None:
    assert await writing_findings(parse("")) == []
    found = await writing_findings(parse(f'[database]\nwrite_dsn = "{database.write_dsn}"\n'))
    assert [one.level for one in found] == [Level.OK]
    wrong = database.write_dsn.replace("mailwriter", "nobody")
    [finding] = await writing_findings(parse(f'[database]\nwrite_dsn = "{wrong}"\n'))
    assert finding.level is Level.ERROR
    assert finding.subject == "database.write_dsn"
