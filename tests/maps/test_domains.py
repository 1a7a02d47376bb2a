"""Domains and hosts in search order; each case is a loop of match_ops.c, smtpd_check.c or transport.c."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailmaps.maps.domains import (
    access_by_host,
    is_address,
    list_of_domains,
    list_of_hosts,
    mail_access_walk,
    transport_walk,
)
from mailmaps.maps.search import Rules, Walk

PLUS = Rules(
    recipient_delimiter="+",
    mydestination=frozenset({"local.test"}),
    parent_domain_matches_subdomains=frozenset({"relay_domains", "smtpd_access_maps", "mynetworks"}),
)
DOTTED = replace(PLUS, parent_domain_matches_subdomains=frozenset())
TRANSPORT = replace(PLUS, parent_domain_matches_subdomains=frozenset({"transport_maps"}))

relay_domains = list_of_domains("relay_domains")
mynetworks = list_of_hosts("mynetworks")
authorized = list_of_hosts("")
client_access = access_by_host("smtpd_access_maps")


@pytest.mark.parametrize(
    ("walk", "rules", "key", "candidates"),
    [
        (transport_walk, PLUS, "u+e@sub.ex.com",
         ("u+e@sub.ex.com", "u@sub.ex.com", "sub.ex.com", ".ex.com", ".com")),
        (transport_walk, TRANSPORT, "u@sub.ex.com", ("u@sub.ex.com", "sub.ex.com", "ex.com", "com")),
        (transport_walk, PLUS, "*", ("*",)),
        (transport_walk, PLUS, "u@[192.0.2.1]", ("u@[192.0.2.1]", "[192.0.2.1]", ".0.2.1]", ".2.1]", ".1]")),
        (transport_walk, PLUS, '"x y+z"@a.b',
         ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "a.b", ".b")),
        (relay_domains, PLUS, "Sub.Ex.com", ("sub.ex.com", "ex.com", "com")),
        (relay_domains, DOTTED, "sub.ex.com", ("sub.ex.com", ".ex.com", ".com")),
        (relay_domains, PLUS, "192.0.2.1", ("192.0.2.1", "0.2.1", "2.1", "1")),
        (mail_access_walk, PLUS, "U+e@Sub.Ex.com",
         ("u+e@sub.ex.com", "u@sub.ex.com", "sub.ex.com", "ex.com", "com", "u+e@", "u@")),
        (mail_access_walk, DOTTED, "u@sub.ex.com", ("u@sub.ex.com", "sub.ex.com", ".ex.com", ".com", "u@")),
        (mail_access_walk, PLUS, "u+e@local.test",
         ("u+e@local.test", "u@local.test", "local.test", "test", "u+e@", "u@")),
        (mail_access_walk, PLUS, '"x y+z"@a.b',
         ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "a.b", "b",
          '"x y+z"@', "x y+z@", '"x y"@', "x y@")),
        (mail_access_walk, PLUS, "u@ex.com.", ("u@ex.com.", "ex.com.", "com.", "u@")),
        (mail_access_walk, PLUS, "<>", ("<>",)),
        (client_access, PLUS, "Mail.Ex.com", ("mail.ex.com", "ex.com", "com")),
        (client_access, DOTTED, "mail.ex.com", ("mail.ex.com", ".ex.com", ".com")),
        (client_access, PLUS, "unknown", ("unknown",)),
        (client_access, PLUS, "192.0.2.1", ("192.0.2.1", "192.0.2", "192.0", "192")),
        (client_access, DOTTED, "2001:db8::1", ("2001:db8::1", "2001:db8:", "2001:db8", "2001")),
        (client_access, PLUS, "::1", ("::1", ":")),
        (client_access, PLUS, "::ffff:192.0.2.1", ("::ffff:192.0.2.1", "::ffff", ":")),
        (mynetworks, PLUS, "192.0.2.1", ("192.0.2.1",)),
        (mynetworks, PLUS, "2001:db8::1", ("2001:db8::1",)),
        (mynetworks, PLUS, "mail.ex.com", ("mail.ex.com", "ex.com", "com")),
        (authorized, PLUS, "mail.ex.com", ("mail.ex.com", ".ex.com", ".com")),
        (mynetworks, PLUS, "[192.0.2.1]", ("[192.0.2.1]", "0.2.1]", "2.1]", "1]")),
        (mynetworks, PLUS, "host.", ("host.",)),
    ],
)  # fmt: skip
def test_candidates(walk: Walk, rules: Rules, key: str, candidates: tuple[str, ...]) -> None:
    assert walk(key, rules).candidates == candidates


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        # util/valid_hostname.ref and the code above it
        ("192.0.2.1", True),
        ("0.0.0.0", True),  # noqa: S104
        ("0.1.2.3", False),
        ("010.0.0.1", True),
        ("256.0.0.1", False),
        ("0" * 9000 + "1.0.0.1", True),
        ("1" * 9000 + ".0.0.1", False),
        ("1.2.3", False),
        ("1.2.3.4.", False),
        ("1.2.3.4.5", False),
        ("example.com", False),
        ("[192.0.2.1]", False),
        ("::", True),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.1", True),
        ("fe80::1%eth0", False),
        ("mail:25", False),
        ("\u0661.2.3.4", False),
        ("", False),
    ],
)
def test_addresses_are_told_from_names(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


@pytest.mark.parametrize("walk", [relay_domains, mynetworks, client_access])
def test_a_key_of_nothing_but_dots_asks_no_thousand_parents(walk: Walk) -> None:
    key = "a." * 8000 + "example.com"
    for candidates in (walk(key, PLUS).candidates, transport_walk("u@" + key, PLUS).candidates[1:]):
        assert candidates[0] == key
        assert [name.lstrip(".") for name in candidates[-2:]] == ["example.com", "com"]
        assert len(candidates) < 140


def test_a_key_of_nothing_but_colons_is_no_address() -> None:
    assert client_access(":" * 16000, PLUS).candidates == (":" * 16000,)
