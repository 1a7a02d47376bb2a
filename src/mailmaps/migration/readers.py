"""What Postfix does with the value of each parameter: how a list is read, and who else reads it.

The search order of a parameter, and which program refuses a network table there, is in
`mailmaps.maps.tables.KINDS`.
"""

from __future__ import annotations

import re
from typing import Literal

from mailmaps.maps.search import Rules
from mailmaps.maps.tables import KINDS

# Refused by virtual(8), taken by smtpd(8) (smtpd_check.c:832-835), so that it can move with an override.
ALSO_READ_BY_SMTPD = frozenset({"virtual_mailbox_maps"})

# Lists in which each member has its own chance for the whole search (util/match_list.c:200-275), so that a
# network table beside other members answers what a pgsql: table answered there.
MATCH_LISTS = frozenset(
    "virtual_mailbox_domains virtual_alias_domains mydestination relay_domains fast_flush_domains mynetworks "
    "permit_mx_backup_networks debug_peer_list qmqpd_authorized_clients smtpd_authorized_verp_clients "
    "smtpd_authorized_xclient_hosts smtpd_authorized_xforward_hosts smtpd_sasl_exceptions_networks "
    "smtpd_client_event_limit_exceptions smtpd_forbid_bare_newline_exclusions".split()
)

# What they answer is secret, and whoever can log in to the machine can ask a network table.
SECRET = frozenset({"smtp_sasl_password_maps", "lmtp_sasl_password_maps", "tls_server_sni_maps"})

# Whole headers, lines, commands and replies: what strangers write. A key that is longer than a network table
# takes (16384 bytes quoted with tcp) would be a failure for ever, and so would be the message.
CONTENT = frozenset(
    "header_checks mime_header_checks nested_header_checks body_checks milter_header_checks "
    "smtp_header_checks smtp_mime_header_checks smtp_nested_header_checks smtp_body_checks "
    "lmtp_header_checks lmtp_mime_header_checks lmtp_nested_header_checks lmtp_body_checks "
    "smtpd_command_filter postscreen_command_filter smtp_reply_filter lmtp_reply_filter "
    "smtpd_dns_reply_filter smtp_dns_reply_filter lmtp_dns_reply_filter "
    "default_delivery_status_filter smtp_delivery_status_filter lmtp_delivery_status_filter "
    "pipe_delivery_status_filter virtual_delivery_status_filter local_delivery_status_filter "
    "smtpd_reject_filter_maps smtpd_reject_footer_maps postscreen_reject_footer_maps".split()
)

# Programs of master.cf that ask none of the tables that can move.
ASK_NOTHING = frozenset("anvil discard error pipe postlogd retry scache showq tlsmgr".split())

# By default they are another parameter, asked in the same way: they may ask its endpoint.
FOLLOWERS = {
    "address_verify_transport_maps": "transport_maps",
    "address_verify_sender_dependent_relayhost_maps": "sender_dependent_relayhost_maps",
    "address_verify_sender_dependent_default_transport_maps": "sender_dependent_default_transport_maps",
    "fast_flush_domains": "relay_domains",
}

# They only list what proxymap(8) may open for others.
APPROVALS = frozenset({"proxy_read_maps", "proxy_write_maps"})

# What a bare `pgsql:x` means in a restriction list (the def_acl of smtpd_check.c).
RESTRICTIONS = {
    "smtpd_client_restrictions": "check_client_access",
    "smtpd_helo_restrictions": "check_helo_access",
    "smtpd_sender_restrictions": "check_sender_access",
    "smtpd_relay_restrictions": "check_recipient_access",
    "smtpd_recipient_restrictions": "check_recipient_access",
    "smtpd_etrn_restrictions": "check_etrn_access",
    "smtpd_data_restrictions": "",
    "smtpd_end_of_data_restrictions": "",
}

_CHECK = re.compile(r"check_[a-z_]+_access", re.IGNORECASE)

ListForm = Literal["maps", "match list", "restrictions"]


def form_of(parameter: str, classes: frozenset[str]) -> ListForm:
    """How the words of a parameter's value are read; `classes` are the smtpd_restriction_classes."""
    if parameter in RESTRICTIONS or parameter in classes:
        return "restrictions"
    return "match list" if parameter in MATCH_LISTS else "maps"


def check_name(word: str) -> str:
    """`check_recipient_access` and its like in small letters; empty for every other word."""
    return word.lower() if _CHECK.fullmatch(word) else ""


def unfit(parameter: str) -> str:
    """Why no network table may stand in this parameter; empty where it may."""
    if parameter in SECRET:
        return "its values are secrets, and every user of this machine could ask a network table for them"
    if parameter in CONTENT:
        return (
            "its keys are what messages and other servers say, of any length: a network table fails for ever "
            "on one that is too long for it (tcp: 16384 bytes quoted), and the mail stays"
        )
    return "" if parameter in KINDS else f"mailmaps knows no search order for {parameter}"


def asks_bare_local_parts(parameter: str) -> bool:
    """Whether its search asks `user` alone for an address of a domain in mydestination."""
    walk = KINDS[parameter].walk
    here = Rules(mydestination=frozenset({"local.test"}))
    return walk("user@local.test", here) != walk("user@local.test", Rules())
