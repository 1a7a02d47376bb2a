"""Reads what a `pgsql:` source of the settings names, as Postfix does: a file, or settings in main.cf.

A file that the daemon may not read itself (0640 root:postfix is usual, since it holds a password) can come
to it as a systemd credential (systemd.exec(5) LoadCredential=), named as the file or, where two files have
one name, as its path (`etc-postfix-sql-alias.cf`).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mailmaps import postconf
from mailmaps.config.settings import Postfix, Settings
from mailmaps.database import places
from mailmaps.maps import cf_text
from mailmaps.maps.cf_text import CfError, Setting
from mailmaps.maps.pgsql_cf import CfTable, parse, read_text
from mailmaps.postconf import PostconfError

PREFIX = "pgsql:"


def is_cf(source: str) -> bool:
    """Whether a source of the settings is a pgsql_table(5)."""
    return source.startswith(PREFIX)


def sources(settings: Settings) -> list[str]:
    """The `pgsql:` sources of all tables, each once."""
    named = (source for table in settings.tables.values() for source in table.sources)
    return list(dict.fromkeys(source for source in named if is_cf(source)))


def read(source: str, postfix: Postfix, among: Collection[str] = ()) -> CfTable:
    """The table that `pgsql:/path` or `pgsql:name` describes; `among` are all such sources.

    Raises `CfError`.
    """
    name = source.removeprefix(PREFIX)
    if name.startswith("/"):
        found = cf_text.settings(_text(name, among), name)
    else:
        found, name = _from_main_cf(name, postfix), f"{postfix.config_directory}/main.cf, {name}"
    table = parse(found, name, mail_version=postfix.mail_version)
    try:
        places.check(table.place)
    except ValueError as error:
        where = f"{name}:{found['hosts'].line}" if "hosts" in found and found["hosts"].line else name
        raise CfError([f"{where}: {error}"]) from None
    return table


def _text(name: str, among: Collection[str]) -> str:
    try:
        return read_text(Path(name))
    except OSError as error:
        folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
        if (credential := folder / name.strip("/").replace("/", "-")).is_file():
            return read_text(credential)
        if (credential := folder / Path(name).name).is_file():
            if sum(Path(other).name == credential.name for other in among) > 1:
                path = name.strip("/").replace("/", "-")
                raise CfError([f"{name}: several files have this name; call the credential {path}"]) from None
            return read_text(credential)
        remedy = ""
        if isinstance(error, PermissionError):
            remedy = " (put the daemon into the file's group, or load it as a credential: see systemd/)"
        raise CfError([f"{name}: {os.strerror(error.errno or 0)}{remedy}"]) from None


def _from_main_cf(name: str, postfix: Postfix) -> dict[str, Setting]:
    """NAME_query and its like, with `$name` expanded by postconf(1)."""
    try:
        values = postconf.table_settings(name, Path(postfix.config_directory))
    except PostconfError as error:
        raise CfError([f"{PREFIX}{name}: {error}"]) from None
    return {setting: Setting(value, 0) for setting, value in values.items()}
