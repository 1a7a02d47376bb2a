"""Candidates in search order; each case stands in shared facts or in Postfix's own mail_addr_find.in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailmaps.maps.search import (
    Question,
    Rules,
    Walk,
    address_walk,
    domain_list_walk,
    domain_walk,
    external_address_walk,
    put_back,
    transport_walk,
)

PLUS = Rules(recipient_delimiter="+", myorigin="origin.test", mydestination=frozenset({"local.test"}))
NONE = replace(PLUS, recipient_delimiter="")


@pytest.mark.parametrize(
    ("walk", "rules", "key", "candidates"),
    [
        (address_walk, PLUS, "User+Ext@Dom.test", ("user+ext@dom.test", "user@dom.test", "@dom.test")),
        (address_walk, PLUS, "user@dom.test", ("user@dom.test", "@dom.test")),
        (address_walk, NONE, "user+ext@dom.test", ("user+ext@dom.test", "@dom.test")),
        (address_walk, PLUS, "u+e@local.test",
         ("u+e@local.test", "u@local.test", "u+e", "u", "@local.test")),
        (address_walk, PLUS, "u@ORIGIN.test", ("u@origin.test", "u", "@origin.test")),
        (address_walk, PLUS, "u@local.test.", ("u@local.test.", "u", "@local.test.")),
        (address_walk, PLUS, "u+e", ("u+e", "u")),
        (address_walk, PLUS, '"x y+z"@a.b', ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "@a.b")),
        (address_walk, PLUS, "x y+z@a.b", ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "@a.b")),
        (external_address_walk, PLUS, '"x y+z"@a.b', ('"x y+z"@a.b', '"x y"@a.b', "@a.b")),
        (external_address_walk, PLUS, '"aa bb"@local.test', ('"aa bb"@local.test', '"aa bb"', "@local.test")),
        (address_walk, PLUS, '"a"@a.b', ('"\\"a\\""@a.b', '"a"@a.b', "@a.b")),
        (address_walk, PLUS, "a@b@c.d", ('"a@b"@c.d', "a@b@c.d", "@c.d")),
        (address_walk, PLUS, "postmaster@a.b", ("postmaster@a.b", "@a.b")),
        (address_walk, PLUS, "+ext@a.b", ("+ext@a.b", "@a.b")),
        (transport_walk, PLUS, "u+e@sub.ex.com",
         ("u+e@sub.ex.com", "u@sub.ex.com", "sub.ex.com", ".ex.com", ".com")),
        (transport_walk, replace(PLUS, parent_domain_matches_subdomains=frozenset({"transport_maps"})),
         "u@sub.ex.com", ("u@sub.ex.com", "sub.ex.com", "ex.com", "com")),
        (transport_walk, PLUS, "*", ("*",)),
        (transport_walk, PLUS, "u@[192.0.2.1]", ("u@[192.0.2.1]", "[192.0.2.1]", ".0.2.1]", ".2.1]", ".1]")),
        (domain_walk, PLUS, "Sub.Ex.com", ("sub.ex.com",)),
        (domain_list_walk, PLUS, "sub.ex.com", ("sub.ex.com", "ex.com", "com")),
        (domain_list_walk, replace(PLUS, parent_domain_matches_subdomains=frozenset()), "sub.ex.com",
         ("sub.ex.com", ".ex.com", ".com")),
    ],
)  # fmt: skip
def test_candidates(walk: Walk, rules: Rules, key: str, candidates: tuple[str, ...]) -> None:
    assert walk(key, rules).candidates == candidates


def test_a_key_of_nothing_but_dots_asks_no_thousand_parents() -> None:
    key = "u@" + "a." * 8000 + "example.com"
    candidates = transport_walk(key, PLUS).candidates
    assert candidates[:2] == (key, key[2:])
    assert candidates[-2:] == (".example.com", ".com")
    assert len(candidates) < 140
    assert domain_list_walk(key[2:], PLUS).candidates[-2:] == ("example.com", "com")


@pytest.mark.parametrize(
    ("key", "candidate", "values", "propagate", "result"),
    [
        # facts/postfix.md 4.6, verified there on user+ext@a.b; the case of the extension is kept.
        ("user+Ext@a.b", "user+ext@a.b", ("d@x.y",), True, "d@x.y"),
        ("user+Ext@a.b", "user@a.b", ("d@x.y",), True, "d+Ext@x.y"),
        ("user+Ext@a.b", "user@a.b", ("d@x.y",), False, "d@x.y"),
        ("user+Ext@a.b", "user@a.b", ("d1@x.y, d2",), True, "d1+Ext@x.y,d2+Ext@origin.test"),
        ("user+Ext@a.b", "user@a.b", ("d1@x.y", "d2@x.y"), True, "d1+Ext@x.y,d2+Ext@x.y"),
        ("user+Ext@a.b", "user@a.b", ("d+e@x.y",), True, "d+e+Ext@x.y"),
        ("User+Ext@a.b", "user@a.b", ("@other",), True, "User+Ext@other"),
        ("User+Ext@a.b", "user@a.b", ("@other",), False, "User@other"),
        ("User+Ext@a.b", "@a.b", ("@other",), True, "User+Ext@other"),
        ("User+Ext@a.b", "@a.b", ("@other",), False, "User+Ext@other"),
        ("user+Ext@a.b", "@a.b", ("fix@x.y",), True, "fix@x.y"),
        ('"x y+z"@a.b', "@a.b", ("@other",), True, '"x y+z"@other'),
        ('"x y+z"@a.b', '"x y"@a.b', ("d@x",), True, "d+z@x"),
        ('"x+y z"@a.b', "x@a.b", ("d@x",), True, '"d+y z"@x'),
        ("user+@a.b", "user@a.b", ("d@x",), True, "d+@x"),
        ("user+Ext@a.b", "@a.b", ("fix@x.y", "@other"), True, "fix@x.y,user+Ext@other"),
        ("@a <evil@e.com> :y@a.b", "@a.b", ("@other",), True, '"@a <evil@e.com> :y"@other'),
        ("user+Ext@a.b", "user@a.b", (",",), True, ","),
    ],
)
def test_put_back(key: str, candidate: str, values: tuple[str, ...], propagate: bool, result: str) -> None:
    question: Question = external_address_walk(key, PLUS)
    rules = PLUS if propagate else replace(PLUS, propagate_unmatched_extensions=frozenset())
    assert put_back(question, question.candidates.index(candidate), values, rules) == result
