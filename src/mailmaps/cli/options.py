"""What several commands share: the --config option and how they end on wrong settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mailmaps.config import Settings, SettingsError, load
from mailmaps.config.load import DEFAULT_PATH

# sysexits.h, which Postfix and its users speak.
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
EX_CONFIG = 78


class Failure(click.ClickException):
    """Ends the command with a message on stderr and an exit code of its own."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class variable here
        """What the command exits with."""
        return self.code


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config FILE`, which may also come as MAILMAPS_CONFIG."""
    return click.option(
        "--config",
        "config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=DEFAULT_PATH,
        envvar="MAILMAPS_CONFIG",
        show_default=True,
        metavar="FILE",
        help="The settings (also: $MAILMAPS_CONFIG).",
    )(function)


def read_settings(config: Path) -> Settings:
    """Load the settings or end the command, naming every problem."""
    try:
        return load(config)
    except SettingsError as error:
        raise Failure(str(error), EX_CONFIG) from None
