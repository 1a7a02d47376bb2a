"""Names are checked by the schema's own rules, and what is stored otherwise than typed is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Connection, Database

from mailmaps.administration import names
from mailmaps.administration.names import BadName


@pytest.mark.parametrize(
    ("typed", "stored", "notes"),
    [
        ("example.org", "example.org", 0),
        ("Example.ORG", "example.org", 1),
        ("bücher.example", "bücher.example", 1),  # most mail has xn--...
        ("BÜCHER.example", "bücher.example", 2),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", 0),
        ("b_c.example", "b_c.example", 0),
    ],
)
def test_domains(typed: str, stored: str, notes: int) -> None:
    spelt = names.domain(typed)
    assert spelt.value == stored
    assert len(spelt.notes) == notes, spelt.notes


@pytest.mark.parametrize(
    "typed",
    ["", ".", ".example.org", "example.org.", "a..b", "a b", "a@b", "a/b", "*", "a\nb", "x" * 254, "a!b"],
)
def test_no_domains(typed: str) -> None:
    with pytest.raises(BadName):
        names.domain(typed)


@pytest.mark.parametrize(
    "typed", ["jan@ex.org", '"john doe"@ex.org', "@ex.org", "jan+x@ex.org", "jän@ex.org"]
)
def test_addresses(typed: str) -> None:
    assert names.address(typed) == names.Spelt(typed)


@pytest.mark.parametrize(
    "typed",
    ["jan", "", "jan@", "john doe@ex.org", '"john"@ex.org', "a..b@ex.org", "j\x07@ex.org", "j@.ex.org"],
)
def test_no_addresses(typed: str) -> None:
    with pytest.raises(BadName):
        names.address(typed)


def test_accents_are_composed() -> None:
    assert names.address("ja\N{COMBINING DIAERESIS}n@ex.org").value == "jän@ex.org"


@pytest.mark.parametrize("typed", ["", "!x", "a b", "a,b", "a\tb", "a\u00a0b"])
def test_no_usernames(typed: str) -> None:
    with pytest.raises(BadName):
        names.username(typed)


@pytest.mark.parametrize("typed", ["", "/", "..", "a/../b", "a/./b", "a\nb", "x" * 256])
def test_no_mailboxes(typed: str) -> None:
    with pytest.raises(BadName):
        names.mailbox(typed)


def test_mailboxes() -> None:
    assert names.mailbox("/ex.org//jan/") == "ex.org/jan"
    assert names.mailbox_of("jan@ex.org") == "ex.org/jan"
    for email in ('"a/b"@ex.org', '".."@ex.org', ".@ex.org"):
        with pytest.raises(BadName):
            names.mailbox_of(email)


@pytest.mark.parametrize("typed", ["virtual", "", "a b:", "smtp:x\n"])
def test_no_transports(typed: str) -> None:
    with pytest.raises(BadName):
        names.transport(typed)


TYPED = st.lists(
    st.sampled_from(
        ["a", "A", "ß", "İ", "ο", "Σ", "@", ".", "@ex.org", '"', "\\", " ", "\x85", "K", "ä", "-", "+"]
    ),
    max_size=7,
).map("".join)


@given(st.lists(TYPED, min_size=30, max_size=30))
def test_what_is_stored_is_stored_again_the_same(typed: list[str]) -> None:
    for one in typed:
        for check in (names.domain, names.address, names.username):
            try:
                spelt = check(one)
            except BadName:
                continue
            assert check(spelt.value).value == spelt.value


async def test_the_schema_takes_what_is_taken_here(database: Database) -> None:
    connection: Connection = database.connection
    seen = 0

    @given(st.lists(TYPED, min_size=20, max_size=20))
    def collect(typed: list[str]) -> None:
        found.extend(typed)

    found: list[str] = []
    collect()
    for one in dict.fromkeys(found):
        try:
            value = names.address(one).value
        except BadName:
            continue
        seen += 1
        ((problem, folded),) = await connection.fetch(
            "SELECT mailmaps.address_problem($1), mailmaps.fold($1)", value
        )
        assert (problem, folded) == (None, value)
    assert seen > 10
