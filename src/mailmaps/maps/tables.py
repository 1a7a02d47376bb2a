"""The tables: one kind per Postfix parameter, each with the search order that Postfix gave it."""

from __future__ import annotations

from dataclasses import dataclass

from mailmaps.maps import search
from mailmaps.maps.parameters import PARAMETERS


@dataclass(frozen=True, slots=True)
class TableKind:
    """What is fixed about a table, whatever answers it.

    `asked` tells who asks which keys. `tcp_port` is the port of a default table's tcp_table endpoint, else
    0. `propagates` is the word of propagate_unmatched_extensions under which the extension that the search
    cut off goes back into the results; empty: never. `bare_keys` is false where the builtin source knows
    no key without `@` (else an unset virtual_alias_domains would make every domain a virtual alias
    domain). `union` merges the answers of all sources. `held` tables are those that the resolver asks:
    what is held of them is answered at once, because smtpd(8) remembers a resolver failure until it exits.
    `grants`: an answer may give somebody a right, so that a stale one has a shorter life.
    `refused_by` names the program that refuses a network table ("not allowed for security sensitive
    data"); others that read the same parameter take one.
    """

    name: str
    walk: search.Walk
    asked: str
    tcp_port: int = 0
    propagates: str = ""
    bare_keys: bool = True
    union: bool = False
    held: bool = False
    grants: bool = False
    refused_by: str = ""


_TCP_PORTS = {
    "transport_maps": 17011,
    "virtual_mailbox_domains": 17012,
    "virtual_alias_maps": 17013,
    "virtual_mailbox_maps": 17014,
    "virtual_uid_maps": 17015,
    "virtual_gid_maps": 17016,
    "smtpd_sender_login_maps": 17017,
    "relay_domains": 17031,
    "relay_recipient_maps": 17032,
}

DEFAULT_TABLES = tuple(_TCP_PORTS)
"""The tables that exist without being named in mailmaps.toml."""

# EXT_PROP_CANONICAL and EXT_PROP_VIRTUAL in cleanup(8) (cleanup_addr.c:143, cleanup_out_recipient.c:230),
# EXT_PROP_GENERIC in smtp(8) (smtp_misc.c:75, smtp_proto.c:1546); all others ignore the extension.
_PROPAGATES = {
    "virtual_alias_maps": "virtual",
    "canonical_maps": "canonical",
    "sender_canonical_maps": "canonical",
    "recipient_canonical_maps": "canonical",
    "smtp_generic_maps": "generic",
    "lmtp_generic_maps": "generic",
}

_HELD = frozenset({
    "transport_maps",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "mydestination",
    "relay_domains",
    "relocated_maps",
    "sender_dependent_relayhost_maps",
    "sender_dependent_default_transport_maps",
    "address_verify_transport_maps",
    "address_verify_sender_dependent_relayhost_maps",
    "address_verify_sender_dependent_default_transport_maps",
})  # fmt: skip

# Who may send as whom, relay, give orders or take part in restrictions; besides check_*_access.
_GRANTS = frozenset({
    "smtpd_sender_login_maps",
    "local_login_sender_maps",
    "local_header_rewrite_clients",
    "mynetworks",
    "permit_mx_backup_networks",
    "relay_clientcerts",
    "qmqpd_authorized_clients",
    "smtpd_authorized_verp_clients",
    "smtpd_authorized_xclient_hosts",
    "smtpd_authorized_xforward_hosts",
    "authorized_flush_users",
    "authorized_mailq_users",
    "authorized_submit_users",
    "postscreen_access_list",
})  # fmt: skip

# DICT_FLAG_PARANOID at virtual.c:480-493, local.c:914 and mailbox.c:341.
_REFUSED_BY = {
    "virtual_mailbox_maps": "virtual(8)",
    "virtual_uid_maps": "virtual(8)",
    "virtual_gid_maps": "virtual(8)",
    "alias_maps": "local(8)",
    "mailbox_command_maps": "local(8)",
}

_ASKED = {name: asked for asked in PARAMETERS for name in asked.names.split()}

KINDS = {
    name: TableKind(
        name,
        _ASKED[name].walk,
        _ASKED[name].by,
        tcp_port=_TCP_PORTS.get(name, 0),
        propagates=_PROPAGATES.get(name, ""),
        bare_keys=name != "virtual_alias_maps",
        union=name == "smtpd_sender_login_maps",
        held=name in _HELD,
        grants=name in _GRANTS or name.startswith("check_"),
        refused_by=_REFUSED_BY.get(name, ""),
    )
    for name in dict.fromkeys((*DEFAULT_TABLES, *_ASKED))
}
