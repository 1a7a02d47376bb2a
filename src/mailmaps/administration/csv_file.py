"""The CSV file of `mailmaps import` and `export`: a line for each domain, account, address and forward.

The first line names the columns, in any order; `kind` says what a line is and which of the others mean
something for it. An empty cell is the default, or, for what is there already, leaves it as it is. Every cell
is checked here as far as it can be without the database; problems name line and column, and reading goes on
to the next one.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from mailmaps.administration import names
from mailmaps.administration.names import BadName
from mailmaps.auth.passwords import looks_like_a_hash

# What each kind has: the columns that must not be empty, and those that may.
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "domain": (("domain",), ("transport", "gid", "disabled")),
    "alias": (("domain", "target"), ()),
    "relay": (("domain",), ("transport", "disabled")),
    "recipient": (("address",), ()),
    "account": (
        ("username", "address"),
        ("domain", "uid", "mailbox", "quota", "active", "imap", "pop3", "smtp", "sieve", "receive",
         "password_hash", "password"),
    ),
    "address": (("username", "address"), ("disabled",)),
    "forward": (("address", "target"), ("disabled",)),
}  # fmt: skip

# As export writes them; `password` (plain) is for import only.
COLUMNS = (
    "kind", "domain", "username", "address", "target", "transport", "gid", "uid", "mailbox", "quota",
    "active", "imap", "pop3", "smtp", "sieve", "receive", "disabled", "password_hash",
)  # fmt: skip
PLAIN = "password"

LARGEST = 2**31 - 1  # the columns are INTEGER

# A hash is some hundred bytes; a cell of more than this is a quote that was not closed.
LONGEST_CELL = 4096

_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

Value = str | int | bool | None


class Problem(NamedTuple):
    """What is wrong with a cell; `column` is empty where it is the line."""

    line: int
    column: str
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {f'{self.column}: ' if self.column else ''}{self.text}"


class Line(NamedTuple):
    """One line, checked: its number, and the columns that are not empty."""

    number: int
    values: dict[str, Value]


@dataclass
class Reading:
    """What was found while the lines were read."""

    problems: list[Problem] = field(default_factory=list)
    respelt: int = 0  # names that are stored otherwise than they are written


def read(file: IO[str], reading: Reading) -> Iterator[Line]:
    """The lines that are right by themselves. Raises `BadName`: a first line that names no such columns."""
    reader = csv.reader(_bounded(file), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise BadName(f"1: {error}") from None
    except UnicodeDecodeError:  # Python decodes some kilobytes at once, so that the line is not known
        raise BadName("1: the file is not UTF-8; save it as UTF-8") from None
    _check_header(header)
    while True:
        try:
            cells = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            what = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            reading.problems.append(Problem(reader.line_num + 1, "", what))
            return  # where the next line begins, nobody can say
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(header):
            text = f"has {len(cells)} cells, the first line {len(header)}"
            reading.problems.append(Problem(reader.line_num, "", text))
            continue
        given = {
            name: cell if name in (PLAIN, "mailbox") else cell.strip()
            for name, cell in zip(header, cells, strict=True)
        }
        line = _line(reader.line_num, {name: cell for name, cell in given.items() if cell}, reading)
        if line is not None:
            yield line


def _bounded(file: IO[str]) -> Iterator[str]:
    """Lines without the byte order mark that spreadsheets put in front."""
    for number, line in enumerate(file):
        yield line.removeprefix("\ufeff") if number == 0 else line


def _check_header(header: list[str]) -> None:
    unknown = [name for name in header if name not in (*COLUMNS, PLAIN)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if unknown or twice or "kind" not in header:
        what = f"no such column: {', '.join(unknown)}; " if unknown else ""
        what += f"twice: {', '.join(twice)}; " if twice else ""
        what += "" if "kind" in header else 'no column "kind"; '
        raise BadName(f"1: {what}the first line names columns out of {', '.join((*COLUMNS, PLAIN))}")


def _line(number: int, given: dict[str, str], reading: Reading) -> Line | None:  # noqa: C901  # one try each
    before = len(reading.problems)

    def wrong(column: str, text: str) -> None:
        reading.problems.append(Problem(number, column, text))

    kind = given.pop("kind", "")
    if kind not in KINDS:
        wrong("kind", f"is none of {', '.join(KINDS)}")
        return None
    for column in KINDS[kind][0]:
        if column not in given:
            wrong(column, f"is empty, which {kind} needs")
    values: dict[str, Value] = {"kind": kind}
    for column, cell in given.items():
        try:
            values[column] = _cell(kind, column, cell)
        except BadName as error:
            wrong(column, str(error))
        else:
            reading.respelt += column in _NAMES and values[column] != cell
    email = values.get("address")
    if kind == "account" and "mailbox" not in values and isinstance(email, str):
        try:
            values["default_mailbox"] = names.mailbox_of(email)
        except BadName as error:
            wrong("mailbox", str(error))
    if "password" in values and "password_hash" in values:
        wrong("password", "there is a password_hash too")
    return Line(number, values) if len(reading.problems) == before else None


_NAMES = ("domain", "username", "address", "target")


def _cell(kind: str, column: str, cell: str) -> Value:
    needed, optional = KINDS[kind]
    if column not in (*needed, *optional):
        raise BadName(f"means nothing for {kind}")
    if len(cell) > LONGEST_CELL:
        raise BadName("is too long (a quote that is not closed?)")
    if column in ("domain", "target") and not (kind == "forward" and column == "target"):
        return names.domain(cell, subdomains=kind == "relay").value
    checks: dict[str, Callable[[str], Value]] = {
        "username": lambda text: names.username(text).value,
        "address": lambda text: names.address(text, catch_all=kind != "account").value,
        "target": lambda text: names.address(text).value,
        "transport": names.transport,
        "mailbox": names.mailbox,
        "gid": lambda text: _number(text, 1),
        "uid": lambda text: _number(text, 1),
        "quota": lambda text: _number(text, 0),
        "password_hash": _hash,
        PLAIN: str,
    }
    return checks.get(column, _flag)(cell)


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= LARGEST:
        raise BadName(f"is no number from {least} to {LARGEST}")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in _YES:
        raise BadName("is neither yes nor no")
    return _YES[text.lower()]


def _hash(text: str) -> str:
    if not text.isprintable() or not looks_like_a_hash(text):
        raise BadName('is no hash (a password belongs into the column "password")')
    return text


def write(
    rows: Iterator[Mapping[str, object]], file: IO[str], columns: tuple[str, ...], *, header: bool
) -> int:
    """Write lines; how many."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow([_shown(row.get(name)) for name in columns])
        count += 1
    return count


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
