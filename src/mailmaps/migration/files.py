"""The pgsql_table(5) files of a site: can mailmaps read them as they are, and who may read them.

A password in a file is neither printed nor copied.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailmaps import cf_files
from mailmaps.config.settings import Postfix
from mailmaps.maps import cf_text
from mailmaps.maps.cf_text import CfError

# Words that only MySQL and MariaDB know, and what PostgreSQL has instead.
MYSQL = {
    r"`": 'backticks; PostgreSQL quotes names as "name"',
    r"\bRLIKE\b|\bREGEXP\b": "REGEXP; PostgreSQL has ~*",
    r"\bUNIX_TIMESTAMP\s*\(": "UNIX_TIMESTAMP(); PostgreSQL has extract(epoch FROM now())",
    r"\bFROM_UNIXTIME\s*\(": "FROM_UNIXTIME(); PostgreSQL has to_timestamp()",
    r"\bIF\s*\(": "IF(); PostgreSQL has CASE WHEN",
    r"\bIFNULL\s*\(": "IFNULL(); PostgreSQL has coalesce()",
    r"\bJSON_(?:UN)?QUOTE\s*\(|\bJSON_EXTRACT\s*\(|\bJSON_VALUE\s*\(|\bJSON_CONTAINS\s*\(": (
        "JSON functions of MySQL; PostgreSQL has ->> and jsonb_path_query()"
    ),
    r"\bSUBSTRING_INDEX\s*\(": "SUBSTRING_INDEX(); PostgreSQL has split_part()",
    r"\bLOCATE\s*\(": "LOCATE(); PostgreSQL has strpos()",
    r"\bFIND_IN_SET\s*\(": "FIND_IN_SET(); PostgreSQL has = ANY (string_to_array(...))",
    r"\bGROUP_CONCAT\s*\(": "GROUP_CONCAT(); PostgreSQL has string_agg()",
    r"\bDATE_(?:ADD|SUB)\s*\(|\bCURDATE\s*\(": "date functions of MySQL; PostgreSQL has interval",
    r"\bLIMIT\s+\d+\s*,\s*\d+": "LIMIT a, b; PostgreSQL has LIMIT b OFFSET a",
}
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_QUERY = ("query", "select_function", "table", "select_field", "where_field", "additional_conditions")


@dataclass(frozen=True, slots=True)
class CfFile:
    """What was found about one source. `broken`: Postfix cannot use it today either.

    `problems` each name file and line. `access` is mode, owner and group where not everybody may read it,
    `group` the one that may, if any. `unix_socket`: it reaches PostgreSQL by one. `answers_bare`: it may
    answer a key without a domain.
    """

    source: str
    problems: tuple[str, ...] = ()
    broken: bool = False
    access: str = ""
    group: str = ""
    unix_socket: bool = False
    answers_bare: bool = True


def inspect(source: str, postfix: Postfix) -> CfFile:
    """Read "pgsql:/path" or "pgsql:name"."""
    name = source.removeprefix("pgsql:")
    if name.startswith("."):
        return CfFile(source, (f"{name}: a relative path; write it out",))
    text, access, group = "", "", ""
    if name.startswith("/"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            access, group = _access(path.stat())
        except OSError as error:
            remedy = " (run this as root)" if isinstance(error, PermissionError) else ""
            return CfFile(source, (f"{path}: {error.strerror}{remedy}",), broken=True)
    try:
        table = cf_files.read(source, postfix)
    except CfError as error:
        return CfFile(source, (*error.problems, *_dialect(text, name)), access=access, group=group)
    unix_socket = any(re.match(r"(unix:|/|unix$)", host) for host in table.place.hosts)
    bare = not table.needs.domain and table.domain is None
    return CfFile(source, tuple(_dialect(text, name)), False, access, group, unix_socket, bare)


def _dialect(text: str, name: str) -> Iterator[str]:
    """What only MySQL understands, each with its line. A file that cannot be taken apart has none."""
    lines = text.split("\n")
    try:
        settings = cf_text.settings(text, name)
    except CfError:
        return
    for key in _QUERY:
        if key not in settings:
            continue
        sql = _LITERAL.sub("''", settings[key].value)
        for pattern, what in MYSQL.items():
            if re.search(pattern, sql, re.IGNORECASE):
                line = _line(lines, settings[key].line, pattern)
                yield f"{name}:{line}: {key}: {what}"


def _line(lines: list[str], first: int, pattern: str) -> int:
    """The line of a value in which the pattern stands; its first where the pattern goes over several.

    A line that begins with a blank continues a value; comments and blank lines do not end it.
    """
    for number in range(first, len(lines) + 1):
        line = lines[number - 1]
        if number > first and line.strip() and not line[0].isspace() and not line.startswith("#"):
            break
        if not line.lstrip().startswith("#") and re.search(pattern, _LITERAL.sub("''", line), re.IGNORECASE):
            return number
    return first


def _access(status: os.stat_result) -> tuple[str, str]:
    """Mode, owner and group where not everybody may read it, and the group if that may."""
    if status.st_mode & stat.S_IROTH:
        return "", ""
    group = _group(status.st_gid)
    text = f"{stat.S_IMODE(status.st_mode):04o} {_user(status.st_uid)}:{group}"
    return text, group if status.st_mode & stat.S_IRGRP and group != "root" else ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
