"""The new mailmaps.toml: the shipped, documented file, with this site's tables and [postfix] section."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from mailmaps import postconf
from mailmaps.config.edit import set_values
from mailmaps.maps.tables import KINDS
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.plan import Endpoints, NewTable

_TABLE = re.compile(r"^\[tables\.[^\]]+\]\n(?:[^\[\n#].*\n)*\n?", re.MULTILINE)
_SWITCH = re.compile(r"^#? ?builtin_tables = .*$", re.MULTILINE)


def text(configuration: Configuration, tables: list[NewTable], endpoints: Endpoints) -> tuple[str, list[str]]:
    """The file, and notes on what of Postfix's settings could not be taken over.

    Raises `postconf.PostconfError`.
    """
    found = postconf.read(configuration.directory)
    values = found.values | {
        "mail_version": configuration.version,
        "config_directory": str(configuration.directory),
    }
    shipped = files("mailmaps").joinpath("mailmaps.toml").read_text()
    # JSON's strings, lists and booleans are TOML's too.
    new = set_values(
        set_values(
            _with_tables(shipped, tables, endpoints), "socketmap", {"inet": json.dumps(endpoints.socketmap)}
        ),
        "postfix",
        {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()},
    )
    return new, found.notes


def _with_tables(shipped: str, tables: list[NewTable], endpoints: Endpoints) -> str:
    first = _TABLE.search(shipped)
    at = first.start() if first is not None else len(shipped)
    before, after = shipped[:at], _TABLE.sub("", shipped[at:])
    switch = "builtin_tables = false"
    before, done = _SWITCH.subn(switch, before, count=1)
    if not done:
        before = f"{switch}\n{before}"
    return before + "".join(_section(table, endpoints) + "\n" for table in tables) + after


def _section(table: NewTable, endpoints: Endpoints) -> str:
    lines = [f"[tables.{table.name}]"]
    if table.name != table.parameter:
        lines.append(f'parameter = "{table.parameter}"')
    lines.append(f"sources = {json.dumps(list(table.sources), ensure_ascii=False)}")
    tcp = f"127.0.0.1:{table.port}" if endpoints.map_type == "tcp" else ""
    if tcp or KINDS[table.parameter].tcp_port:
        lines.append(f'tcp = "{tcp}"')
    return "\n".join(lines) + "\n"
