"""What Postfix does with the value of each parameter: how a list is read, and who else reads it.

The search order of a parameter, and which program refuses a network table there, is in
`mailmaps.maps.tables.KINDS`.
"""

from __future__ import annotations

import re
from typing import Literal

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
