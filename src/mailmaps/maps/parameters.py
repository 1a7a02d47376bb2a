"""Every Postfix parameter that may name a table: its walk, and who asks which keys.

`PARAMETERS` holds all of Postfix 3.7 to 3.12 whose table is only read, and every check_*_access. Not in it:
writable caches (no network table can be one, util/dict_tcp.c:296). The lines are those of Postfix 3.12
(20260821), below src/; where 3.7 has the parameter it asks the same keys, unless the text says otherwise.
"Folded" is said where a network table, too, gets the key folded; with `pgsql:` all but the tables of
`search.unfolded_walk` were.
"""

from __future__ import annotations

from typing import NamedTuple

from mailmaps.maps import search
from mailmaps.maps.domains import (
    access_by_host,
    list_of_domains,
    list_of_hosts,
    mail_access_walk,
    transport_walk,
)


class Asked(NamedTuple):
    """Parameters, separated by blanks, that are asked in one way."""

    names: str
    walk: search.Walk
    by: str


_RECIPIENT = "smtpd(8): the recipient in both forms, folded, whether there is a row (smtpd/smtpd_check.c:{})"
_CLIENT = "the client's name and parents, its address whole; folded ({})"
_SENDER = "trivial-rewrite(8): the sender, or $empty_address_{}_lookup_key, in both forms ({})"

_ADDRESSES = (
    Asked(
        "virtual_alias_maps",
        search.or_domain(search.external_address_walk),
        "cleanup(8): the recipient and each result in external form (cleanup/cleanup_map1n.c:140); "
        "smtpd(8), in both forms, whether there is a row (smtpd/smtpd_check.c:5351)",
    ),
    Asked(
        "canonical_maps sender_canonical_maps recipient_canonical_maps",
        search.external_address_walk,
        "cleanup(8): the address in external form (cleanup/cleanup_map11.c:112); "
        "smtpd(8), in both forms, whether there is a row (smtpd/smtpd_check.c:5347-5350)",
    ),
    Asked(
        "smtp_generic_maps lmtp_generic_maps",
        search.external_address_walk,
        "smtp(8), lmtp(8): the address in external form, once (smtp/smtp_map11.c:89)",
    ),
    Asked(
        "virtual_mailbox_maps",
        search.or_domain(search.address_walk),
        _RECIPIENT.format(5432) + "; virtual(8): the same keys (virtual/mailbox.c:203)",
    ),
    Asked(
        "virtual_uid_maps virtual_gid_maps",
        search.address_walk,
        "virtual(8): the recipient in both forms, folded (virtual/mailbox.c:232, 257)",
    ),
    Asked("relay_recipient_maps", search.address_walk, _RECIPIENT.format(5448)),
    Asked("local_recipient_maps", search.address_walk, _RECIPIENT.format(5416)),
    Asked(
        "smtpd_sender_login_maps",
        search.address_walk,
        "smtpd(8): the sender in both forms, folded (smtpd/smtpd_check.c:3952, 3986)",
    ),
    Asked(
        "sender_bcc_maps recipient_bcc_maps",
        search.address_walk,
        "cleanup(8): the sender or recipient in both forms (cleanup/cleanup_addr.c:176, 240)",
    ),
    Asked(
        "relocated_maps",
        search.address_walk,
        "trivial-rewrite(8): the recipient in both forms (trivial-rewrite/resolve.c:722)",
    ),
    Asked(
        "sender_dependent_relayhost_maps address_verify_sender_dependent_relayhost_maps",
        search.address_walk,
        _SENDER.format("relayhost_maps", "trivial-rewrite/resolve.c:594"),
    ),
    Asked(
        "sender_dependent_default_transport_maps address_verify_sender_dependent_default_transport_maps",
        search.address_walk,
        _SENDER.format("default_transport_maps", "trivial-rewrite/resolve.c:565"),
    ),
    Asked(
        "smtp_sasl_password_maps",
        search.password_walk,
        "smtp(8): the sender in both forms (smtp_sender_dependent_authentication), then the host, then the "
        "destination with brackets and port, both whole (smtp/smtp_sasl_glue.c:190-200)",
    ),
)

_DOMAINS = (
    Asked(
        "transport_maps address_verify_transport_maps",
        transport_walk,
        "trivial-rewrite(8): the recipient in both forms, its domain and parents; `*` "
        "(trivial-rewrite/transport.c:225, 276)",
    ),
    Asked(
        "virtual_mailbox_domains virtual_alias_domains",
        search.whole_key_walk,
        "trivial-rewrite(8): the domain, folded (trivial-rewrite/resolve.c:495, 528)",
    ),
    Asked(
        "mydestination",
        search.whole_key_walk,
        "all programs: the domain without its final dot, folded (global/resolve_local.c:119)",
    ),
    Asked(
        "relay_domains",
        list_of_domains("relay_domains"),
        "trivial-rewrite(8): the domain and parents, folded (trivial-rewrite/resolve.c:550)",
    ),
    Asked(
        "fast_flush_domains",
        list_of_domains("fast_flush_domains"),
        "flush(8) and its clients: the domain and parents, folded (flush/flush.c:316)",
    ),
)

_ACCESS = (
    Asked(
        "check_sender_access check_recipient_access",
        mail_access_walk,
        "smtpd(8): the resolved address in both forms, its domain and parents, user@; folded "
        "(smtpd/smtpd_check.c:3391)",
    ),
    Asked(
        "check_client_access check_reverse_client_hostname_access",
        access_by_host("smtpd_access_maps"),
        "smtpd(8): the client's name and parents, its address and networks (smtpd/smtpd_check.c:2944)",
    ),
    Asked(
        " ".join(
            f"check_{who}_{what}_access"
            for who in ("client", "reverse_client_hostname", "helo", "sender", "recipient")
            for what in ("mx", "ns", "a")
        ),
        access_by_host("smtpd_access_maps"),
        "smtpd(8): each server's name and parents (not *_a_access), its addresses and networks "
        "(smtpd/smtpd_check.c:2982)",
    ),
    Asked(
        "check_helo_access check_etrn_access",
        list_of_hosts("smtpd_access_maps"),
        "smtpd(8): the name and parents; an address whole (smtpd/smtpd_check.c:2826)",
    ),
    Asked(
        "check_ccert_access check_sasl_access check_address_map local_header_rewrite_clients",
        search.whole_key_walk,
        "smtpd(8): the fingerprint, the login, the client's address (smtpd/smtpd_check.c:3273, 3315, 4888)",
    ),
)

_HOSTS = (
    *(
        Asked(name, list_of_hosts(name), _CLIENT.format(where))
        for name, where in (
            ("mynetworks", "smtpd/smtpd_check.c:1336; postscreen(8): the address only"),
            ("permit_mx_backup_networks", "smtpd/smtpd_check.c:1841: of the MX host"),
            ("debug_peer_list", "global/debug_peer.c:117"),
            ("qmqpd_authorized_clients", "qmqpd/qmqpd.c:724"),
            ("smtpd_client_event_limit_exceptions", "smtpd/smtpd.c:2208"),
        )
    ),
    Asked(
        "smtpd_forbid_bare_newline_exclusions",
        list_of_hosts("mynetworks"),
        _CLIENT.format("smtpd/smtpd.c:6577: parents as in mynetworks"),
    ),
    Asked(
        "smtpd_authorized_verp_clients smtpd_authorized_xclient_hosts smtpd_authorized_xforward_hosts "
        "smtpd_sasl_exceptions_networks",
        list_of_hosts(""),
        _CLIENT.format("smtpd/smtpd.c:6568-6572, 6607: always .parents"),
    ),
    Asked(
        "smtp_requiretls_policy lmtp_requiretls_policy",
        list_of_hosts(""),
        "smtp(8), lmtp(8): the next-hop and .parents, folded (smtp/smtp_reqtls_policy.c:190; since 3.11)",
    ),
    *(
        Asked(
            f"{name}_tls_loglevel_maps",
            access_by_host(f"{name}_tls_loglevel_maps"),
            "the peer's name and parents, its address and networks (global/yana_policy.c:150; since 3.12)",
        )
        for name in ("smtpd", "smtp", "lmtp", "postscreen")
    ),
)

_WHOLE_KEYS = {
    "alias_maps": "local(8): the local part, then the user, folded (local/alias.c:113; 3.7 in internal form)",
    "smtp_tls_policy_maps lmtp_tls_policy_maps tlsproxy_client_policy_maps "
    "smtp_tls_per_site lmtp_tls_per_site tlsproxy_client_per_site": "smtp(8), lmtp(8): the domain, host or "
    "destination; they ask for the .parents of any table (smtp/smtp_tls_policy.c:257, 617)",
    "lmtp_sasl_password_maps": "lmtp(8): the host, then the destination (smtp/smtp_sasl_glue.c:194-200)",
    "tls_server_sni_maps": "smtpd(8): the name the client named; it asks for the .parents of any table; the "
    "value is base64 (tls/tls_misc.c:1023)",
    "relay_clientcerts": "smtpd(8): the fingerprint (smtpd/smtpd_check.c:1644)",
    "non_bdb_custom_mapping": "all programs: a table type (global/nbdb_util.c:160; since 3.11)",
    "rbl_reply_maps": "smtpd(8): the domain of the list (smtpd/smtpd_check.c:3585)",
    "local_login_sender_maps": "postdrop(1): the login (global/login_sender_match.c:195)",
    "postscreen_access_list postscreen_allowlist_interfaces": "postscreen(8): the address "
    "(global/server_acl.c:203, postscreen/postscreen.c:991)",
    "masquerade_exceptions smtpd_noop_commands smtpd_forbidden_commands postscreen_forbidden_commands "
    "smtpd_sasl_mechanism_filter smtp_sasl_mechanism_filter lmtp_sasl_mechanism_filter "
    "smtpd_log_access_permit_actions smtp_connection_cache_destinations lmtp_connection_cache_destinations "
    "use_srv_lookup authorized_flush_users authorized_mailq_users authorized_submit_users "
    "parent_domain_matches_subdomains": "an item of a string list, folded (util/match_ops.c:127)",
    "smtpd_command_filter postscreen_command_filter smtp_reply_filter lmtp_reply_filter "
    "smtpd_dns_reply_filter smtp_dns_reply_filter lmtp_dns_reply_filter": "the whole command, reply or "
    "record (smtpd/smtpd.c:6160, smtp/smtp_chat.c:300, dns/dns_rr_filter.c:133)",
}

_UNFOLDED = {
    "mailbox_command_maps mailbox_transport_maps fallback_transport_maps": "local(8): the user, folded by "
    "local(8) itself (local/mailbox.c:345, 290, local/unknown.c:125)",
    "smtp_discard_ehlo_keyword_address_maps lmtp_discard_lhlo_keyword_address_maps "
    "smtpd_discard_ehlo_keyword_address_maps postscreen_discard_ehlo_keyword_address_maps "
    "smtp_pix_workaround_maps lmtp_pix_workaround_maps smtpd_milter_maps": "the peer's address "
    "(smtp/smtp_proto.c:409, 526, smtpd/smtpd.c:6037, 6412, postscreen/postscreen_smtpd.c:377)",
    "header_checks mime_header_checks nested_header_checks body_checks milter_header_checks "
    "smtp_header_checks smtp_mime_header_checks smtp_nested_header_checks smtp_body_checks "
    "lmtp_header_checks lmtp_mime_header_checks lmtp_nested_header_checks lmtp_body_checks": "the whole "
    "header or line (cleanup/cleanup_message.c:547, 966, global/header_body_checks.c:328, 353)",
    "default_delivery_status_filter smtp_delivery_status_filter lmtp_delivery_status_filter "
    "pipe_delivery_status_filter virtual_delivery_status_filter local_delivery_status_filter "
    "smtpd_reject_filter_maps smtpd_reject_footer_maps postscreen_reject_footer_maps": "the whole status or "
    "reply (global/dsn_filter.c:161, smtpd/smtpd_chat.c:237, 255)",
    "postscreen_dnsbl_reply_map": "postscreen(8), at its start: the domain of the list "
    "(postscreen/postscreen_dnsbl.c:284)",
}

PARAMETERS = (
    *_ADDRESSES,
    *_DOMAINS,
    *_ACCESS,
    *_HOSTS,
    *(Asked(names, search.whole_key_walk, by) for names, by in _WHOLE_KEYS.items()),
    *(Asked(names, search.unfolded_walk, by) for names, by in _UNFOLDED.items()),
)
