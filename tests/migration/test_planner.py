"""What becomes of the uses of `pgsql:`, decided on what a real postconf says, and rehearsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.migration.conftest import MakePostfix

from mailmaps.config.settings import Postfix
from mailmaps.migration import configuration, files, planner, rehearsal, services, uses
from mailmaps.migration.plan import Change, Endpoints, Plan

pytestmark = pytest.mark.postfix

TCP = "tcp:127.0.0.1"


def plan_of(folder: Path, endpoints: Endpoints | None = None) -> Plan:
    """Plan and rehearse."""
    site = configuration.read(folder)
    postfix = Postfix(mail_version=site.version, config_directory=str(folder))
    made = planner.make(
        site, uses.find(site), lambda source: files.inspect(source, postfix), endpoints or Endpoints("tcp")
    )
    rehearsal.rehearse(site, made)
    return made


def new_values(plan: Plan) -> dict[str, str]:
    """The new values but that of proxy_read_maps, by parameter or "service parameter"."""
    changes = [one for one in plan.changes if one.parameter != "proxy_read_maps"]
    return {f"{one.service} {one.parameter}".strip(): one.new for one in changes}


def reasons(plan: Plan) -> dict[str, str]:
    return {fate.use.place: fate.why for fate in plan.staying}


def test_a_list_becomes_one_table(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_alias_domains =\n"
        "virtual_alias_maps = proxy:pgsql:$config_directory/a.cf,\n  pgsql:$config_directory/b.cf\n"
    )
    plan = plan_of(folder)
    assert new_values(plan) == {"virtual_alias_maps": f"{TCP}:17013"}
    table = plan.tables[0]
    assert (table.name, table.parameter, table.port) == ("virtual_alias_maps", "virtual_alias_maps", 17013)
    assert table.sources == (f"pgsql:{folder}/a.cf", f"pgsql:{folder}/b.cf")
    assert plan.changes[:-1] == [
        Change(
            "virtual_alias_maps",
            "",
            "proxy:pgsql:$config_directory/a.cf, pgsql:$config_directory/b.cf",
            f"{TCP}:17013",
            "",
        )
    ]


def test_a_parameter_of_the_sites_own_is_followed(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "sql = proxy:pgsql:$config_directory\nmine = ${sql}/c.cf\n"
            "transport_maps = $sql/a.cf, ${mine}\nrelay_recipient_maps = $mine\n"
        )
    )
    assert new_values(plan) == {
        "relay_recipient_maps": f"{TCP}:17032",
        "transport_maps": f"{TCP}:17011",
    }, "and address_verify_transport_maps is still $transport_maps"
    assert [len(table.sources) for table in plan.tables] == [1, 2]
    assert [fate.use.parameter for fate in plan.fates if fate.follows] == ["address_verify_transport_maps"]


def test_two_parameters_with_one_file_are_two_tables(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "virtual_mailbox_domains = x\nvirtual_mailbox_maps = pgsql:$config_directory/a.cf\n"
            "smtpd_sender_login_maps = $virtual_mailbox_maps\n"
        )
    )
    assert {table.name: table.port for table in plan.tables} == {
        "smtpd_sender_login_maps": 17017,
        "virtual_mailbox_maps": 17014,
    }
    assert new_values(plan)["smtpd_sender_login_maps"] == f"{TCP}:17017"


def test_defaults_that_are_another_table_are_written_out(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "virtual_alias_maps = pgsql:$config_directory/a.cf\n"
            "virtual_mailbox_maps = pgsql:$config_directory/b.cf\n"
        )
    )
    values = new_values(plan)
    assert values["virtual_alias_domains"] == f"{TCP}:17033"
    assert values["virtual_mailbox_domains"] == f"{TCP}:17012"
    old = {one.parameter: one.old for one in plan.changes if not one.service}
    assert old["virtual_alias_domains"] is None


def test_virtual_8_keeps_what_it_refuses(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_mailbox_domains = x\n"
        "virtual_mailbox_maps = proxy:pgsql:$config_directory/a.cf proxy:pgsql:$config_directory/b.cf\n"
        "virtual_uid_maps = pgsql:$config_directory/c.cf\nvirtual_gid_maps = static:5000\n"
        "alias_maps = hash:/etc/aliases pgsql:$config_directory/d.cf\n",
        "second unix - n n - - virtual\n  -o virtual_mailbox_maps=pgsql:$config_directory/d.cf\n"
        "third inet n - n - - smtpd\n  -o virtual_mailbox_maps=pgsql:$config_directory/d.cf\n",
    )
    plan = plan_of(folder)
    assert new_values(plan) == {
        "virtual_mailbox_maps": f"{TCP}:17014",
        "virtual/unix virtual_mailbox_maps": f"proxy:pgsql:{folder}/a.cf,proxy:pgsql:{folder}/b.cf",
        "third/inet virtual_mailbox_maps": f"{TCP}:17033",
    }
    refused = 'refuses network tables here ("not allowed for security sensitive data")'
    assert reasons(plan)["virtual_uid_maps"] == f"virtual(8) {refused}"
    assert reasons(plan)["master.cf second/unix -o virtual_mailbox_maps"] == f"virtual(8) {refused}"
    assert reasons(plan)["alias_maps"].startswith("a mixed list, with hash:/etc/aliases")
    assert "local_recipient_maps (by default)" not in reasons(plan)


@pytest.mark.parametrize("program_parameter", ["virtual_gid_maps", "alias_maps", "mailbox_command_maps"])
def test_what_only_a_refusing_program_reads_stays(make_postfix: MakePostfix, program_parameter: str) -> None:
    plan = plan_of(make_postfix(f"{program_parameter} = pgsql:$config_directory/a.cf\n"))
    assert plan.changes == []
    assert "refuses network tables here" in reasons(plan)[program_parameter]


@pytest.mark.parametrize(
    "value",
    [
        "hash:/etc/postfix/virtual, pgsql:$config_directory/a.cf",
        "pgsql:$config_directory/a.cf, regexp:/etc/postfix/x",
        "pgsql:$config_directory/a.cf unionmap:{pgsql:$config_directory/a.cf, pgsql:/b.cf}",
        "pipemap:{pgsql:$config_directory/a.cf,pgsql:$config_directory/b.cf}",
        "{ pgsql:$config_directory/a.cf }",
    ],
)
def test_mixed_and_nested_lists_stay(make_postfix: MakePostfix, value: str) -> None:
    plan = plan_of(make_postfix(f"virtual_alias_maps = {value}\n"))
    assert plan.changes == []
    assert plan.tables == []
    (why,) = reasons(plan).values()
    assert why.startswith("a mixed list, with" if "{" not in value else "it stands in braces")


def test_in_a_domain_list_each_member_has_its_own_chance(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "relay_domains = $mydestination, proxy:pgsql:$config_directory/a.cf,hash:/etc/postfix/relay "
            "pgsql:$config_directory/b.cf, !pgsql:$config_directory/c.cf\n"
        )
    )
    assert new_values(plan) == {
        "relay_domains": f"$mydestination, {TCP}:17031,hash:/etc/postfix/relay "
        f"{TCP}:17033, !pgsql:$config_directory/c.cf"
    }
    assert [(table.name, table.parameter) for table in plan.tables] == [
        ("relay_domains", "relay_domains"),
        ("relay_domains_2", "relay_domains"),
    ]
    assert [fate.use.parameter for fate in plan.fates if fate.follows] == ["fast_flush_domains"]


def test_restrictions(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "smtpd_restriction_classes = mine\n"
            "mine = check_sender_access pgsql:$config_directory/a.cf, reject\n"
            "smtpd_recipient_restrictions = permit_mynetworks, Check_Recipient_Access\n"
            "  proxy:pgsql:$config_directory/a.cf, mine, pgsql:$config_directory/b.cf,\n"
            "  check_policy_service { inet:127.0.0.1:1, timeout=1s }\n"
            "smtpd_sender_restrictions = check_sender_access pgsql:$config_directory/a.cf\n"
            "smtpd_client_restrictions = pgsql:$config_directory/a.cf\n"
            "smtpd_data_restrictions = pgsql:$config_directory/a.cf\n"
        )
    )
    ports = {table.name: table.port for table in plan.tables}
    assert {table.name: table.parameter for table in plan.tables} == {
        "check_sender_access": "check_sender_access",
        "check_client_access": "check_client_access",
        "check_recipient_access": "check_recipient_access",
        "check_recipient_access_2": "check_recipient_access",
    }, "one table for one check of one file, wherever it stands"
    sender = f"check_sender_access {TCP}:{ports['check_sender_access']}"
    assert new_values(plan) == {
        "mine": f"{sender}, reject",
        "smtpd_sender_restrictions": sender,
        "smtpd_client_restrictions": f"{TCP}:{ports['check_client_access']}",
        "smtpd_recipient_restrictions": "permit_mynetworks, Check_Recipient_Access "
        f"{TCP}:{ports['check_recipient_access']}, mine, {TCP}:{ports['check_recipient_access_2']}, "
        "check_policy_service { inet:127.0.0.1:1, timeout=1s }",
    }
    assert "which check_..._access" in reasons(plan)["smtpd_data_restrictions"]


@pytest.mark.parametrize(
    ("lists", "search"),
    [
        ("smtpd_helo_restrictions = mine\n", "check_helo_access"),
        ("smtpd_helo_restrictions = mine\nsmtpd_client_restrictions = mine\n", None),
        ("", None),
    ],
)
def test_a_bare_map_in_a_class_means_what_its_user_means(
    make_postfix: MakePostfix, lists: str, search: str | None
) -> None:
    plan = plan_of(
        make_postfix(f"smtpd_restriction_classes = mine\nmine = pgsql:$config_directory/a.cf\n{lists}")
    )
    assert [table.parameter for table in plan.tables] == ([search] if search else [])


def test_overrides_of_services(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "mua_sender_restrictions = check_sender_access pgsql:$config_directory/a.cf, reject\n",
            "submission inet n - n - - smtpd\n"
            "  -o smtpd_sender_restrictions=$mua_sender_restrictions\n"
            "  -o { smtpd_helo_restrictions = check_helo_access pgsql:$config_directory/b.cf, reject }\n"
            "smtps inet n - n - - smtpd\n"
            "  -o mua_sender_restrictions=check_sender_access,pgsql:$config_directory/b.cf\n"
            "  -o smtpd_sender_restrictions=$mua_sender_restrictions\n"
            "  -o smtpd_helo_restrictions=reject_invalid_helo_hostname,pgsql:$config_directory/b.cf\n",
        )
    )
    at = {table.name: f"{TCP}:{table.port}" for table in plan.tables}
    assert new_values(plan) == {
        "submission/inet smtpd_sender_restrictions": "check_sender_access,"
        f"{at['check_sender_access']},reject",
        "submission/inet smtpd_helo_restrictions": f"check_helo_access {at['check_helo_access']}, reject",
        "smtps/inet smtpd_sender_restrictions": f"check_sender_access,{at['check_sender_access_2']}",
        "smtps/inet smtpd_helo_restrictions": f"reject_invalid_helo_hostname,{at['check_helo_access']}",
    }


def test_what_stays_is_written_out_when_it_names_what_moves(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_mailbox_domains = x\nvirtual_mailbox_maps = pgsql:$config_directory/a.cf\n"
        "alias_maps = hash:/etc/aliases\nlocal_recipient_maps = $alias_maps, ${virtual_mailbox_maps}\n"
    )
    plan = plan_of(folder)
    assert new_values(plan)["local_recipient_maps"] == f"$alias_maps, pgsql:{folder}/a.cf"
    assert "a mixed list, with hash:/etc/aliases" in reasons(plan)["local_recipient_maps"]


@pytest.mark.parametrize("stays", [True, False])
def test_proxymap_goes_on_approving_the_old_tables(make_postfix: MakePostfix, stays: bool) -> None:
    folder = make_postfix(
        "virtual_mailbox_domains = x\nvirtual_mailbox_maps = proxy:pgsql:$config_directory/a.cf\n"
        "proxy_read_maps = $virtual_mailbox_maps\nrelocated_maps = proxy:pgsql:$config_directory/b.cf\n"
        + ("canonical_maps = hash:/etc/postfix/x, proxy:pgsql:$config_directory/a.cf\n" if stays else "")
    )
    change = plan_of(folder).changes[-1]
    assert change.parameter == "proxy_read_maps"
    assert change.new == f"$virtual_mailbox_maps proxy:pgsql:{folder}/a.cf", "b.cf never was"
    assert ("the last ones stay" in change.why) is stays


def test_secrets_stay(make_postfix: MakePostfix) -> None:
    plan = plan_of(make_postfix("smtp_sasl_password_maps = pgsql:$config_directory/a.cf\n"))
    assert "its values are secrets" in reasons(plan)["smtp_sasl_password_maps"]


def test_files_that_cannot_be_used_stay(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "transport_maps = pgsql:$config_directory/a.cf, pgsql:$config_directory/bad.cf\n"
        "relocated_maps = pgsql:$config_directory/none.cf\ncanonical_maps = pgsql:./a.cf\n"
    )
    (folder / "bad.cf").write_text("dbname = x\nquery = SELECT x\n  FROM t WHERE id = %s\n")
    plan = plan_of(folder)
    assert plan.changes == []
    found = reasons(plan)
    assert found["transport_maps"].startswith(f"{folder}/bad.cf:2: query: a placeholder outside quotes")
    assert found["relocated_maps"] == f"{folder}/none.cf: No such file or directory"
    assert found["canonical_maps"] == "./a.cf: a relative path; write it out"
    assert [fate.use.parameter for fate in plan.fates if fate.broken] == ["relocated_maps"]


def test_the_main_cf_form(make_postfix: MakePostfix) -> None:
    plan = plan_of(
        make_postfix(
            "relocated_maps = pgsql:moved\nmoved_dbname = mail\nmoved_hosts = 127.0.0.1\n"
            "moved_query = SELECT new FROM moved WHERE old = '%s'\ncanonical_maps = pgsql:nothing\n"
        )
    )
    assert [table.sources for table in plan.tables] == [("pgsql:moved",)]
    assert "no query" in reasons(plan)["canonical_maps"]


def test_socketmap_and_ports_of_ones_own(make_postfix: MakePostfix) -> None:
    folder = make_postfix("transport_maps = pgsql:$config_directory/a.cf\nrelocated_maps = $transport_maps\n")
    assert new_values(plan_of(folder, Endpoints("socketmap"))) == {
        "transport_maps": "socketmap:inet:127.0.0.1:17020:transport_maps",
        "relocated_maps": "socketmap:inet:127.0.0.1:17020:relocated_maps",
    }
    assert new_values(plan_of(folder, Endpoints("tcp", 20000))) == {
        "transport_maps": f"{TCP}:20002",
        "relocated_maps": f"{TCP}:20001",
    }


CLEANUP = "cleanup2 unix n - n - 0 cleanup\n  -o aliases=pgsql:$config_directory/b.cf\n"
ALIASES = "aliases = pgsql:$config_directory/a.cf\nvirtual_alias_maps = $aliases\nvirtual_alias_domains =\n"


def test_a_service_goes_on_reading_what_it_read_through_a_name(make_postfix: MakePostfix) -> None:
    folder = make_postfix(ALIASES, CLEANUP)
    plan = plan_of(folder)
    assert new_values(plan) == {
        "virtual_alias_maps": f"{TCP}:17013",
        "cleanup2/unix virtual_alias_maps": f"pgsql:{folder}/b.cf",
    }
    (kept,) = plan.kept
    assert kept.old is None
    assert kept.why == "this service reads it otherwise (-o aliases), so it goes on asking PostgreSQL itself"


def test_an_override_that_others_name(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_mailbox_domains = x\nvirtual_mailbox_maps = pgsql:$config_directory/a.cf\n"
        "local_recipient_maps = $virtual_mailbox_maps\n",
        "smtps inet n - n - - smtpd\n  -o virtual_mailbox_maps=pgsql:$config_directory/b.cf\n",
    )
    values = new_values(plan_of(folder))
    assert values["smtps/inet local_recipient_maps"] == f"pgsql:{folder}/b.cf"
    assert values["smtps/inet virtual_mailbox_maps"].startswith(TCP)
    assert values["local_recipient_maps"].startswith(TCP)


def test_a_service_that_searches_otherwise_keeps_its_tables(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_alias_maps = proxy:pgsql:$config_directory/a.cf\nvirtual_alias_domains =\n"
        "relay_domains = $mydestination pgsql:$config_directory/c.cf\n",
        "smtps inet n - n - - smtpd\n  -o recipient_delimiter=-\n"
        "  -o relay_recipient_maps=pgsql:$config_directory/b.cf\n"
        "names inet n - n - - smtpd\n  -o mydestination=other.test\n"
        "same inet n - n - - smtpd\n  -o recipient_delimiter= -o smtpd_client_restrictions=permit\n"
        "script unix - n n - - pipe\n  -o recipient_delimiter=- flags=F argv=/bin/true\n",
    )
    plan = plan_of(folder)
    domains = f"mx.example.com,localhost.example.com,localhost,pgsql:{folder}/c.cf"
    assert new_values(plan) == {
        "virtual_alias_maps": f"{TCP}:17013",
        "relay_domains": f"$mydestination {TCP}:17031",
        "smtps/inet virtual_alias_maps": f"proxy:pgsql:{folder}/a.cf",
        "smtps/inet relay_domains": domains,
        "smtps/inet fast_flush_domains": domains,
        "names/inet virtual_alias_maps": f"proxy:pgsql:{folder}/a.cf",
    }, "a search for domains does not ask mydestination"
    assert reasons(plan) == {
        "master.cf smtps/inet -o relay_recipient_maps": "this service searches otherwise than main.cf says "
        "(recipient_delimiter = -)"
    }


def test_virtual_8_keeps_what_its_own_overrides_make(make_postfix: MakePostfix) -> None:
    folder = make_postfix(
        "virtual_mailbox_domains = x\nboxes = pgsql:$config_directory/a.cf\nvirtual_mailbox_maps = $boxes\n",
        "second unix - n n - - virtual\n  -o boxes=pgsql:$config_directory/b.cf\n",
    )
    assert new_values(plan_of(folder)) == {
        "virtual_mailbox_maps": f"{TCP}:17014",
        "virtual/unix virtual_mailbox_maps": f"pgsql:{folder}/a.cf",
        "second/unix virtual_mailbox_maps": f"pgsql:{folder}/b.cf",
    }


def test_a_plan_that_leads_a_service_astray_is_refused(
    make_postfix: MakePostfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "kept", lambda *_: [])
    folder = make_postfix(ALIASES, CLEANUP)
    with pytest.raises(rehearsal.RehearsalError, match="virtual_alias_maps of the service cleanup2/unix"):
        plan_of(folder)


@pytest.mark.parametrize("main_cf", ["", "own = check_sender_access pgsql:$config_directory/b.cf\n"])
def test_restriction_classes_of_one_service(make_postfix: MakePostfix, main_cf: str) -> None:
    option = "" if main_cf else "  -o own=check_sender_access,pgsql:$config_directory/b.cf\n"
    plan = plan_of(
        make_postfix(
            main_cf,
            "smtps inet n - n - - smtpd\n  -o smtpd_restriction_classes=own\n"
            f"{option}  -o smtpd_sender_restrictions=own\n",
        )
    )
    place = "own" if main_cf else "smtps/inet own"
    glue = " " if main_cf else ","
    assert new_values(plan) == {place: f"check_sender_access{glue}{TCP}:17033"}


@pytest.mark.parametrize("map_type", ["tcp", "socketmap"])
@pytest.mark.parametrize(
    "parameter", ["header_checks", "body_checks", "smtp_header_checks", "smtp_reply_filter"]
)
def test_what_messages_hold_is_not_asked_over_the_network(
    make_postfix: MakePostfix, parameter: str, map_type: str
) -> None:
    plan = plan_of(make_postfix(f"{parameter} = pgsql:$config_directory/a.cf\n"), Endpoints(map_type))
    assert plan.changes == []
    assert all("of any length" in why for why in reasons(plan).values())
    assert parameter in reasons(plan)
