"""The search order of each kind of table: which candidate keys are asked for one key, in order.

Postfix sends a network table the whole key once and nothing else; with `pgsql:` it asked the partial
keys itself. So the walk of src/global/mail_addr_find.c:332-484 (and its relatives for domains and
transports) is made here, per Postfix parameter, and so is what Postfix does with the answer
afterwards (src/global/mail_addr_map.c:108-204): the extension that was cut off goes back in.

A `Question` is what a key asks: folded candidates for the sources, and, unfolded, what has to be put
back into the answer. Pure functions; nothing here waits or remembers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mailmaps.maps.address import fold, is_external, quote, quote_local_part, split_extension, unquote
from mailmaps.maps.address_list import append_extension


@dataclass(frozen=True, slots=True)
class Rules:
    """The Postfix settings that decide a search; each field is the main.cf parameter of that name."""

    recipient_delimiter: str = ""
    owner_request_special: bool = True
    double_bounce_sender: str = "double-bounce"
    propagate_unmatched_extensions: frozenset[str] = frozenset({"canonical", "virtual"})
    myorigin: str = ""
    mydestination: frozenset[str] = frozenset()
    parent_domain_matches_subdomains: frozenset[str] = frozenset({"relay_domains"})
    smtputf8_enable: bool = True
    local_addresses: frozenset[str] = frozenset()
    myhostname: str = ""
    mydomain: str = ""
    append_at_myorigin: bool = True
    append_dot_mydomain: bool = False
    swap_bangpath: bool = True
    allow_percent_hack: bool = True
    resolve_dequoted_address: bool = True

    def is_local(self, domain: str) -> bool:
        """Tell whether bare local parts are asked for `domain` (mail_addr_find.c:399-405)."""
        folded = fold(domain, self.smtputf8_enable)
        if folded and folded == fold(self.myorigin, self.smtputf8_enable):
            return True
        return self.resolves_here(domain)

    def resolves_here(self, domain: str) -> bool:
        """Tell whether mail to `domain` is for this machine itself (resolve_local.c:78-168)."""
        folded = fold(domain, self.smtputf8_enable).removesuffix(".")
        return folded in self.mydestination or folded in self.local_addresses


class Question(NamedTuple):
    """One key, taken apart.

    `candidates` are folded and in search order. `stripped` tells for each whether the extension was
    cut off to make it. `local_part` (internal form) and `extension` are in the case they came in.
    """

    candidates: tuple[str, ...]
    stripped: tuple[bool, ...] = ()
    local_part: str = ""
    extension: str = ""


Walk = Callable[[str, Rules], Question]


def address_walk(key: str, rules: Rules) -> Question:
    """user+ext@domain, user@domain, user+ext, user (local domains only), @domain; both forms.

    The strategy MA_FIND_DEFAULT of mail_addr_find() (src/global/mail_addr_find.h:39-61).
    """
    return _address_question(key, rules, both_forms)


def external_address_walk(key: str, rules: Rules) -> Question:
    """The same walk asking the external form only, as mail_addr_map.h:28-30 and cleanup_map11.c:112 do.

    smtpd(8) asks virtual_alias_maps and the canonical maps in both forms, but only whether a row exists,
    and it sends a network table the internal form in a request of its own; that request is answered from
    the internal form, so that smtpd learns what it learnt from `pgsql:`.
    """
    internal_asked = not is_external(key)
    return _address_question(key, rules, both_forms if internal_asked else _external_form)


def is_address_walk(walk: Walk) -> bool:
    """Tell whether an address is searched for by `address_walk` or `external_address_walk`."""
    return walk in _ADDRESS_WALKS


def or_domain(walk: Walk) -> Walk:
    """The same walk for a table that is a list of domains too, when Postfix's default makes it one.

    Unset, virtual_alias_domains is $virtual_alias_maps and virtual_mailbox_domains $virtual_mailbox_maps
    (global/mail_params.h:489, 2755), and a string list is asked for the whole domain only. `web-shop.example`
    is then no user `web` with an extension. What cannot be a domain (with append_at_myorigin = no) is still
    a user.
    """

    def either(key: str, rules: Rules) -> Question:
        is_domain = "@" not in key and _DOMAIN.fullmatch(key)
        return whole_key_walk(key, rules) if is_domain else walk(key, rules)

    if walk in _ADDRESS_WALKS:
        _ADDRESS_WALKS.add(either)
    return either


_ADDRESS_WALKS: set[Walk] = {address_walk, external_address_walk}

# A host name or address literal, in whatever script (util/valid_hostname.c lets `_` pass).
_DOMAIN = re.compile(r"[\w.-]+|\[[^]]*\]")


def password_walk(key: str, rules: Rules) -> Question:
    """A sender as in `address_walk`, a host or destination as it is (src/smtp/smtp_sasl_glue.c:190-200).

    A host name may hold any delimiter: `mail-1.example.com` has no extension.
    """
    return address_walk(key, rules) if "@" in key else whole_key_walk(key, rules)


def whole_key_walk(key: str, rules: Rules) -> Question:
    """The key and nothing else, folded: string lists (util/match_ops.c:111) and DICT_FLAG_FOLD_FIX."""
    return Question((fold(key, rules.smtputf8_enable),), (False,), key)


def unfolded_walk(key: str, rules: Rules) -> Question:
    """The key and nothing else, in its own case: tables that are opened without DICT_FLAG_FOLD_FIX."""
    return Question((key,), (False,), key)


def put_back(
    question: Question,
    index: int,
    values: tuple[str, ...],
    rules: Rules,
    propagates: str = "virtual",
    exactly: bool = False,
) -> str:
    """Make the result, a list of addresses, out of the row that candidate `index` found.

    What mail_addr_map.c does after a FIXED table: `@other` gets the local part that was asked, and the
    extension that the search cut off is appended to every address, if propagate_unmatched_extensions
    names `propagates`. A result without any address goes out as it is: smtpd(8) takes it for a known
    recipient, cleanup(8) for a temporary error (mail_addr_map.c:172-177), as with `pgsql:`.

    A target `@other` beside others is completed on its own. `exactly` leaves the list to what Postfix
    makes of it (`_completed_as_postfix`): rows that a `pgsql:` file gave must mean what they meant.
    """
    extension = extension_put_back(question, index, rules, propagates)
    user = question.local_part
    if question.stripped[index]:
        user = user.removesuffix(question.extension)
    complete = _completed_as_postfix if exactly else _completed
    targets = complete(user, values)
    if not extension:
        return ",".join(targets)
    extended = [append_extension(target, extension, rules.myorigin) for target in targets]
    return ",".join(target for target in extended if target) or ",".join(values)


def extension_put_back(question: Question, index: int, rules: Rules, propagates: str = "virtual") -> str:
    """The extension that goes back into the result of candidate `index`, as it was asked; often empty."""
    propagate = propagates in rules.propagate_unmatched_extensions
    return question.extension if propagate and question.stripped[index] else ""


def _completed(user: str, values: tuple[str, ...]) -> list[str]:
    """Give each target that is only an `@domain` the local part that was asked."""
    return [quote_local_part(user) + value if value.startswith("@") else value for value in values]


def _completed_as_postfix(user: str, values: tuple[str, ...]) -> list[str]:
    """The same to the result as a whole (mail_addr_map.c:149-161).

    `@one, two@example.com` becomes the one address `"user@one, two"@example.com`, broken as it is. An
    `@other` that is not at the start stays an address without local part.
    """
    result = ",".join(values)
    return [quote(user + result) if result.startswith("@") else result]


def _address_question(key: str, rules: Rules, forms: Callable[[str], Iterator[str]]) -> Question:
    internal = internal_form(key)
    local, at, domain = internal.rpartition("@")
    if not at:
        local = internal
    _, extension = split(internal, rules)
    bare = _without_extension(internal, extension) if extension else ""
    steps = [(form, False) for form in forms(internal)]
    steps += [(form, True) for form in forms(bare)] if bare else []
    if at and rules.is_local(domain):
        steps += [(form, False) for form in _local_forms(local, forms)]
        if bare:
            steps += [(form, True) for form in _local_forms(local.removesuffix(extension), forms)]
    if at:
        steps.append(("@" + domain, False))
    keys = [key for key, _ in steps]
    return Question(folded(keys, rules), tuple(stripped for _, stripped in steps), local, extension)


def internal_form(key: str) -> str:
    """The internal form of a key that may have come in either form.

    A key that Postfix cannot have written as an external form is an internal form, however much it
    looks quoted: unquoting `"a"@example.com` would hand out the mailbox of `a`.
    """
    return unquote(key) if is_external(key) else key


def both_forms(internal: str) -> Iterator[str]:
    """External form first, then internal if it differs (MA_FORM_EXTERNAL_FIRST)."""
    external = quote(internal)
    yield external
    if external != internal:
        yield internal


def _external_form(internal: str) -> Iterator[str]:
    yield quote(internal)


def _local_forms(local: str, forms: Callable[[str], Iterator[str]]) -> Iterator[str]:
    """The forms of a bare local part, which may hold an `@` of its own (QUOTE_FLAG_BARE_LOCALPART)."""
    external = quote_local_part(local)
    yield external
    if forms is both_forms and external != local and local:  # an empty key is never asked (global/maps.c:184)
        yield local


def split(internal: str, rules: Rules) -> tuple[str, str]:
    """The local part of an address in internal form: the user, and the extension or nothing."""
    local, at, _ = internal.rpartition("@")
    return split_extension(
        local if at else internal,
        rules.recipient_delimiter,
        owner_request_special=rules.owner_request_special,
        double_bounce_sender=rules.double_bounce_sender,
    )


def _without_extension(internal: str, extension: str) -> str:
    local, at, domain = internal.rpartition("@")
    if not at:
        return internal.removesuffix(extension)
    return local.removesuffix(extension) + at + domain


def folded(keys: list[str], rules: Rules) -> tuple[str, ...]:
    """Keys as the sources know them."""
    return tuple(fold(key, rules.smtputf8_enable) for key in keys)
