"""Walks that come to domains and hosts: transport and access tables, lists of domains, hosts and networks.

A network table gets a host's name and its address in requests of their own, each of them whole; with
`pgsql:` Postfix then asked for the parent domains of the one and the networks of the other. Which parents
depends on parent_domain_matches_subdomains, which knows a table by the name of its parameter or, for all
access tables together, as `smtpd_access_maps`. `parameter` is that name; an empty one is never listed.
"""

from __future__ import annotations

import ipaddress
import re

from mailmaps.maps.search import (
    Question,
    Rules,
    Walk,
    both_forms,
    folded,
    internal_form,
    split,
    whole_key_walk,
)

LONGEST_DOMAIN = 255  # octets, RFC 1035 2.3.4; characters are fewer

_DOTTED_QUAD = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)\.([0-9]+)")


def transport_walk(key: str, rules: Rules) -> Question:
    """user+ext@domain, user@domain, domain, parents (src/trivial-rewrite/transport.c:268-302).

    `*` is a key of its own: Postfix asks it separately and only then uses it.
    """
    if "@" not in key:
        return whole_key_walk(key, rules)
    users, domain = _users(internal_form(key), rules)
    keys = [form for user in users for form in both_forms(f"{user}@{domain}")]
    return Question(folded(keys + _parents(domain, "transport_maps", rules), rules))


def mail_access_walk(key: str, rules: Rules) -> Question:
    """user+ext@domain, user@domain, domain, parents, user+ext@, user@ (src/smtpd/smtpd_check.c:3374-3392).

    A key without `@` is the null sender's ($smtpd_null_access_lookup_key, `<>`), asked as it is (4564).
    """
    if "@" not in key:
        return whole_key_walk(key, rules)
    users, domain = _users(internal_form(key), rules)
    keys = [form for user in users for form in both_forms(f"{user}@{domain}")]
    keys += _parents(domain, "smtpd_access_maps", rules)
    keys += [form for user in users for form in both_forms(f"{user}@")]
    return Question(folded(keys, rules))


def list_of_domains(parameter: str) -> Walk:
    """The domain and its parents (domain_list_match, src/util/match_ops.c:151-190)."""

    def walk(key: str, rules: Rules) -> Question:
        return Question(folded(_parents(key, parameter, rules), rules))

    return walk


def list_of_hosts(parameter: str) -> Walk:
    """A name and its parents, or an address as it is.

    namadr_list_match (src/global/namadr_list.h:26) matches a name as a domain list does and an address
    alone (src/util/match_ops.c:244-249). check_domain_access too knows no parents of an address
    (src/smtpd/smtpd_check.c:2868-2871).
    """

    def walk(key: str, rules: Rules) -> Question:
        keys = [key] if is_address(key) else _parents(key, parameter, rules)
        return Question(folded(keys, rules))

    return walk


def access_by_host(parameter: str) -> Walk:
    """A name and its parents, or an address and its networks (src/smtpd/smtpd_check.c:2824-2978)."""

    def walk(key: str, rules: Rules) -> Question:
        keys = _networks(key) if is_address(key) else _parents(key, parameter, rules)
        return Question(folded(keys, rules))

    return walk


def is_address(text: str) -> bool:
    """Tell whether Postfix takes a host for an address (valid_hostaddr, src/util/valid_hostname.c:188)."""
    return _is_ipv6(text) if ":" in text else _is_ipv4(text)


def _is_ipv4(text: str) -> bool:
    quad = _DOTTED_QUAD.fullmatch(text)
    if quad is None:
        return False
    octets = [octet.lstrip("0") or "0" for octet in quad.groups()]
    if any(len(octet) > 3 or int(octet) > 255 for octet in octets):
        return False
    return octets[0] != "0" or set(octets) == {"0"}  # 0.0.0.0, but not 0.1.2.3


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _networks(address: str) -> list[str]:
    """192.0.2.1, 192.0.2, 192.0, 192; or 2001:db8::1, `2001:db8:`, 2001:db8, 2001 (split_at_right)."""
    delimiter = ":" if ":" in address else "."
    networks = []
    while address:  # an empty key is never asked (src/global/maps.c:184)
        networks.append(address)
        address = address.rpartition(delimiter)[0]
    return networks


def _parents(domain: str, parameter: str, rules: Rules) -> list[str]:
    """sub.example.com, then example.com, com if parents match for `parameter`, else .example.com, .com.

    Parents over `LONGEST_DOMAIN` are left out: no domain is that long, and a key of 16 KiB of dots would
    ask for 8000 of them.
    """
    dotted = parameter not in rules.parent_domain_matches_subdomains
    names = [domain] if domain else []
    cut = domain.find(".", 1)
    while cut >= 0:
        parent = cut if dotted else cut + 1
        if parent < len(domain) and len(domain) - parent <= LONGEST_DOMAIN:
            names.append(domain[parent:])
        cut = domain.find(".", parent + 1)
    return names


def _users(internal: str, rules: Rules) -> tuple[list[str], str]:
    """The local part with and without its extension, and the domain."""
    user, extension = split(internal, rules)
    return [user + extension, user] if extension else [user], internal.rpartition("@")[2]
