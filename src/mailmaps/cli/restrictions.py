"""smtpd(8)'s restriction lists: which of them ask a policy service, and what permits before it is asked.

A list is words with blanks or commas between, `{...}` around a service with attributes (SMTPD_POLICY_README),
and names of further lists (smtpd_restriction_classes). What permits ends the list it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LISTS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")
)

# Where recipient_count is known, so that limits can count.
COUNTING = ("smtpd_data_restrictions", "smtpd_end_of_data_restrictions")

# What ask smtpd_sender_login_maps, as far as who is logged in is concerned.
BY_MAP = frozenset(
    {
        "reject_sender_login_mismatch",
        "reject_authenticated_sender_login_mismatch",
        "reject_known_sender_login_mismatch",
    }
)

PERMITS = ("permit", "permit_mynetworks", "permit_sasl_authenticated")

_WORD = re.compile(r"\{[^{}]*\}|[^\s,{}]+")


@dataclass(frozen=True, slots=True)
class Smtpd:
    """One smtpd of master.cf: its name ("submission/inet"), and the parameters in force for it, expanded."""

    name: str
    values: Mapping[str, str]

    @property
    def subject(self) -> str:
        """As findings call it."""
        return f"master.cf {self.name}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One `check_policy_service`: where it stands, whom it asks (`inet:HOST:PORT`, `unix:PATH`), with its
    attributes, and what permits before it, if anything does."""

    parameter: str
    endpoint: str
    attributes: Mapping[str, str]
    behind: str = ""


def asked(values: Mapping[str, str]) -> list[Asked]:
    """All in the lists of one smtpd; `values` are the parameters in force there, expanded."""
    found: list[Asked] = []
    for parameter in LISTS:
        permitted = ""
        words = _words(values, values.get(parameter, ""), ())
        for word in words:
            if word == "check_policy_service":
                endpoint, attributes = _service(next(words, ""))
                found.append(Asked(parameter, endpoint, attributes, permitted))
            elif word in PERMITS and not permitted and _can_permit(word, values):
                permitted = word
    return found


def words_of(values: Mapping[str, str], parameter: str) -> list[str]:
    """The words of one list, those of its classes among them."""
    return list(_words(values, values.get(parameter, ""), ()))


def logs_in(values: Mapping[str, str]) -> bool:
    """Whether people can log in at this smtpd."""
    return values.get("smtpd_sasl_auth_enable") == "yes"


def _words(values: Mapping[str, str], text: str, inside: tuple[str, ...]) -> Iterator[str]:
    classes = set(_WORD.findall(values.get("smtpd_restriction_classes", "")))
    for word in _WORD.findall(text):
        if word in classes and word not in inside:
            yield from _words(values, values.get(word, ""), (*inside, word))
        else:
            yield word


def _can_permit(word: str, values: Mapping[str, str]) -> bool:
    if word == "permit_sasl_authenticated":
        return logs_in(values)
    return word != "permit_mynetworks" or bool(values.get("mynetworks"))


def _service(word: str) -> tuple[str, dict[str, str]]:
    """The endpoint and its attributes: `{ inet:HOST:PORT, timeout = 10s }`."""
    endpoint, _, rest = word.strip("{} \t").partition(",")
    pairs = (one.partition("=") for one in rest.split(","))
    return endpoint.strip(), {name.strip(): value.strip() for name, equals, value in pairs if equals}
