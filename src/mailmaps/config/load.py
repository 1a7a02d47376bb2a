"""Reads mailmaps.toml and reports everything that is wrong with it, all at once.

Each problem names file, line and the setting's path. The offending value is never printed: it may be
a password under a misspelt name.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from mailmaps.config.locate import line_of
from mailmaps.config.settings import Settings

DEFAULT_PATH = Path("/etc/mailmaps/mailmaps.toml")


class SettingsError(Exception):
    """The settings cannot be used; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(path: Path) -> Settings:
    """Read the settings file. Raises `SettingsError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError([f"{path}: {os.strerror(error.errno or 0)}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}: not UTF-8 text (byte {error.start})"]) from None
    return parse(text, str(path))


def parse(text: str, name: str = "mailmaps.toml") -> Settings:
    """Read settings from TOML text; `name` stands for the file in errors. Raises `SettingsError`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{name}: {error}"]) from None
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        problems = [_problem(text, name, detail["loc"], detail["type"], detail["msg"]) for detail in details]
        raise SettingsError(problems) from None


def _problem(text: str, name: str, loc: tuple[int | str, ...], kind: str, message: str) -> str:
    path = tuple(str(part) for part in loc if isinstance(part, str) and part != "[key]")
    line = line_of(text, path)
    where = f"{name}:{line}" if line else name
    if kind == "extra_forbidden":
        message = "there is no such setting"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {'.'.join(path) + ': ' if path else ''}{message}"
