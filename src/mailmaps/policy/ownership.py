"""Who may send as whom: the engine behind smtpd_sender_login_maps, the policy check and `senders explain`.

What is asked is the row that the search found for the sender (`mailmaps.maps.search`: the address itself,
then without its extension, then the catch-all of its domain; the first that somebody has, decides) and the
grants for any of these. A row of the builtin view says by which rules it came about: `RULES LOGIN`, RULES of
the letters o (own address), a (alias), f (forward), d (domain alias), schema/0012_sender_rights.sql. Each
rule is a switch of [senders]; a right that took several rules needs all of them.

The map can say less than the check: it knows no client, so it leaves out grants with networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time

from mailmaps.maps.address import fold
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.maps.cache import Row
from mailmaps.maps.search import Question
from mailmaps.policy.grants import Grant, Grants

# An owner that nobody logs in as: the address is known, and no rule that is switched on lets anybody use it.
# (The schema has '!inactive', and no username that begins so.)
NOBODY = "!nobody"

# The source whose rows say by which rules they came about.
BUILTIN = "builtin"

UNKNOWN_GRANTS = "the grants are not known"

# Owners that a refusal names.
MOST_NAMED = 5

ALLOWED_BY_OURS = "an alias or a forward to an address of his (user_addresses, forwards)"
ALLOWED_BY_THEIRS = "a row for him in the table or query that smtpd_sender_login_maps asks"

# How schema/0012_sender_rights.sql writes the rules down; a catch-all shows in its key.
LETTERS = {"o": "own", "a": "aliases", "f": "forwards", "d": "domain_aliases", "@": "catch_all"}

# smtpd_sender_login_maps is a list: CHARS_COMMA_SP (src/util/sys_defs.h).
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Switches:
    """The rules of [senders] by their names."""

    own: bool = True
    aliases: bool = True
    forwards: bool = True
    domain_aliases: bool = True
    catch_all: bool = True
    plus: bool = True
    grants: bool = True
    services: bool = True
    null_sender: bool = True
    unowned: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has the address, and the rules of [senders] that it took; none: a site's own table says so.

    Such a table may have several logins in one value, which is left as it is.
    """

    value: str
    rules: tuple[str, ...]

    @property
    def by(self) -> str:
        """The rules for people."""
        return " + ".join(self.rules) or "a table of your own"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a login may send as an address; `by` names the rule or what is missing, `needed` what would
    allow it. Both are for people, and name the key or grant that decided."""

    allowed: bool
    by: str
    needed: str = ""


class Ownership:
    """The engine. `grants` None: there are none, since no database is named that would have them."""

    def __init__(
        self,
        switches: Switches,
        grants: Grants | None,
        clock: Callable[[], float] = time,
        *,
        ours: bool = True,
    ) -> None:
        """`clock` gives seconds since the epoch. `ours`: the rows come from the builtin view."""
        self.switches = switches
        self.grants = grants if switches.grants or switches.services else None
        self._off = frozenset(name for name in _SWITCHABLE if not getattr(switches, name))
        self._clock = clock
        self._what_allows = ALLOWED_BY_OURS if ours else ALLOWED_BY_THEIRS
        self._what_allows += ", or a grant" if self.grants is not None else ""

    def owners(self, question: Question | None, row: Row) -> Answer:
        """The answer of smtpd_sender_login_maps: everybody who may send as this, from everywhere."""
        if question is None:
            return NOT_FOUND
        logins = [owner.value for owner in self._owners_of(question, row) if self._is_on(owner)]
        known = bool(row.values)
        if self.grants is not None and self.switches.grants:
            if not self.grants.are_known:
                return Unavailable(UNKNOWN_GRANTS)
            valid = self._valid_grants(question)
            known = known or bool(valid)
            logins += [grant.login for grant in valid if not grant.networks]
        if logins:
            return Found(",".join(dict.fromkeys(logins)))
        return Found(NOBODY) if known else NOT_FOUND

    def decide(self, login: str, client: str, question: Question | None, row: Row) -> Verdict | Unavailable:
        """Whether `login` may send as what was asked for, from the client's address."""
        name = fold(login)
        if question is None:  # no address looks like this
            return self._granted(name, client, []) or Verdict(False, "nobody here has the address")
        owned = self.owned(name, question, row)
        if owned is not None and owned.allowed:
            return owned
        granted = self._granted(name, client, self._granted_keys(question))
        if granted is not None and (isinstance(granted, Unavailable) or granted.allowed):
            return granted
        if self.switches.unowned and row.index < 0 and not self._valid_grants(question):
            return Verdict(True, "unowned (nobody here has the address)")
        return granted or owned or Verdict(False, self._whose(question, row), self._what_allows)

    def plainly_owns(self, login: str, row: Row) -> bool:
        """Whether the row has the login as it is spelt, and no rule is off: the usual case, at once."""
        if self._off or row.source != BUILTIN or row.parts:
            return False
        return any(value.partition(" ")[2] == login for value in row.values)

    def owned(self, name: str, question: Question, row: Row) -> Verdict | None:
        """What the row says of a login (folded); a verdict that refuses tells which rule is off."""
        refused = None
        for owner in self._owners_of(question, row, name):
            if self._is_on(owner):
                return Verdict(True, f"{owner.by} (the row of {question.candidates[row.index]})")
            off = " and ".join(f"senders.{rule} = true" for rule in owner.rules if rule in self._off)
            refused = Verdict(False, f"{self._whose(question, row)} by {owner.by}, which is off", off)
        return refused

    def _granted(self, name: str, client: str, keys: list[str]) -> Verdict | Unavailable | None:
        """What the grants say; a verdict that refuses tells which one nearly allowed it."""
        if self.grants is None:
            return None
        if not self.grants.are_known:
            return Unavailable(UNKNOWN_GRANTS)
        candidates = self.grants.of(keys) if self.switches.grants else []
        candidates += self.grants.services() if self.switches.services else ()
        now, refused = self._clock(), None
        for grant in candidates:
            if fold(grant.login) != name:
                continue
            if grant.is_over(now):
                refused = Verdict(
                    False, f"{grant.text}, which has expired", "another `expires` for that grant"
                )
            elif not grant.holds_from(client):
                refused = Verdict(False, f"{grant.text}, but not from {client}", "a client in its networks")
            else:
                return Verdict(True, grant.text)
        return refused

    def _valid_grants(self, question: Question) -> list[Grant]:
        """Whoever's, for this address."""
        if self.grants is None or not self.switches.grants:
            return []
        now = self._clock()
        return [grant for grant in self.grants.of(self._granted_keys(question)) if not grant.is_over(now)]

    def _whose(self, question: Question, row: Row) -> str:
        if row.index < 0:
            return "nobody here has the address"
        key = question.candidates[row.index]
        logins = list(dict.fromkeys(owner.value for owner in self._owners_of(question, row)))
        if not logins:
            return f"{key} leads to nobody who logs in here, or to too many"
        more = f" and {len(logins) - MOST_NAMED} more" if len(logins) > MOST_NAMED else ""
        return f"{key} is of {', '.join(logins[:MOST_NAMED])}{more}"

    def _owners_of(self, question: Question, row: Row, name: str = "") -> Iterator[Owner]:
        """Everybody in the row, with the rules it took, `plus` and `catch_all` among them; with a `name`
        (folded), those that are he."""
        found: tuple[str, ...] = ()
        if row.values:
            found = ("plus",) if question.stripped and question.stripped[row.index] else ()
            found += ("catch_all",) if question.candidates[row.index].startswith("@") else ()
        for source, values in row.parts or ((row.source, row.values),):
            for value in values:
                if source == BUILTIN:
                    letters, _, login = value.partition(" ")
                    if name and fold(login) != name:
                        continue
                    yield Owner(
                        login, tuple(LETTERS[letter] for letter in letters if letter in LETTERS) + found
                    )
                elif not name or name in map(fold, _SEPARATORS.split(value)):
                    yield Owner(value, found)

    def _is_on(self, owner: Owner) -> bool:
        return self._off.isdisjoint(owner.rules)

    def _granted_keys(self, question: Question) -> list[str]:
        """Of the candidates, those that a grant may name."""
        if self.switches.plus or not question.stripped:
            return list(question.candidates)
        return [
            key for key, stripped in zip(question.candidates, question.stripped, strict=True) if not stripped
        ]


_SWITCHABLE = ("own", "aliases", "forwards", "domain_aliases", "catch_all", "plus")
