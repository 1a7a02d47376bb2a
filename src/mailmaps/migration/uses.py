"""Where a Postfix asks `pgsql:`: every parameter that it reads and whose value leads to such a table.

A parameter of the site's own (`sql = proxy:pgsql:/etc/postfix/sql`) is no use; what names it with `$sql`
is. proxy_read_maps only approves and is no use either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mailmaps.migration import words
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.readers import ListForm, check_name, form_of
from mailmaps.migration.words import Word


@dataclass(frozen=True, slots=True)
class Use:
    """One value that names `pgsql:` tables.

    `parameter` is read by every service, or by `service` ("submission/inet") alone. `written` is the value
    as it stands there; None when it is Postfix's default that leads to the tables.
    """

    parameter: str
    service: str
    written: str | None
    form: ListForm
    words: tuple[Word, ...]

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.service:
            return f"master.cf {self.service} -o {self.parameter}"
        return f"{self.parameter}" if self.written is not None else f"{self.parameter} (by default)"

    def items(self) -> list[tuple[int, str]]:
        """The expanded words in order, each with the number of the written word it comes from."""
        return [(number, text) for number, word in enumerate(self.words) for text in word.expanded]


def find(configuration: Configuration) -> list[Use]:
    """Every use of `pgsql:`: those of main.cf, then Postfix's defaults, then master.cf."""
    found = list(_in_main_cf(configuration))
    found.sort(key=lambda use: (use.written is None, use.parameter))
    return found + list(_in_master_cf(configuration))


def unsupported(configuration: Configuration) -> list[str]:
    """Lines about tables of other SQL databases, which mailmaps does not answer for."""
    places = [
        (name, value) for name, value in sorted(configuration.expanded.items()) if configuration.reads(name)
    ]
    places += [
        (f"master.cf {service} -o {name}", value) for (service, name), value in configuration.local.items()
    ]
    return [
        f"{place}: {word}"
        for place, value in places
        for word in words.texts(value)
        if (found := words.map_of(word)) is not None and found.type in OTHER_DATABASES
    ]


OTHER_DATABASES = frozenset({"mysql", "sqlite"})


def _in_main_cf(configuration: Configuration) -> Iterator[Use]:
    for name, value in configuration.expanded.items():
        if words.mentions_pgsql(value) and configuration.reads(name):
            written = configuration.written.get(name)
            yield _use(configuration, name, "", written, configuration.raw[name])


def _in_master_cf(configuration: Configuration) -> Iterator[Use]:
    for one in configuration.overrides:
        value = configuration.local[one.service, one.parameter]
        if words.mentions_pgsql(value) and configuration.reads(one.parameter):
            yield _use(configuration, one.parameter, one.service, one.value, one.value)


def _use(configuration: Configuration, name: str, service: str, written: str | None, raw: str) -> Use:
    form = form_of(name, configuration.classes)
    return Use(name, service, written, form, configuration.words(raw, service))


@dataclass(frozen=True, slots=True)
class Segment:
    """Words of a use that would become one table.

    `at` are the positions of the words in `Use.items()`, `search` the parameter whose search order they
    have, `obstacle` why no network table can stand there.
    """

    at: tuple[int, ...]
    maps: tuple[str, ...]
    search: str
    obstacle: str = ""


def segments(use: Use, default_check: str = "") -> list[Segment]:
    """Take a use apart. `default_check` is what a bare `pgsql:x` means in a list of restrictions."""
    texts = [text for _, text in use.items()]
    if use.form == "restrictions":
        return list(_checks(texts, default_check))
    if use.form == "match list":
        return list(_runs(texts, use.parameter))
    mentioned = tuple(number for number, text in enumerate(texts) if words.mentions_pgsql(text))
    maps = tuple(texts[number] for number in mentioned)
    return [Segment(mentioned, maps, use.parameter, _obstacle(texts))]


def _obstacle(texts: list[str]) -> str:
    if any(words.mentions_pgsql(text) and not words.is_pgsql(text) for text in texts):
        return NESTED
    others = [text for text in texts if not words.is_pgsql(text)]
    return MIXED.format(others=", ".join(others)) if others else ""


NESTED = "it stands in braces or inside another table, which Postfix asks in its place"
MIXED = (
    "a mixed list, with {others}: Postfix asks a network table for the whole address once, before it cuts "
    "anything off. Row `user@domain` of the other table would lose to a catch-all behind the network table"
)


def _runs(texts: list[str], parameter: str) -> Iterator[Segment]:
    run: list[int] = []
    for number, text in enumerate([*texts, ""]):
        if words.is_pgsql(text):
            run.append(number)
            continue
        if run:
            yield Segment(tuple(run), tuple(texts[at] for at in run), parameter)
            run = []
        if words.mentions_pgsql(text):
            yield Segment((number,), (text,), parameter, NESTED)


def _checks(texts: list[str], default_check: str) -> Iterator[Segment]:
    for number, text in enumerate(texts):
        if not words.mentions_pgsql(text):
            continue
        check = check_name(texts[number - 1]) if number else ""
        search = check or default_check
        obstacle = "" if words.is_pgsql(text) else NESTED
        if not search:
            obstacle = obstacle or "nothing before it says which check_..._access it is"
        yield Segment((number,), (text,), search, obstacle)
