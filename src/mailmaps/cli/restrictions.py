"""smtpd(8)'s restriction lists, read as smtpd(8) reads them: what asks, what permits, what refuses.

A list is words with blanks or commas between, `{...}` around what has blanks itself (SMTPD_POLICY_README),
names of further lists (smtpd_restriction_classes), and tables without a restriction's name before them.
Capitals do not matter (strcasecmp everywhere), but in the names of classes they do (smtpd_check.c,
generic_checks). What permits ends the list it stands in; of what stands behind `warn_if_reject`, a refusal is
only logged.
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

# One of these has to be in either list before smtpd(8) serves at all (smtpd_check.c, rcpt_required).
REFUSES = frozenset(
    {
        "reject",
        "reject_unauth_destination",
        "defer",
        "defer_if_permit",
        "defer_unauth_destination",
        "check_relay_domains",
    }
)

# Braces keep together what they enclose, and what touches them (mystrtokq): `inline:{ a.test=OK }`.
_WORD = re.compile(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|[^\s,{}])+")

# What stands before a table where nothing does (def_acl in smtpd_check.c); nothing may at DATA.
_IMPLIED = {
    "smtpd_client_restrictions": "check_client_access",
    "smtpd_helo_restrictions": "check_helo_access",
    "smtpd_sender_restrictions": "check_sender_access",
    "smtpd_relay_restrictions": "check_recipient_access",
    "smtpd_recipient_restrictions": "check_recipient_access",
    "smtpd_etrn_restrictions": "check_etrn_access",
}

# Whose next word belongs to them.
_WITH_ARGUMENT = re.compile(
    r"check_policy_service|check_\w+_access|check_address_map|sleep|reject_rbl(_client)?"
    r"|(reject_rhsbl|permit_dnswl|permit_rhswl)_\w+"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One restriction of a list, those of its classes among them.

    `word` is its name in small letters, `argument` the table or service behind it (or empty); `warned`:
    `warn_if_reject` stands before it, which takes nothing from a permit.
    """

    word: str
    argument: str = ""
    warned: bool = False

    @property
    def refuses(self) -> bool:
        """Whether it keeps strangers from relaying."""
        return self.word in REFUSES and not self.warned


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
    attributes, what permits before it, if anything does, and whether its refusals are only logged."""

    parameter: str
    endpoint: str
    attributes: Mapping[str, str]
    behind: str = ""
    warned: bool = False


def asked(values: Mapping[str, str]) -> list[Asked]:
    """All in the lists of one smtpd; `values` are the parameters in force there, expanded."""
    found: list[Asked] = []
    for parameter in LISTS:
        permitted = ""
        for step in steps_of(values, parameter):
            if step.word == "check_policy_service":
                endpoint, attributes = _service(step.argument)
                found.append(Asked(parameter, endpoint, attributes, permitted, step.warned))
            elif step.word in PERMITS and not permitted and _can_permit(step.word, values):
                permitted = step.word
    return found


def steps_of(values: Mapping[str, str], parameter: str) -> list[Step]:
    """One list, with what its classes hold in their places."""
    return list(_steps(values, values.get(parameter, ""), _IMPLIED.get(parameter, ""), (), warned=False))


def words_of(values: Mapping[str, str], parameter: str) -> list[str]:
    """The names of what is in force in one list: not of refusals that are only logged."""
    return [
        step.word for step in steps_of(values, parameter) if not step.warned or step.word.startswith("permit")
    ]


def lets_serve(values: Mapping[str, str], parameter: str) -> bool:
    """Whether a list has what smtpd(8) does not start without (has_required in smtpd_check.c).

    Nothing behind a plain `permit` counts, nor the word after `warn_if_reject`.
    """
    return _lets_serve(values, values.get(parameter, ""), ())


def logs_in(values: Mapping[str, str]) -> bool:
    """Whether people can log in at this smtpd."""
    return values.get("smtpd_sasl_auth_enable") == "yes"


def _classes(values: Mapping[str, str]) -> set[str]:
    return set(_WORD.findall(values.get("smtpd_restriction_classes", "")))


def _steps(
    values: Mapping[str, str], text: str, implied: str, inside: tuple[str, ...], *, warned: bool
) -> Iterator[Step]:
    classes = _classes(values)
    words = iter(_WORD.findall(text))
    next_warned = warned
    for word in words:
        name = word.lower()
        if name == "warn_if_reject":
            next_warned = True
            continue
        if ":" in word:
            yield Step(implied, word, next_warned)
        elif _WITH_ARGUMENT.fullmatch(name) and word not in classes:
            yield Step(name, next(words, ""), next_warned)
        elif word in classes and word not in inside:
            yield from _steps(values, values.get(word, ""), implied, (*inside, word), warned=next_warned)
        else:
            yield Step(name, "", next_warned)
        next_warned = warned


def _lets_serve(values: Mapping[str, str], text: str, inside: tuple[str, ...]) -> bool:
    classes = _classes(values)
    words = iter(_WORD.findall(text))
    for word in words:
        name = word.lower()
        if name == "warn_if_reject":
            next(words, "")
        elif name == "permit":
            return False
        elif name in REFUSES or (
            word in classes
            and word not in inside
            and _lets_serve(values, values.get(word, ""), (*inside, word))
        ):
            return True
    return False


def _can_permit(word: str, values: Mapping[str, str]) -> bool:
    if word == "permit_sasl_authenticated":
        return logs_in(values)
    return word != "permit_mynetworks" or bool(values.get("mynetworks"))


def _service(word: str) -> tuple[str, dict[str, str]]:
    """The endpoint and its attributes: `{ inet:HOST:PORT, timeout = 10s }`."""
    endpoint, _, rest = word.strip("{} \t").partition(",")
    pairs = (one.partition("=") for one in rest.split(","))
    return endpoint.strip(), {name.strip(): value.strip() for name, equals, value in pairs if equals}
