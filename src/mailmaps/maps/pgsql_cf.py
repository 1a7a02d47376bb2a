"""One pgsql_table(5) file: what Postfix would ask with it, and what it makes of the answer.

The rules are those of src/global/dict_pgsql.c and db_common.c, including what is fatal when Postfix
opens the table. Everything that is wrong is said at once, with file and line; no value is shown but the
query's. `idle_interval` and `retry_interval` are checked as Postfix does and have no effect: connections
are kept, and opened anew with pauses of at most 5 seconds.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mailmaps.maps import sql_text, template
from mailmaps.maps.address import is_well_formed
from mailmaps.maps.cf_text import CfError, Setting
from mailmaps.maps.domain_list import DomainList
from mailmaps.maps.sql_text import Statement
from mailmaps.maps.template import Needs, Piece

# PostgreSQL's names (manual, 24.3 Character Set Support) where Python's codec is named otherwise.
_CODECS = {
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "LATIN1": "latin-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "ISO88595": "iso8859-5",
    "ISO88596": "iso8859-6",
    "ISO88597": "iso8859-7",
    "ISO88598": "iso8859-8",
    "WIN": "cp1251",
    "TCVN": "cp1258",
    "ABC": "cp1258",
    "VSCII": "cp1258",
    "KOI8": "koi8-r",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "ALT": "cp866",
    "UHC": "cp949",
    "SQLASCII": "utf-8",
}

_LARGEST = 2**31 - 1  # an int of the C compiler

# The last version that spoke LATIN1 whatever the file says (RELEASE_NOTES-3.8).
FIRST_WITH_ENCODING = (3, 8)

# The first that knows idle_interval and retry_interval (RELEASE_NOTES-3.9).
FIRST_WITH_INTERVALS = (3, 9)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file's database is: equal places share connections. `hosts` as the file spells them.

    A URI among them may hold a password, so neither is shown.
    """

    hosts: tuple[str, ...] = field(repr=False)
    user: str
    password: str = field(repr=False)
    dbname: str


class ExpansionLimit(Exception):
    """A result has more values than `expansion_limit` allows; Postfix then says "try later"."""


@dataclass(frozen=True, slots=True)
class CfTable:
    """A table as its file describes it. `name` is the file's; `line` that of the query.

    Keys, results and result_format are bytes to Postfix, and so they are here: text out of UTF-8 in which
    other bytes are escaped. The query is characters to PostgreSQL: those of `encoding`. `unconverted` is the
    same table for a server that converts nothing (SQL_ASCII), where there is a difference.
    """

    name: str
    line: int
    place: Place
    query: Statement
    result_format: tuple[Piece, ...]
    needs: Needs
    domain: DomainList | None
    expansion_limit: int
    encoding: str
    unconverted: CfTable | None = None

    def arguments(self, key: str) -> list[str] | None:
        """The literals of the query for this (folded) key, or None when nothing is asked for it.

        An ill-formed key is not asked for (dict_pgsql.c:290-298). Raises `UnicodeError` when the bytes
        of the key are no characters in the table's encoding.
        """
        if not self._is_asked(key) or (self.encoding == "utf-8" and not is_well_formed(key)):
            return None
        parts = template.key_parts(_to_sql(key, self.encoding), self.needs)
        return None if parts is None else [template.expand(value, parts) for value in self.query.values]

    def values(self, key: str, fields: Iterable[str | None]) -> tuple[str, ...]:
        """The results out of all fields of all rows, in order. Raises `ExpansionLimit`, `UnicodeError`.

        NULL and empty fields are passed over (dict_pgsql.c:336-365).
        """
        parts = template.key_parts(key, self.needs) or {}
        found: list[str] = []
        wanted = template.codes(self.result_format)
        for value in fields:
            theirs = template.value_parts(_from_sql(value, self.encoding), parts, wanted) if value else None
            if theirs is not None:
                found.append(template.expand(self.result_format, theirs))
                if 0 < self.expansion_limit < len(found):
                    raise ExpansionLimit(f"more than {self.expansion_limit} values (expansion_limit)")
        return tuple(found)

    def _is_asked(self, key: str) -> bool:
        return bool(key) and (self.domain is None or self.domain.passes(key))


def default_encoding(mail_version: str) -> str:
    """What a file without `encoding` means to this Postfix ("": a current one)."""
    return "LATIN1" if _is_before(mail_version, FIRST_WITH_ENCODING) else "UTF8"


def _is_before(mail_version: str, first: tuple[int, int]) -> bool:
    match = re.match(r"(\d+)\.(\d+)", mail_version)
    return match is not None and (int(match[1]), int(match[2])) < first


def _to_sql(text: str, encoding: str) -> str:
    """What PostgreSQL understands when Postfix sends the bytes of `text` in this client encoding."""
    raw = text.encode("utf-8", "surrogateescape")
    return raw.decode(encoding)


def _from_sql(text: str, encoding: str) -> str:
    """The bytes that PostgreSQL sends Postfix, as text in which ill-formed UTF-8 is escaped."""
    return text.encode(encoding).decode("utf-8", "surrogateescape")


def read_text(path: Path) -> str:
    """A file as Postfix reads it: bytes, in which only a newline ends a line. Raises `OSError`."""
    return path.read_bytes().decode(errors="surrogateescape")


def _read_file(name: str) -> str:
    return read_text(Path(name))


def parse(
    settings: dict[str, Setting],
    name: str,
    *,
    mail_version: str = "",
    read_file: Callable[[str], str] = _read_file,
) -> CfTable:
    """Make a table of a file's settings. `mail_version` is Postfix's ("": current). Raises `CfError`."""
    return _Reader(settings, name, mail_version, read_file).table()


@dataclass
class _Reader:
    settings: dict[str, Setting]
    name: str
    mail_version: str
    read_file: Callable[[str], str]
    problems: list[str] = field(default_factory=list)
    line: int = 0  # of the query

    encoding: str = ""

    def table(self) -> CfTable:
        self.encoding = self.encoding or self._encoding()
        query = self._query()
        result_format = self._result_format()
        domain = self._domain()
        limit = self._integer("expansion_limit")
        if not _is_before(self.mail_version, FIRST_WITH_INTERVALS):
            self._integer("idle_interval", least=1)
            self._integer("retry_interval", least=1)
        if self.problems or query is None:
            raise CfError(self.problems)
        return CfTable(
            name=self.name,
            line=self.line,
            place=self._place(),
            query=query,
            result_format=tuple(result_format),
            needs=Needs.of(set(query.codes), template.codes(result_format)),
            domain=domain,
            expansion_limit=limit,
            encoding=self.encoding,
            unconverted=self._unconverted(),
        )

    def _unconverted(self) -> CfTable | None:
        if self.encoding == "utf-8":
            return None
        with suppress(CfError):  # a query that is no UTF-8 is no use there either
            return replace(self, problems=[], encoding="utf-8").table()
        return None

    def where(self, setting: str) -> str:
        """File and line of a setting, for messages."""
        line = self._line(setting)
        return f"{self.name}:{line}" if line else self.name

    def _line(self, setting: str) -> int:
        return self.settings[setting].line if setting in self.settings else 0

    def _get(self, setting: str, default: str = "") -> str:
        return self.settings[setting].value if setting in self.settings else default

    def _complain(self, setting: str, what: object) -> None:
        self.problems.append(f"{self.where(setting)}: {setting}: {what}")

    def _query(self) -> Statement | None:
        """dict_pgsql.c:654-664: query, else select_function, else the four older names."""
        if text := self._get("query"):
            return self._split("query", text)
        if function := self._get("select_function"):
            return self._split("select_function", f"SELECT {function}('%s')")
        missing = [part for part in ("table", "select_field", "where_field") if not self._get(part)]
        if missing:
            self.problems.append(
                f"{self.name}: no query, no select_function, and of table, select_field and where_field "
                f"there is no {' and no '.join(missing)}"
            )
            return None
        return self._split(
            "table",
            f"SELECT {self._get('select_field')} FROM {self._get('table')} "  # noqa: S608  # the site's own
            f"WHERE {self._get('where_field')}='%s' {self._get('additional_conditions')}",
        )

    def _split(self, setting: str, text: str) -> Statement | None:
        self.line = self._line(setting)
        try:
            return sql_text.split(_to_sql(text, self.encoding))
        except UnicodeError:
            self._complain(setting, f"not text in the encoding {self.encoding}")
            return None
        except (sql_text.BadQuery, template.BadCode) as error:
            self._complain(setting, error)
            return None

    def _result_format(self) -> Sequence[Piece]:
        text = self._get("result_format", "%s")
        if not text:
            self._complain("result_format", "must not be empty")
        try:
            return template.pieces(text)
        except template.BadCode as error:
            self._complain("result_format", error)
            return ()

    def _domain(self) -> DomainList | None:
        if not (text := self._get("domain")):
            return None
        try:
            return DomainList(text, self.read_file)
        except OSError as error:
            self._complain("domain", f"{error.filename or 'a file of the list'}: {error.strerror}")
        except ValueError as error:
            self._complain("domain", error)
        return None

    def _integer(self, setting: str, least: int = -_LARGEST) -> int:
        """cfg_parser.c get_dict_int(): strtol(3) of all of it, and no unit; 0 where it is not set."""
        if setting not in self.settings:
            return 0
        text = self._get(setting)
        if re.fullmatch(r"[+-]?[0-9]{1,12}", text, re.ASCII) and least <= int(text) <= _LARGEST:
            return int(text)
        bound = f" of at least {least}" if least > 0 else ""
        self._complain(setting, f"must be a whole number{bound}, without a unit")
        return 0

    def _encoding(self) -> str:
        """The name of a Python codec."""
        name = self._get("encoding", default_encoding(self.mail_version))
        bare = re.sub(r"[^A-Z0-9]", "", name.upper())  # pg_char_to_encoding() compares like this
        codec = _CODECS.get(bare, re.sub(r"^WIN(DOWS)?(?=[0-9])", "cp", bare))
        try:
            return codecs.lookup(codec).name
        except LookupError:
            self._complain("encoding", "not an encoding that mailmaps knows")
            return "utf-8"

    def _place(self) -> Place:
        hosts = tuple(filter(None, re.split(r"[, \t\r\n]+", self._get("hosts")))) or ("localhost",)
        return Place(hosts, self._get("user"), self._get("password"), self._get("dbname"))
