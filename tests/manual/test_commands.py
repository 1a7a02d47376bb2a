"""mailmaps(1) has what `--help` has: every command and option, and nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from tests.manual.pages import examples, sections, tags

from mailmaps.cli import main
from mailmaps.manual.commands import Commands, paragraphs
from mailmaps.manual.pages import PAGES

PAGE = "mailmaps.1"
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
CALL = re.compile(r"(?:^|\|\| |&& |\| )(mailmaps [^|&>\n]*)", re.MULTILINE)


def named(group: click.Group, name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None, name
    return found


def walk(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name in command.list_commands(click.Context(command)) if isinstance(command, click.Group) else ():
        if not (inner := named(command, name)).hidden:  # type: ignore[arg-type]  # it is a group
            yield from walk(inner, *words, name)


COMMANDS = [words for words in walk(main) if words]


def helped(words: tuple[str, ...]) -> str:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=200)
    assert result.exit_code == 0, result.output
    return result.output


def options_of_help(words: tuple[str, ...]) -> set[str]:
    _, _, listed = helped(words).partition("\nOptions:\n")
    listed = listed.partition("\n\n")[0]
    lines = [line for line in listed.splitlines() if re.match(r"  ?\S|  {0,4}-", line)]
    names = {name for line in lines for name in OPTION.findall(re.split(r"\s{2,}", line.strip())[0])}
    return names - {"-h", "--help"}


def test_every_command_has_its_section_and_no_other() -> None:
    found = list(sections(PAGE))
    first, last = found.index("EACH COMMAND"), found.index("EXIT STATUS")
    assert sorted(found[first + 1 : last]) == sorted(" ".join(words) for words in COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_of_help_is_there_and_no_other(words: tuple[str, ...]) -> None:
    name = " ".join(words)
    synopsis = sections(PAGE).get(name, "")
    described = set(OPTION.findall("\n".join(tags(PAGE).get(name, []))))
    common = set(OPTION.findall("\n".join(tags(PAGE)["OPTIONS"])))
    wanted = options_of_help(words)
    assert described <= wanted
    assert wanted - described <= common
    long = {option for option in wanted if option.startswith("--")}
    assert not [option for option in long if not re.search(rf"{option}(?![\w-])", synopsis)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_help_says_is_said(words: tuple[str, ...]) -> None:
    """All words of `--help`, in the order in which they stand there, as far as they are no usage."""
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = named(command, word)
    said = " ".join((sections(PAGE)[" ".join(words)] + "\n" + sections(PAGE)["OPTIONS"]).split())
    for paragraph in paragraphs(command.help or ""):
        text = " ".join(paragraph.replace("`", "").replace("\b", "").split())
        assert text in said
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.help:
            assert " ".join(parameter.help.replace("`", "").split()) in said


def test_the_overview_has_every_command_that_can_be_called() -> None:
    for words in COMMANDS:
        command: click.Command = main
        for word in words:
            assert isinstance(command, click.Group)
            command = named(command, word)
        assert (" ".join(words) in tags(PAGE)["COMMANDS"]) == (not isinstance(command, click.Group))


@pytest.mark.parametrize("page", PAGES)
def test_examples_can_be_called(page: str) -> None:
    """Each `mailmaps ...` in an example names a command that exists, with options that it has."""
    text = examples(page).replace("\\\n", " ")
    for line in CALL.findall(text):
        words = shlex.split(line)[1:]
        command, path = main, []  # type: click.Command, list[str]
        while isinstance(command, click.Group) and words:
            assert words[0] in command.list_commands(click.Context(command)), line
            path.append(words[0])
            command = named(command, words.pop(0))
        given = {word for word in words if word.startswith("--")}
        assert given <= options_of_help(tuple(path)), line
        try:
            command.make_context(line, list(words))
        except click.BadParameter as error:
            if "does not exist" not in error.message:  # a file of the example
                raise


def test_a_command_of_tomorrow_is_in_the_page_by_itself() -> None:
    @click.group()
    def root() -> None:
        """All."""

    @root.group()
    def inner() -> None:
        """A group."""

    @inner.command()
    @click.argument("name")
    @click.option("--much", multiple=True, metavar="N", help="How much.")
    def one(name: str, much: str) -> None:
        """Do NAME. Then more.

        Exit code: 0 done.

        \b
          an example
          .of lines
        """

    @root.command(hidden=True)
    def secret() -> None:
        """Not shown."""

    made = Commands(root, "program")
    assert [line for line in made.overview() if line.startswith("\\fB")] == ["\\fBinner one\\fR"]
    text = "\n".join(made.each())
    assert '.SS "inner one"\n.SY "program inner one"\n' in text
    assert "\n[\\fB\\-\\-much\\fR\\ \\fIN\\fR\\ ...]\\&\n\\fINAME\\fR\n.YS" in text
    assert "Do \\fINAME\\fR.\nThen more.\n.PP\n\\fBExit code:\\fR 0 done.\n" in text
    assert ".EX\n  an example\n  .of lines\n.EE" in text.replace("\\&", "")
    assert "secret" not in text
