"""Events: a constant text that can be searched for and counted, and fields that say about what.

    log = events(__name__)
    log.error("cannot connect", database="database.dsn", reason=why)

gives `cannot connect database=database.dsn reason="connection refused"`. The standard `logging` carries it:
the text is the record's `msg`, by which repeats are known (`mailmaps.logs.repeats`). A field may be whatever
a client said: it cannot end its quotes nor its line, nor be longer than `LONGEST_VALUE`.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

# Characters. What a client says is not worth more of a line; the whole line has a limit of its own.
LONGEST_VALUE = 1000

# The attributes of a record that are ours, see `mailmaps.logs.repeats`.
COUNTED = "mailmaps_counted"
KIND = "mailmaps_kind"

# What stands in a plain value besides letters and digits of ASCII; all else is quoted (logfmt).
PLAIN = frozenset("!#$%&'()*+,-./:;<>?@[]^_`{|}~")


class Events:
    """The events of one module; `events(__name__)` makes it.

    A field that is None is left out, True and False are yes and no, a number is plain, bytes are UTF-8. No
    password, no hash and no DSN may be a field: nothing is taken out afterwards.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: object) -> None:
        """What happens for a single lookup, or would only matter to somebody who looks for a fault."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Nothing has to be done."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Somebody should look at it, today or tomorrow; or an error is over."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Something does not work now; with `exc_info`, a fault of ours and its traceback."""
        self._log(logging.ERROR, event, fields, exc_info=exc_info)

    def exception(self, event: str, /, **fields: object) -> None:
        """A fault of ours, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, fields, exc_info=True)

    def fault(self, event: str, error: BaseException, /, **fields: object) -> None:
        """A fault of ours where the exception's text may hold a password: where it was, and no more."""
        at = where(error)
        self._log(logging.ERROR, event, {**fields, "fault": at}, extra={KIND: at})

    def counted(self, level: int, event: str, /, **fields: object) -> None:
        """An event that people count (a login, a refused sender): never held back as a repeat."""
        self._log(level, event, fields, extra={COUNTED: True})

    def _log(
        self,
        level: int,
        event: str,
        fields: dict[str, object],
        *,
        exc_info: BaseException | bool | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            text = event.replace("%", "%%") + "%s"
            self._logger.log(level, text, _Fields(fields), exc_info=exc_info, extra=extra)


def events(name: str) -> Events:
    """The events of the module `name`."""
    return Events(name)


class _Fields:
    """Fields that become text when a line is made of them, in the thread of the event."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return "".join(
            f" {key}={rendered(value)}" for key, value in self._fields.items() if value is not None
        )


def rendered(value: object) -> str:
    """A value as it stands in a line: plain if nothing in it could be mistaken, else in quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
    text = shortened(text, LONGEST_VALUE)
    if text and all((char.isascii() and char.isalnum()) or char in PLAIN for char in text):
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def escaped(text: str) -> str:
    """The text without what a terminal or an encoder does not take: control characters, surrogates."""
    if text.isprintable():  # surrogates are not
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def shortened(text: str, most: int) -> str:
    """At most `most` characters, its middle left out: a traceback ends with what happened."""
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def where(error: BaseException) -> str:
    """An error we do not know, without its text: a library may have put a password or a hash there."""
    frames = traceback.extract_tb(error.__traceback__)
    way = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__} at {way}" if way else type(error).__name__
