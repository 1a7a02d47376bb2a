"""Decides what becomes of each use of `pgsql:`: it moves to a table of mailmaps, or stays, and why.

The rule it keeps: afterwards Postfix gets for every address the answer it got before, and no program gets a
table that it refuses. Where that cannot be had, the use stays as it is, written out in full if a `$name`
in it would have moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mailmaps.maps.tables import KINDS
from mailmaps.migration import services, words
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.files import CfFile
from mailmaps.migration.plan import Change, Endpoints, Fate, NewTable, Plan
from mailmaps.migration.readers import (
    ALSO_READ_BY_SMTPD,
    FOLLOWERS,
    RESTRICTIONS,
    asks_bare_local_parts,
    unfit,
)
from mailmaps.migration.uses import Segment, Use, segments

Inspect = Callable[[str], CfFile]
"""What is found about a source ("pgsql:/path")."""


def make(configuration: Configuration, uses: list[Use], inspect: Inspect, endpoints: Endpoints) -> Plan:
    """Decide about all uses."""
    return _Planner(configuration, inspect, endpoints).plan(uses)


class _Planner:
    def __init__(self, configuration: Configuration, inspect: Inspect, endpoints: Endpoints) -> None:
        self._configuration = configuration
        self._inspect = inspect
        self._endpoints = endpoints
        self._plan = Plan()
        self._moving: set[str] = set()  # the parameters of main.cf that get a network table

    def plan(self, uses: list[Use]) -> Plan:
        """`uses` with what is written before Postfix's defaults, so that these can follow."""
        fates = [(use, self._fates(use)) for use in uses]
        for use, of_use in fates:
            self._plan.fates += of_use
            if (change := self._change(use, of_use)) is not None:
                self._plan.changes.append(change)
        self._keep_for_virtual([use for use, of_use in fates if any(one.table for one in of_use)])
        self._plan.kept = services.kept(self._configuration, self._plan)
        self._plan.changes += self._plan.kept
        return self._plan

    def _fates(self, use: Use) -> list[Fate]:
        if (leader := self._leader(use)) is not None:
            maps = tuple(text for _, text in use.items() if words.mentions_pgsql(text))
            return [Fate(use, Segment((), maps, use.parameter), None, f"names {leader}", follows=True)]
        found = [self._fate(use, segment) for segment in segments(use, self._default_check(use))]
        if not use.service and any(fate.table for fate in found):
            self._moving.add(use.parameter)
        return found

    def _fate(self, use: Use, segment: Segment) -> Fate:
        reason = segment.obstacle or self._refused(use) or unfit(segment.search)
        if reason := reason or services.searched_otherwise(self._configuration, use.service, segment.search):
            return Fate(use, segment, None, reason)
        sources = tuple(found.source for text in segment.maps if (found := words.map_of(text)) is not None)
        files = [self._inspect(source) for source in sources]
        problems = [problem for file in files for problem in file.problems]
        if problems:
            return Fate(use, segment, None, "; ".join(problems), any(file.broken for file in files))
        notes = "; ".join(self._configuration.notes)
        if notes and any(file.answers_bare for file in files) and asks_bare_local_parts(segment.search):
            return Fate(use, segment, None, UNKNOWN_LOCALS.format(notes=notes))
        return Fate(use, segment, self._table(segment.search, sources))

    def _leader(self, use: Use) -> str | None:
        """What this use names with `$`, when nothing is to be written here."""
        raw = self._configuration.raw[use.parameter] if use.written is None else use.written
        if use.written is None and not self._configuration.references(raw) & self._moving:
            return raw  # what stays, stays by default too
        leader = FOLLOWERS.get(use.parameter, "")
        follows = raw in (f"${leader}", f"${{{leader}}}", f"$({leader})")
        return raw if follows and self._same_parents(use.parameter, leader) else None

    def _same_parents(self, one: str, other: str) -> bool:
        named = words.texts(self._configuration.expanded.get("parent_domain_matches_subdomains", ""))
        return not one.endswith("_domains") or (one in named) == (other in named)

    def _default_check(self, use: Use) -> str:
        """What a bare map means in the list; in a restriction class, what it means where that is used."""
        if use.parameter in RESTRICTIONS:
            return RESTRICTIONS[use.parameter]
        values = list(self._configuration.expanded.items())
        values += [(name, value) for (_, name), value in self._configuration.local.items()]
        checks = {
            RESTRICTIONS[name]
            for name, value in values
            if name in RESTRICTIONS and use.parameter in words.texts(value)
        }
        return checks.pop() if len(checks) == 1 else ""

    def _refused(self, use: Use) -> str:
        kind = KINDS.get(use.parameter)
        program = kind.refused_by.removesuffix("(8)") if kind is not None else ""
        if not program:
            return ""
        if use.service and self._configuration.services[use.service].program != program:
            return ""
        if not use.service and use.parameter in ALSO_READ_BY_SMTPD:
            return ""
        return f'{program}(8) refuses network tables here ("not allowed for security sensitive data")'

    def _table(self, parameter: str, sources: tuple[str, ...]) -> NewTable:
        """A table for these sources; the one there is, when parameter and sources are the same."""
        same = [one for one in self._plan.tables if (one.parameter, one.sources) == (parameter, sources)]
        if same:
            return same[0]
        taken = {one.name for one in self._plan.tables}
        names = (parameter if number == 1 else f"{parameter}_{number}" for number in range(1, len(taken) + 2))
        name = next(name for name in names if name not in taken)
        default = KINDS[parameter].tcp_port if name == parameter else 0
        port = self._endpoints.port(default, {one.port for one in self._plan.tables})
        table = NewTable(name, parameter, sources, port)
        self._plan.tables.append(table)
        self._plan.endpoints[self._endpoints.of(table)] = table
        return table

    def _change(self, use: Use, fates: list[Fate]) -> Change | None:
        new_words: dict[int, str | None] = {}
        for fate in fates:
            if fate.follows:
                return None
            if fate.table is not None:
                new_words |= dict.fromkeys(fate.segment.at)
                new_words[fate.segment.at[0]] = self._endpoints.of(fate.table)
        new = self._rewritten(use, new_words)
        if words.texts(new) == tuple(word.raw for word in use.words):
            return None
        return Change(use.parameter, use.service, use.written, new, self._why(use, bool(new_words)))

    def _why(self, use: Use, moves: bool) -> str:
        if not moves:
            return "stays; written out, because a parameter that it names moves"
        if use.written is not None:
            return ""
        default = f"written out, since Postfix's default is {self._configuration.raw[use.parameter]}"
        return f"{default}, which is searched in another order" + HINTS.get(use.parameter, "")

    def _rewritten(self, use: Use, new_words: dict[int, str | None]) -> str:
        """The value with the items of `new_words` replaced (None: dropped) and all else as it was written."""
        glue = " " if use.written is None or any(ch.isspace() for ch in use.written) else ","
        value, position = "", 0
        for word in use.words:
            at = range(position, position + len(word.expanded))
            position += len(word.expanded)
            if not any(number in new_words for number in at) and not self._moves_below(word, use):
                value += word.before + word.raw
                continue
            kept = [new_words.get(number, text) for number, text in zip(at, word.expanded, strict=True)]
            texts = [text for text in kept if text]
            value += (word.before if value else "") + glue.join(texts) if texts else ""
        return value

    def _moves_below(self, word: words.Word, use: Use) -> bool:
        """Whether `$name` in the word leads to a parameter that moves."""
        if not any(words.mentions_pgsql(text) for text in word.expanded):
            return False
        return bool(self._configuration.references(word.raw) & (self._moving - {use.parameter}))

    def _keep_for_virtual(self, moved: list[Use]) -> None:
        """Give every virtual(8) the old value of what only it refuses, so that no mail is deferred."""
        for use in moved:
            if use.service or use.parameter not in ALSO_READ_BY_SMTPD:
                continue
            for service in self._refusing_services(use.parameter):
                values = self._configuration.in_force.get(service, self._configuration.expanded)
                old = ",".join(words.texts(values[use.parameter]))
                self._plan.changes.append(Change(use.parameter, service, None, old, KEPT_FOR_VIRTUAL))

    def _refusing_services(self, parameter: str) -> Iterator[str]:
        program = KINDS[parameter].refused_by.removesuffix("(8)")
        own = {one.service for one in self._configuration.overrides if one.parameter == parameter}
        for name, service in self._configuration.services.items():
            if service.program == program and name not in own:
                yield name


UNKNOWN_LOCALS = (
    "for a domain of mydestination Postfix asks the local part alone too, and mailmaps cannot know all of "
    "these domains: {notes}. Write them out in main.cf and run `mailmaps migrate` again"
)
HINTS = {
    "virtual_alias_domains": "; if no domain of yours has aliases only, set it to nothing (back.sh undoes "
    "that too) and save a question a message"
}
KEPT_FOR_VIRTUAL = (
    "virtual(8) refuses network tables and would defer all mail, so it goes on asking PostgreSQL itself; "
    "smtpd(8) asks mailmaps"
)
