"""The kinds of tables: complete, and each in its place."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from mailmaps.maps.search import Rules
from mailmaps.maps.tables import DEFAULT_TABLES, KINDS

PORTS = [17011, 17012, 17013, 17014, 17015, 17016, 17017, 17031, 17032]

NO_TABLE_TO_READ = frozenset({
    "address_verify_map", "postscreen_cache_map", "alias_database",  # written
    "proxy_read_maps", "proxy_write_maps", "masquerade_domains",  # lists, but never of tables
    "maps_rbl_domains", "virtual_maps", "smtp_sasl_auth_cache_name", "lmtp_sasl_auth_cache_name",
})  # fmt: skip


def test_the_default_tables_keep_their_ports() -> None:
    assert [KINDS[name].tcp_port for name in DEFAULT_TABLES] == PORTS
    assert list(KINDS)[: len(PORTS)] == list(DEFAULT_TABLES)
    assert not any(kind.tcp_port for name, kind in KINDS.items() if name not in DEFAULT_TABLES)


def test_each_kind_says_who_asks() -> None:
    for kind in KINDS.values():
        assert re.search(r"\w+/\w+\.c:\d", kind.asked), kind.name
        assert kind.walk("key", Rules()).candidates == ("key",)


RULES = Rules(
    recipient_delimiter="+",
    parent_domain_matches_subdomains=frozenset({"smtpd_access_maps", "fast_flush_domains"}),
)
QUOTED = '"x y"@a.b'


@pytest.mark.parametrize(
    ("names", "key", "candidates"),
    [
        ("canonical_maps sender_canonical_maps recipient_canonical_maps smtp_generic_maps virtual_alias_maps",
         QUOTED, (QUOTED, "@a.b")),
        ("sender_bcc_maps recipient_bcc_maps relocated_maps local_recipient_maps relay_recipient_maps "
         "sender_dependent_relayhost_maps address_verify_sender_dependent_default_transport_maps",
         QUOTED, (QUOTED, "x y@a.b", "@a.b")),
        ("sender_dependent_relayhost_maps", '"<>"', ('"<>"', "<>")),
        ("check_sender_access check_recipient_access", "u+e@A.b",
         ("u+e@a.b", "u@a.b", "a.b", "b", "u+e@", "u@")),
        ("check_client_access check_sender_mx_access check_helo_a_access", "192.0.2.1",
         ("192.0.2.1", "192.0.2", "192.0", "192")),
        ("check_helo_access check_etrn_access mynetworks smtpd_authorized_xclient_hosts", "192.0.2.1",
         ("192.0.2.1",)),
        ("check_helo_access check_client_access fast_flush_domains", "x.A.b", ("x.a.b", "a.b", "b")),
        ("mynetworks relay_domains smtpd_authorized_xclient_hosts smtp_tls_loglevel_maps", "x.A.b",
         ("x.a.b", ".a.b", ".b")),
        ("virtual_alias_domains mydestination smtp_tls_policy_maps lmtp_sasl_password_maps", "x.A.b",
         ("x.a.b",)),
        ("smtp_sasl_password_maps", "u+e@A.b", ("u+e@a.b", "u@a.b", "@a.b")),
        ("address_verify_transport_maps", "u+e@A.b", ("u+e@a.b", "u@a.b", "a.b", ".b")),
        ("header_checks mailbox_transport_maps smtpd_milter_maps", "X: Y@z", ("X: Y@z",)),
        ("smtpd_command_filter rbl_reply_maps local_login_sender_maps", "X: Y@z", ("x: y@z",)),
    ],
)  # fmt: skip
def test_each_parameter_has_its_own_search_order(names: str, key: str, candidates: tuple[str, ...]) -> None:
    for name in names.split():
        assert KINDS[name].walk(key, RULES).candidates == candidates, name


def test_which_extensions_are_propagated() -> None:
    assert {name: kind.propagates for name, kind in KINDS.items() if kind.propagates} == {
        "virtual_alias_maps": "virtual",
        "canonical_maps": "canonical",
        "sender_canonical_maps": "canonical",
        "recipient_canonical_maps": "canonical",
        "smtp_generic_maps": "generic",
        "lmtp_generic_maps": "generic",
    }


def test_who_refuses_network_tables() -> None:
    refused = {name: kind.refused_by for name, kind in KINDS.items() if kind.refused_by}
    assert refused == {
        "virtual_mailbox_maps": "virtual(8)",
        "virtual_uid_maps": "virtual(8)",
        "virtual_gid_maps": "virtual(8)",
        "alias_maps": "local(8)",
        "mailbox_command_maps": "local(8)",
    }


@pytest.mark.skipif(shutil.which("postconf") is None, reason="Postfix is not installed")
def test_no_parameter_of_the_installed_postfix_is_missing() -> None:
    """Whatever proxymap(8) may be asked for, and whatever is named like a table, is a kind."""
    defaults = dict(
        line.split(" = ", 1)
        for line in subprocess.run(
            ["postconf", "-d"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        if " = " in line
    )
    proxied = set(re.findall(r"\$(\w+)", defaults["proxy_read_maps"]))
    named = {
        name for name in defaults if re.search(r"_(maps|checks|access_list|per_site|reply_filter)$", name)
    }
    restrictions = {name for name in proxied if name.endswith("_restrictions")}
    assert proxied | named == (proxied | named) & (set(KINDS) | NO_TABLE_TO_READ | restrictions)
