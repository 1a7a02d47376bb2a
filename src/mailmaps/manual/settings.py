"""mailmaps.toml(5)'s settings: names, types and defaults as the program has them, the text of mailmaps.toml.

Contract: every setting of every section is there, since they are read from the models; what is written about
one are the comments of the shipped file. For tables, which are many of one kind, the comment above the first
has an entry "NAME: text" for a setting.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator

from mailmaps.config import Settings
from mailmaps.config.section import Section
from mailmaps.manual import roff
from mailmaps.manual.described import Described, Group, describe, shipped
from mailmaps.manual.kinds import default, kind, toml

# Columns a tag may take: longer ones are cut by no formatter, but wrap without indentation.
TAG = 70

_ENTRY = re.compile(r"([a-z_]+): ")
_EXAMPLE = "  "  # a comment line that begins so, after "# ", is shown as it is


def sections() -> Iterator[tuple[str, type[Section]]]:
    """The header of each section and its model, in the order of the settings; "" for what has none."""
    yield "", Settings
    for name, info in Settings.model_fields.items():
        if model := _model(info.annotation):
            yield name, model
        elif (inner := typing.get_args(info.annotation)) and (model := _model(inner[-1])):
            yield f"{name}.NAME", model


def _model(annotation: object) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def names(model: type[Section]) -> list[str]:
    """The settings of a section, without the sections in it."""
    inner = {name.partition(".")[0] for name, _ in sections()} if model is Settings else set()
    return [name for name in model.model_fields if name not in inner]


def page() -> list[str]:
    """The sections of mailmaps.toml(5), one after the other."""
    described = describe(shipped())
    lines: list[str] = []
    for header, model in sections():
        if header.endswith(".NAME"):
            lines += _many(header, model, described)
        else:
            lines += _section(header, model, described.get(header, Described(header)))
    return lines


def _section(header: str, model: type[Section], section: Described) -> list[str]:
    lines = [f".SS {roff.argument(f'[{header}]' if header else 'Before the first section')}"]
    groups = [
        Group(one.comment, [name for name in one.names if name in names(model)]) for one in section.groups
    ]
    if header:  # what stands at the beginning of the file is about the file
        lines += _comment(section.comment)
    missing = set(names(model)) - {name for group in groups for name in group.names}
    groups += [Group(names=[name]) for name in names(model) if name in missing]
    for group in groups:
        if group.names:
            lines += _group(model, group)
    return lines


def _group(model: type[Section], group: Group) -> list[str]:
    tags, body = [], []
    for name in group.names:
        value = default(model, name)
        given = f" = {roff.escape(value)}" if value else ""
        words = f" ({roff.escape(kind(model, name))})"
        if len(name) + len(given) + len(words) > TAG:
            body += [f"Default of {roff.bold(name)}:", *roff.filled(value), ".br"]
            given = ""
        tags.append(roff.bold(name) + given + words + ("" if value else ", not set"))
    comment = group.comment
    if comment and comment[-1].endswith(":"):  # in the file, the setting follows
        comment = [*comment[:-1], comment[-1].removesuffix(":") + "."]
    return roff.item(tags[0], [*body, *_comment(comment, first=True)], *tags[1:])


def _many(header: str, model: type[Section], described: dict[str, Described]) -> list[str]:
    """A kind of section of which there may be any number."""
    kind_of = header.removesuffix("NAME")
    there = [section for name, section in described.items() if name.startswith(kind_of)]
    comment = there[0].comment if there else []
    before, entries, after = _entries(comment, model)
    lines = [f".SS {roff.argument(f'[{header}]')}", *_comment(before)]
    for name in names(model):
        lines += _group(model, Group(entries.get(name, []), [name]))
    lines += _comment(after)
    lines += [".PP", "The sections that are there by themselves, with what is different in each:"]
    there_are: dict[str, Section] = getattr(Settings(), kind_of.rstrip("."))
    return lines + roff.close([_one(name, table) for name, table in there_are.items()])


def _one(name: str, section: Section) -> list[str]:
    """What a section that is there by itself has otherwise than the defaults of its kind."""
    model = type(section)
    given = {one: toml(getattr(section, one)) for one in names(model) if getattr(section, one) != name}
    return roff.item(
        roff.bold(name),
        roff.filled(
            ", ".join(f"{one} = {value}" for one, value in given.items() if value != default(model, one))
        ),
    )


def _entries(comment: list[str], model: type[Section]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The lines before the entries, the entries by the setting's name, and what comes after an empty line."""
    before: list[str] = []
    entries: dict[str, list[str]] = {}
    current = before
    after: list[str] = []
    for line in comment:
        entry = _ENTRY.match(line)
        if entry and entry[1] in model.model_fields and current is not after:
            current = entries.setdefault(entry[1], [])
            line = line[entry.end() :]
            line = line[:1].upper() + line[1:]
        elif not line and entries:
            current = after
        current.append(line)
    return before, entries, after


def _comment(comment: list[str], *, first: bool = False) -> list[str]:
    """A comment's paragraphs; indented lines are examples."""
    lines: list[str] = []
    for number, block in enumerate(_blocks(comment)):
        if block[0].startswith(_EXAMPLE):
            lines += roff.example(line.removeprefix(_EXAMPLE) for line in block)
        else:
            lines += [] if first and not number else [".IP" if first else ".PP"]
            lines += roff.filled(" ".join(block))
    return lines


def _blocks(comment: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*comment, ""]:
        if block and (not line or line.startswith(_EXAMPLE) != block[0].startswith(_EXAMPLE)):
            yield block
            block = []
        if line:
            block.append(line)
