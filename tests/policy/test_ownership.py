"""Who may send as whom: rules and switches, grants, and that map and check say the same."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmaps.maps.answer import NOT_FOUND, Found, Unavailable
from mailmaps.maps.cache import NO_ROW, Row
from mailmaps.maps.search import Question, Rules, address_walk
from mailmaps.policy.grants import Grant, Grants
from mailmaps.policy.ownership import BUILTIN, NOBODY, Ownership, Switches, Verdict

RULES = Rules(recipient_delimiter="+")
NOW = 1_800_000_000.0


def ownership(switches: Switches = Switches(), *grants: Grant) -> Ownership:  # noqa: B008  # frozen
    held = Grants(3600.0)
    held.replace(grants)
    return Ownership(switches, held, lambda: NOW)


def asked(sender: str, found: str = "", *values: str, source: str = BUILTIN) -> tuple[Question, Row]:
    """The question of a sender, and the row that the key `found` has."""
    question = address_walk(sender, RULES)
    return question, Row(question.candidates.index(found), values, source) if found else NO_ROW


def decide(engine: Ownership, login: str, question: Question, row: Row, client: str = "192.0.2.1") -> Verdict:
    verdict = engine.decide(login, client, question, row)
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize(
    ("sender", "key", "letters", "rules"),
    [
        ("jan@a.example", "jan@a.example", "o", ["own"]),
        ("JAN@A.example", "jan@a.example", "o", ["own"]),
        ("jan+x@a.example", "jan+x@a.example", "a", ["aliases"]),
        ("jan+x@a.example", "jan@a.example", "o", ["own", "plus"]),
        ("team@a.example", "team@a.example", "f", ["forwards"]),
        ("jan@b.example", "jan@b.example", "od", ["own", "domain_aliases"]),
        ("team@b.example", "team@b.example", "fd", ["forwards", "domain_aliases"]),
        ("any@a.example", "@a.example", "a", ["aliases", "catch_all"]),
        ("any@a.example", "@a.example", "fd", ["forwards", "domain_aliases", "catch_all"]),
    ],
)
def test_a_right_needs_all_its_rules(sender: str, key: str, letters: str, rules: list[str]) -> None:
    question, row = asked(sender, key, f"{letters} jan")
    verdict = decide(ownership(), "Jan", question, row)
    assert verdict.allowed
    assert key in verdict.by
    assert ownership().owners(question, row) == Found("jan")
    for name in rules:
        engine = ownership(Switches(**{name: False}))
        verdict = decide(engine, "jan", question, row)
        assert not verdict.allowed
        assert verdict.needed == f"senders.{name} = true"
        assert engine.owners(question, row) == Found(NOBODY)  # known: nobody may claim it without a login
    others = [name for name in ("own", "aliases", "forwards", "domain_aliases", "plus") if name not in rules]
    assert decide(ownership(Switches(**dict.fromkeys(others, False))), "jan", question, row).allowed


def test_others_are_refused_and_told_whose_it_is() -> None:
    question, row = asked("jan@a.example", "jan@a.example", "o jan", "a piet")
    verdict = decide(ownership(), "anna", question, row)
    assert not verdict.allowed
    assert "jan@a.example is of jan, piet" in verdict.by
    assert ownership().owners(question, row) == Found("jan,piet")


def test_an_inactive_owner_keeps_others_out() -> None:
    question, row = asked("jan@a.example", "jan@a.example", "o !inactive")
    assert not decide(ownership(), "jan", question, row).allowed
    assert ownership().owners(question, row) == Found("!inactive")


def test_a_key_that_leads_to_nobody() -> None:
    question = address_walk("out@a.example", RULES)
    row = Row(0, (), BUILTIN)
    assert not decide(ownership(), "jan", question, row).allowed
    assert ownership().owners(question, row) == NOT_FOUND
    assert not decide(ownership(Switches(unowned=True)), "jan", question, row).allowed


def test_an_address_elsewhere() -> None:
    question, row = asked("jan@elsewhere.example")
    assert not decide(ownership(), "jan", question, row).allowed
    assert decide(ownership(Switches(unowned=True)), "jan", question, row).allowed
    assert ownership().owners(question, row) == NOT_FOUND


def test_a_table_of_their_own_is_given_as_it_is() -> None:
    question, row = asked("jan@a.example", "jan@a.example", "o jan", "piet,  anna", source="view:x.y")
    assert ownership().owners(question, row) == Found("o jan,piet,  anna")
    for login in ("o", "jan", "piet", "anna"):
        assert decide(ownership(), login, question, row).allowed
    assert not decide(ownership(), "o jan", question, row).allowed


def test_sources_beside_ours_keep_their_meaning() -> None:
    question = address_walk("jan@a.example", RULES)
    parts = ((BUILTIN, ("a jan",)), ("view:x.y", ("o anna",)))
    row = Row(0, ("a jan", "o anna"), "builtin, view:x.y", parts)
    engine = ownership(Switches(aliases=False))
    assert engine.owners(question, row) == Found("o anna")
    assert not decide(engine, "jan", question, row).allowed
    assert decide(engine, "anna", question, row).allowed


GRANT = Grant(7, "Piet", "Boss@A.example")


@pytest.mark.parametrize(
    ("grant", "sender", "allowed"),
    [
        (GRANT, "boss@a.example", True),
        (GRANT, "boss+x@a.example", True),
        (GRANT, "other@a.example", False),
        (Grant(1, "piet", "@a.example"), "boss@a.example", True),
        (Grant(1, "piet", "@A.EXAMPLE"), "new@a.example", True),
        (Grant(1, "piet", "x y@a.example"), '"x y"@a.example', True),
        (Grant(1, "piet", "me@elsewhere.example"), "me@elsewhere.example", True),
        (Grant(1, "anna", "boss@a.example"), "boss@a.example", False),
        (Grant(1, "piet", "boss@a.example", NOW + 1), "boss@a.example", True),
        (Grant(1, "piet", "boss@a.example", NOW), "boss@a.example", False),
    ],
)
def test_grants(grant: Grant, sender: str, allowed: bool) -> None:
    question, row = asked(sender)
    engine = ownership(Switches(), grant)
    assert decide(engine, "piet", question, row).allowed is allowed
    assert (engine.owners(question, row) == Found(grant.login)) is (allowed or grant.login == "anna")


def test_a_grant_comes_beside_the_owner() -> None:
    question, row = asked("boss@a.example", "boss@a.example", "o boss")
    engine = ownership(Switches(), GRANT)
    assert engine.owners(question, row) == Found("boss,Piet")
    assert decide(engine, "boss", question, row).allowed
    assert "grant 7" in decide(engine, "piet", question, row).by


def test_a_grant_does_not_hide_the_catch_all() -> None:
    question, row = asked("boss@a.example", "@a.example", "a jan")
    assert ownership(Switches(), GRANT).owners(question, row) == Found("jan,Piet")


def test_networks_and_services() -> None:
    inside = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    engine = ownership(
        Switches(), Grant(1, "shop", "*", networks=inside), Grant(2, "jan", "@a.example", networks=inside)
    )
    question, row = asked("boss@a.example", "boss@a.example", "o boss")
    for login in ("shop", "jan"):
        assert decide(engine, login, question, row, "192.0.2.9").allowed
        assert decide(engine, login, question, row, "2001:db8::1").allowed
        refused = decide(engine, login, question, row, "198.51.100.1")
        assert not refused.allowed
        assert "but not from 198.51.100.1" in refused.by
        assert not decide(engine, login, question, row, "unknown").allowed
    assert engine.owners(question, row) == Found("boss")  # the map knows no client
    assert decide(engine, "shop", *asked("x@elsewhere.example"), "192.0.2.9").allowed
    off = Ownership(Switches(services=False), engine.grants, lambda: NOW)
    assert not decide(off, "shop", question, row, "192.0.2.9").allowed


def test_an_address_that_another_has_a_grant_for_is_not_unowned() -> None:
    question, row = asked("x@elsewhere.example")
    for networks in ((), (ip_network("192.0.2.0/24"),)):
        engine = ownership(Switches(unowned=True), Grant(1, "anna", "@elsewhere.example", networks=networks))
        assert not decide(engine, "jan", question, row, "198.51.100.1").allowed
    assert decide(
        ownership(Switches(unowned=True), Grant(1, "anna", "@elsewhere.example", NOW)), "jan", question, row
    )


def test_services_need_no_other_grants() -> None:
    everywhere = (ip_network("0.0.0.0/0"),)
    question, row = asked("boss@a.example", "boss@a.example", "o boss")
    grants = Grant(1, "shop", "*", networks=everywhere), Grant(2, "piet", "boss@a.example")
    engine = ownership(Switches(grants=False), *grants)
    assert decide(engine, "shop", question, row).allowed
    assert not decide(engine, "piet", question, row).allowed
    assert engine.owners(question, row) == Found("boss")


def test_grants_that_are_not_known_are_not_none() -> None:
    question, row = asked("boss@a.example", "boss@a.example", "o boss")
    engine = Ownership(Switches(), Grants(3600.0), lambda: NOW)
    assert isinstance(engine.owners(question, row), Unavailable)
    assert isinstance(engine.decide("jan", "192.0.2.1", question, row), Unavailable)
    assert decide(engine, "boss", question, row).allowed
    assert isinstance(engine.decide("jan", "", *asked("x@elsewhere.example")), Unavailable)
    without = Ownership(Switches(grants=False, services=False), Grants(3600.0), lambda: NOW)
    assert without.owners(question, row) == Found("boss")


def test_grants_that_are_too_old_are_not_known() -> None:
    now = [0.0]
    grants = Grants(60.0, lambda: now[0])
    grants.replace([GRANT], age=50.0)
    known = [grants.are_known]
    now[0] = 11.0
    known.append(grants.are_known)
    grants.confirm()
    known.append(grants.are_known)
    assert known == [True, False, True]


def test_an_address_that_is_none() -> None:
    verdict = ownership().decide("jan", "192.0.2.1", None, NO_ROW)
    assert isinstance(verdict, Verdict)
    assert not verdict.allowed
    assert ownership().owners(None, NO_ROW) == NOT_FOUND


SWITCHES = st.builds(
    Switches,
    **dict.fromkeys(
        ["own", "aliases", "forwards", "domain_aliases", "catch_all", "plus", "grants"], st.booleans()
    ),
)
LOGINS = st.sampled_from(["jan", "piet", "anna", "!inactive"])
VALUES = st.lists(
    st.builds("{} {}".format, st.sampled_from(["o", "a", "f", "od", "ad", "fd"]), LOGINS), max_size=3
)
SENDERS = st.sampled_from(["jan@a.example", "jan+x@a.example", "Any@a.example", "x@elsewhere.example"])
ADDRESSES = st.sampled_from(["jan@a.example", "@a.example", "x@elsewhere.example", "jan+x@a.example"])
GRANTS = st.lists(
    st.builds(Grant, st.just(1), LOGINS, ADDRESSES, st.sampled_from([None, NOW - 1, NOW + 1])), max_size=3
)


@given(SWITCHES, SENDERS, VALUES, GRANTS, st.integers(-1, 2), st.sampled_from(["jan", "PIET", "anna"]))
def test_map_and_check_say_the_same(
    switches: Switches, sender: str, values: list[str], grants: list[Grant], index: int, login: str
) -> None:
    """Whoever the check lets send is in the map, and nobody else, where no network and no `unowned` is in
    play.
    """
    question = address_walk(sender, RULES)
    row = NO_ROW if index < 0 else Row(min(index, len(question.candidates) - 1), tuple(values), BUILTIN)
    engine = ownership(switches, *grants)
    owners = engine.owners(question, row)
    listed = [one.casefold() for one in owners.value.split(",")] if isinstance(owners, Found) else []
    assert decide(engine, login, question, row).allowed is (login.casefold() in listed)
