"""The search order of each kind of table: which candidate keys are asked for one key, in order.

Postfix sends a network table the whole key once and nothing else; with `pgsql:` it asked the partial
keys itself. So the walk of src/global/mail_addr_find.c:332-484 (and its relatives for domains and
transports) is made here, per Postfix parameter, and so is what Postfix does with the answer
afterwards (src/global/mail_addr_map.c:108-204): the extension that was cut off goes back in.

A `Question` is what a key asks: folded candidates for the sources, and, unfolded, what has to be put
back into the answer. Pure functions; nothing here waits or remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mailmaps.maps.address import fold, is_external, quote, quote_local_part, split_extension, unquote
from mailmaps.maps.address_list import append_extension

LONGEST_DOMAIN = 255  # octets, RFC 1035 2.3.4; characters are fewer


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

    def is_local(self, domain: str) -> bool:
        """Tell whether bare local parts are asked for `domain` (mail_addr_find.c:399-405)."""
        folded = fold(domain, self.smtputf8_enable)
        if folded and folded == fold(self.myorigin, self.smtputf8_enable):
            return True
        folded = folded.removesuffix(".")
        return folded in self.mydestination or folded in self.local_addresses


@dataclass(frozen=True, slots=True)
class Question:
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

    For virtual_mailbox_maps, virtual_uid_maps, virtual_gid_maps, relay_recipient_maps and
    smtpd_sender_login_maps, and a superset for virtual_alias_maps (`external_address_walk`).
    """
    return _address_question(key, rules, _both_forms)


def external_address_walk(key: str, rules: Rules) -> Question:
    """The same walk asking the external form only, as cleanup(8) does for virtual_alias_maps.

    smtpd(8) asks virtual_alias_maps in both forms, but only whether a row exists, and it sends a
    network table the internal form in a request of its own; that request is answered from the
    internal form, so that smtpd learns what it learnt from `pgsql:`.
    """
    internal_asked = not is_external(key)
    return _address_question(key, rules, _both_forms if internal_asked else _external_form)


def transport_walk(key: str, rules: Rules) -> Question:
    """user+ext@domain, user@domain, domain, parents (src/trivial-rewrite/transport.c:268-302).

    `*` is a key of its own: Postfix asks it separately and only then uses it.
    """
    if "@" not in key:
        return _plain_question(key, rules)
    internal = _internal(key)
    _, extension = _split(internal, rules)
    keys = list(_both_forms(internal))
    if extension:
        keys += _both_forms(_without_extension(internal, extension))
    domain = internal.rpartition("@")[2]
    keys += _parents(domain, dotted="transport_maps" not in rules.parent_domain_matches_subdomains)
    return Question(_folded(keys, rules))


def domain_walk(key: str, rules: Rules) -> Question:
    """The domain and nothing else: virtual_mailbox_domains is a string list (util/match_ops.c:110)."""
    return _plain_question(key, rules)


def domain_list_walk(key: str, rules: Rules) -> Question:
    """The domain and its parents: relay_domains is a domain list (util/match_ops.c:151-190)."""
    dotted = "relay_domains" not in rules.parent_domain_matches_subdomains
    return Question(_folded(_parents(key, dotted=dotted), rules))


def put_back(question: Question, index: int, values: tuple[str, ...], rules: Rules) -> str:
    """Make the virtual alias result out of the row that candidate `index` found.

    What mail_addr_map.c does after a FIXED table: `@other` gets the local part that was asked, and the
    extension that the search cut off is appended to every address. A target `@other` beside others is
    completed on its own (Postfix glues the whole list into one broken address, which nobody can want).
    A result without any address goes out as it is: smtpd(8) takes it for a known recipient, cleanup(8)
    for a temporary error (mail_addr_map.c:172-177), as with `pgsql:`.
    """
    stripped = question.stripped[index]
    user = question.local_part.removesuffix(question.extension) if stripped else question.local_part
    extension = extension_put_back(question, index, rules)
    if not extension and not any(value.startswith("@") for value in values):
        return ",".join(values)
    targets = [quote_local_part(user) + value if value.startswith("@") else value for value in values]
    if not extension:
        return ",".join(targets)
    extended = [append_extension(target, extension, rules.myorigin) for target in targets]
    return ",".join(target for target in extended if target) or ",".join(values)


def extension_put_back(question: Question, index: int, rules: Rules) -> str:
    """The extension that goes back into the result of candidate `index`, as it was asked; often empty."""
    propagate = "virtual" in rules.propagate_unmatched_extensions
    return question.extension if propagate and question.stripped[index] else ""


def _address_question(key: str, rules: Rules, forms: Callable[[str], Iterator[str]]) -> Question:
    internal = _internal(key)
    local, at, domain = internal.rpartition("@")
    if not at:
        local = internal
    _, extension = _split(internal, rules)
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
    return Question(_folded(keys, rules), tuple(stripped for _, stripped in steps), local, extension)


def _plain_question(key: str, rules: Rules) -> Question:
    return Question((fold(key, rules.smtputf8_enable),), (False,), key)


def _internal(key: str) -> str:
    """The internal form of a key that may have come in either form.

    A key that Postfix cannot have written as an external form is an internal form, however much it
    looks quoted: unquoting `"a"@example.com` would hand out the mailbox of `a`.
    """
    return unquote(key) if is_external(key) else key


def _both_forms(internal: str) -> Iterator[str]:
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
    if forms is _both_forms and external != local:
        yield local


def _split(internal: str, rules: Rules) -> tuple[str, str]:
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


def _parents(domain: str, *, dotted: bool) -> list[str]:
    """sub.example.com, then .example.com, .com (dotted) or example.com, com.

    Parents over `LONGEST_DOMAIN` are left out: no domain is that long, and a key of 16 KiB of dots would
    ask for 8000 of them.
    """
    names = [domain] if domain else []
    cut = domain.find(".", 1)
    while cut >= 0:
        parent = cut if dotted else cut + 1
        if parent < len(domain) and len(domain) - parent <= LONGEST_DOMAIN:
            names.append(domain[parent:])
        cut = domain.find(".", parent + 1)
    return names


def _folded(keys: list[str], rules: Rules) -> tuple[str, ...]:
    return tuple(fold(key, rules.smtputf8_enable) for key in keys)
