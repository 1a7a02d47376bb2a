"""The commands by name, and that one that is called is imported alone."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from mailmaps.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_name_that_it_is_listed_under(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name


def test_who_asks_for_a_key_imports_no_database() -> None:
    program = (
        "import sys; from mailmaps.cli import main\n"
        "try: main(['query', '--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = done.stderr.split()
    assert "mailmaps.cli.ask" in modules
    assert not {"asyncpg", "lmdb", "PIL", "mailmaps.cli.serve"}.intersection(modules)


def test_a_command_that_is_none() -> None:
    done = subprocess.run([sys.executable, "-m", "mailmaps", "sirve"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'sirve'" in done.stderr
