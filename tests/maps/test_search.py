"""Candidates in search order; each case stands in shared facts or in Postfix's own mail_addr_find.in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailmaps.maps.search import (
    Question,
    Rules,
    Walk,
    address_walk,
    extension_put_back,
    external_address_walk,
    password_walk,
    put_back,
    unfolded_walk,
    whole_key_walk,
)
from mailmaps.maps.tables import KINDS

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
        (address_walk, PLUS, '""@local.test', ('""@local.test', "@local.test", '""', "@local.test")),
        (address_walk, PLUS, "u+e", ("u+e", "u")),
        (address_walk, PLUS, '"x y+z"@a.b', ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "@a.b")),
        (address_walk, PLUS, "x y+z@a.b", ('"x y+z"@a.b', "x y+z@a.b", '"x y"@a.b', "x y@a.b", "@a.b")),
        (external_address_walk, PLUS, '"x y+z"@a.b', ('"x y+z"@a.b', '"x y"@a.b', "@a.b")),
        (external_address_walk, PLUS, '"aa bb"@local.test', ('"aa bb"@local.test', '"aa bb"', "@local.test")),
        (address_walk, PLUS, '"a"@a.b', ('"\\"a\\""@a.b', '"a"@a.b', "@a.b")),
        (address_walk, PLUS, "a@b@c.d", ('"a@b"@c.d', "a@b@c.d", "@c.d")),
        (address_walk, PLUS, "postmaster@a.b", ("postmaster@a.b", "@a.b")),
        (address_walk, PLUS, "+ext@a.b", ("+ext@a.b", "@a.b")),
        (password_walk, PLUS, "U+e@dom.test", ("u+e@dom.test", "u@dom.test", "@dom.test")),
        (password_walk, replace(PLUS, recipient_delimiter="-"), "[Mail-1.test]:587", ("[mail-1.test]:587",)),
        (whole_key_walk, PLUS, "Sub.Ex.com", ("sub.ex.com",)),
        (unfolded_walk, PLUS, "Subject: Hello", ("Subject: Hello",)),
    ],
)  # fmt: skip
def test_candidates(walk: Walk, rules: Rules, key: str, candidates: tuple[str, ...]) -> None:
    assert walk(key, rules).candidates == candidates


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


@pytest.mark.parametrize(
    ("propagates", "result"),
    [("virtual", "d+e@x"), ("canonical", "d@x"), ("generic", "d@x"), ("", "d@x")],
)
def test_each_class_of_tables_has_its_own_word(propagates: str, result: str) -> None:
    question = external_address_walk("user+e@a.b", PLUS)
    rules = replace(PLUS, propagate_unmatched_extensions=frozenset({"virtual"}))
    index = question.candidates.index("user@a.b")
    assert put_back(question, index, ("d@x",), rules, propagates) == result
    assert extension_put_back(question, index, rules, propagates) == ("+e" if "+" in result else "")


@pytest.mark.parametrize(
    ("key", "candidate", "values", "propagate", "result"),
    [
        # mail_addr_map.c:149-161: the local part is glued to the whole result, and the whole is quoted.
        ("user+e@a.b", "user@a.b", ("@o1, two@x",), True, '"user@o1, two+e"@x'),
        ("user+e@a.b", "user@a.b", ("@o1, two@x",), False, '"user@o1, two"@x'),
        ("user+e@a.b", "@a.b", ("@o1", "two@x"), True, '"user+e@o1,two"@x'),
        ("user+e@a.b", "user@a.b", ("@o1", "@o2"), True, '"user@o1,+e"@o2'),
        ("user+e@a.b", "user@a.b", ("@o1, two",), True, "user+e@o1,two+e@origin.test"),
        ("user+e@a.b", "user@a.b", ("@o1, two",), False, "user@o1, two"),
        ('"x y"@a.b', "@a.b", ("@o1, two@x",), True, '"x y@o1, two"@x'),
        # Not at the start it stays an address without local part.
        ("user+e@a.b", "user@a.b", ("one@x", "@o2"), True, "one+e@x,+e@o2"),
        ("user+e@a.b", "@a.b", ("one@x", "@o2"), True, "one@x,@o2"),
        # One address, or none: no difference.
        ("User+E@a.b", "user@a.b", ("@other",), True, "User+E@other"),
        ("User+E@a.b", "user@a.b", ("@other",), False, "User@other"),
        ("user+e@a.b", "user@a.b", (", ,",), True, ", ,"),
    ],
)  # fmt: skip
def test_put_back_exactly(
    key: str, candidate: str, values: tuple[str, ...], propagate: bool, result: str
) -> None:
    question = external_address_walk(key, PLUS)
    rules = PLUS if propagate else replace(PLUS, propagate_unmatched_extensions=frozenset())
    index = question.candidates.index(candidate)
    assert put_back(question, index, values, rules, exactly=True) == result


@pytest.mark.parametrize("table", ["virtual_alias_maps", "virtual_mailbox_maps"])
def test_a_domain_is_asked_whole_where_the_table_is_a_list_of_domains_by_default(table: str) -> None:
    rules = Rules(recipient_delimiter="+-")
    walk = KINDS[table].walk
    assert walk("Web-shop.example", rules).candidates == ("web-shop.example",)
    assert walk("[127.0.0.1]", rules).candidates == ("[127.0.0.1]",)
    assert walk("bücher-laden.example", rules).candidates == ("bücher-laden.example",)
    assert walk("user+ext", rules).candidates == ("user+ext", "user")
