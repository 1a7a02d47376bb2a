"""What mailmaps makes of a sender before it looks for the owner is what the real trivial-rewrite(8) does."""

from __future__ import annotations

import pytest
from tests.system.postfix import PrivatePostfix
from tests.system.rewrite_client import Rewriter
from tests.system.sender_spellings import Spellings

from mailmaps.maps.rewriting import resolved
from mailmaps.maps.search import Rules

pytestmark = pytest.mark.postfix

ADDRESSES = 3000
"""Of each kind, for each variant."""

SEED = 7

DOMAINS = ("ours.test", "other.test", "host.postfix.test", "mx.postfix.test", "localhost")

VARIANTS: tuple[dict[str, str], ...] = (
    {},
    {"append_dot_mydomain": "yes"},
    {"append_dot_mydomain": "yes", "mydestination": "ours.test, host.postfix.test, localhost"},
    {"resolve_dequoted_address": "no"},
    {"swap_bangpath": "no"},
    {"allow_percent_hack": "no"},
    {"append_at_myorigin": "no"},
    {"mydestination": "mx.postfix.test", "myorigin": "mx.postfix.test"},
)

USUAL = {
    "mydestination": "ours.test, localhost",
    "myorigin": "ours.test",
    "append_dot_mydomain": "no",
    "resolve_dequoted_address": "yes",
    "swap_bangpath": "yes",
    "allow_percent_hack": "yes",
    "append_at_myorigin": "yes",
}


def rules(settings: dict[str, str]) -> Rules:
    """The settings of main.cf as ours."""
    return Rules(
        myhostname="mx.postfix.test",
        mydomain="postfix.test",
        myorigin=settings["myorigin"],
        mydestination=frozenset(settings["mydestination"].split(", ")),
        local_addresses=frozenset({"[127.0.0.1]"}),
        append_at_myorigin=settings["append_at_myorigin"] == "yes",
        append_dot_mydomain=settings["append_dot_mydomain"] == "yes",
        swap_bangpath=settings["swap_bangpath"] == "yes",
        allow_percent_hack=settings["allow_percent_hack"] == "yes",
        resolve_dequoted_address=settings["resolve_dequoted_address"] == "yes",
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: ",".join(variant) or "usual")
def test_an_address_is_resolved_as_postfix_does_it(variant: dict[str, str]) -> None:
    settings = USUAL | variant
    ours = rules(settings)
    spellings = Spellings(SEED, DOMAINS)
    addresses = [spellings.odd() for _ in range(ADDRESSES)]
    addresses += [spellings.typed(["anna@ours.test", "bob@other.test"]) for _ in range(ADDRESSES)]
    with PrivatePostfix(settings) as postfix, Rewriter(postfix.folder / "queue") as theirs:
        different = {
            address: (resolved(address, ours), said)
            for address in addresses
            if (said := theirs.resolved(address)) is not None and said != resolved(address, ours)
        }
    assert different == {}
