"""mailmaps(1)'s commands, as click knows them: what `--help` says, said as a manual page.

Contract: every command that is not hidden is there, with every option and its help exactly as click prints
them. The options that many commands have are described once, under OPTIONS, and stand in each command's
synopsis. In a help text, a paragraph that begins with click's `\\b` is an example, and a sentence that begins
with "Exit code" starts a paragraph.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import click

from mailmaps.manual import roff

# An option that as many commands have, in the same words, is described once.
COMMON = 10

# Columns for the name of a command in the overview.
OVERVIEW = 18

_NOT_WRAPPED = "\b"
_EXIT_CODE = re.compile(r"(?<=[.:])\s+(?=Exit code)")


@dataclass(frozen=True)
class Command:
    """One command as it is called: `name` is "limits set"."""

    name: str
    command: click.Command
    context: click.Context

    @property
    def is_group(self) -> bool:
        """Whether it does nothing but hold others."""
        return isinstance(self.command, click.Group) and not self.command.invoke_without_command

    @property
    def short(self) -> str:
        """What it does, in one sentence."""
        return self.command.get_short_help_str(limit=1000).rstrip(".")

    @cached_property
    def options(self) -> list[tuple[str, str, click.Option]]:
        """Of each option the names with the variable, and the help, as `--help` prints them."""
        parameters = self.command.get_params(self.context)
        helped = set(self.command.get_help_option_names(self.context))
        found = []
        for parameter in parameters:
            record = parameter.get_help_record(self.context)
            if isinstance(parameter, click.Option) and record and not helped & set(parameter.opts):
                found.append((*record, parameter))
        return found

    @cached_property
    def arguments(self) -> list[str]:
        """The arguments as `--help` prints them: KEY..., [DIRECTORY]."""
        return [
            piece
            for parameter in self.command.get_params(self.context)
            if isinstance(parameter, click.Argument)
            for piece in parameter.get_usage_pieces(self.context)
        ]


def walk(root: click.Group, name: str) -> Iterator[Command]:
    """All commands of the program `name`, itself first, each group before what it holds, by name."""
    yield from _walk(root, name, "", None)


def _walk(command: click.Command, word: str, name: str, parent: click.Context | None) -> Iterator[Command]:
    context = click.Context(command, info_name=word, parent=parent, **command.context_settings)
    yield Command(name, command, context)
    if isinstance(command, click.Group):
        for inner_word in command.list_commands(context):
            inner = command.get_command(context, inner_word)
            if inner is not None and not inner.hidden:
                yield from _walk(inner, inner_word, f"{name} {inner_word}".strip(), context)


class Commands:
    """The parts of a page about the commands of one program."""

    def __init__(self, root: click.Group, program: str) -> None:
        self._program = program
        self._root, *self.all = walk(root, program)
        counted = Counter(record[:2] for one in self.all for record in one.options)
        self.common = [record for record, count in counted.items() if count >= COMMON]

    def overview(self) -> list[str]:
        """One line a command."""
        return roff.close(
            [
                [f".TP {OVERVIEW}", roff.bold(one.name), *roff.filled(one.short)]
                for one in self.all
                if not one.is_group
            ]
        )

    def options(self) -> list[str]:
        """The options of the program itself, and those of many commands."""
        names = ", ".join(self._root.command.get_help_option_names(self._root.context))
        lines = roff.item(_option(names), ["Show the help of any command, and exit."])
        for names, text, _ in self._root.options:
            lines += roff.item(_option(names), roff.filled(text))
        for names, text in self.common:
            text += " For each command below that has this option."
            lines += roff.item(_option(names), roff.filled(text))
        return lines

    def each(self) -> list[str]:
        """A subsection for each command."""
        return [line for one in self.all for line in self._one(one)]

    def _one(self, one: Command) -> list[str]:
        lines = [f".SS {roff.argument(one.name)}"]
        if not one.is_group:
            lines += self._synopsis(one)
        variables = {word for piece in one.arguments for word in re.findall(r"[A-Z][A-Z_]+", piece)}
        for paragraph in paragraphs(one.command.help or "") + paragraphs(one.command.epilog or ""):
            lines += [".PP", *_paragraph(paragraph, variables)]
        for names, text, _ in one.options:
            if (names, text) not in self.common:
                lines += roff.item(_option(names), roff.filled(text, variables))
        return lines

    def _synopsis(self, one: Command) -> list[str]:
        pieces = []
        for names, _, option in one.options:
            longest = names.rpartition(", ")[2].replace(" / ", "|").replace(" ", "\N{NO-BREAK SPACE}")
            longest += "\N{NO-BREAK SPACE}..." if option.multiple else ""
            pieces.append(_option(longest) if option.required else f"[{_option(longest)}]\\&")
        pieces += [re.sub(r"[A-Za-z_]+", lambda word: roff.italic(word[0]), piece) for piece in one.arguments]
        return [f".SY {roff.argument(f'{self._program} {one.name}')}", *pieces, ".YS"]


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring or help text, up to click's `\\f`, where it ends."""
    text = inspect.cleandoc(text.partition("\f")[0])
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith(_NOT_WRAPPED):
            found.append(paragraph)
        elif paragraph.strip():
            found += _EXIT_CODE.split(paragraph)
    return found


def _paragraph(text: str, variables: Collection[str]) -> list[str]:
    if text.startswith(_NOT_WRAPPED):
        return roff.example(text.removeprefix(_NOT_WRAPPED).strip("\n").split("\n"))
    return roff.filled(re.sub(r"^Exit code:?", lambda words: f"`{words[0]}`", text), variables)


def _option(names: str) -> str:
    """`-h, --help` and `--config FILE` with names bold and variables underlined."""
    words = re.split(r"([, |\N{NO-BREAK SPACE}/]+)", names) if names.startswith("-") else [names]
    return roff.split("".join(_word(word) for word in words), len(names))


def _word(word: str) -> str:
    if word.startswith("-"):
        return roff.bold(word)
    return roff.italic(word) if re.search(r"\w", word) else roff.escape(word)
