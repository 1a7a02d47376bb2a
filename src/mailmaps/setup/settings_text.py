"""mailmaps.toml of a site, by what its server and its Postfix say; whatever else is in the file stays.

A setting that somebody has set to something of his own is never changed: it is a conflict, and nothing is
done. What Postfix says goes before: `[postfix]` has to equal it, or mail bounces.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mailmaps.config import Settings, SettingsError, parse
from mailmaps.config.edit import set_values
from mailmaps.config.settings import Database
from mailmaps.postconf import PostfixValues, Value

# Where mail lies if neither Postfix nor mailmaps.toml has said so. Debian's Postfix says nothing.
MAIL_BASE = "/var/vmail"

# Postfix's default, which lets mail be delivered as a user of the system; ours is above those that adduser(8)
# and systemd-sysusers(8) hand out for services (below 1000), and far from the first people (1000 and on).
POSTFIX_MINIMUM_UID = 100
MINIMUM_UID = 5000


@dataclass(frozen=True, slots=True)
class Draft:
    """The file as it is (None: there is none) and as it shall be."""

    path: Path
    old: str | None
    new: str

    @property
    def changed(self) -> bool:
        return self.old != self.new

    def diff(self) -> Iterator[str]:
        """Lines for people; none for a file that is made."""
        if self.old is None:
            return iter(())
        names = (str(self.path), f"{self.path} (new)")
        return difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), *names, n=0, lineterm="")


def read(path: Path) -> str | None:
    """The file's text; None where there is no file. Raises `OSError`, `SettingsError` (not UTF-8)."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}: not UTF-8 text (byte {error.start})"]) from None


def conflicts(settings: Settings, wanted: Mapping[str, str]) -> list[str]:
    """The settings of [database] that are neither as they come nor as they should be; no value is shown."""
    defaults = Database()
    return [
        f"database.{name} is set to something else"
        for name, value in wanted.items()
        if getattr(settings.database, name) not in (value, getattr(defaults, name))
    ]


def draft(path: Path, old: str | None, database: Mapping[str, str], found: PostfixValues | None) -> Draft:
    """The new text; `found` None: there is no Postfix to ask. Raises `SettingsError`."""
    text = old if old is not None else shipped()
    settings = parse(text, str(path))
    missing = {
        name: json.dumps(value)
        for name, value in database.items()
        if getattr(settings.database, name) != value
    }
    if missing:
        text = set_values(text, "database", missing)
    ours = settings.postfix.model_dump()
    theirs = dict(found.values) if found is not None else {}
    theirs |= _delivery(settings, theirs)
    changed = {
        # JSON's strings, lists, numbers and booleans are TOML's too.
        name: json.dumps(value, ensure_ascii=False)
        for name, value in theirs.items()
        if ours[name] != value
    }
    if changed:
        text = set_values(text, "postfix", changed)
    parse(text, str(path))
    return Draft(path, old, text)


def shipped() -> str:
    """The documented file with all defaults."""
    return files("mailmaps").joinpath("mailmaps.toml").read_text(encoding="utf-8")


def _delivery(settings: Settings, theirs: Mapping[str, Value]) -> dict[str, Value]:
    """What virtual(8) delivers with, where Postfix has not been told: as we have it, else a good choice."""
    if settings.delivery != "virtual":
        return {}
    base = theirs.get("virtual_mailbox_base") or settings.postfix.virtual_mailbox_base or MAIL_BASE
    minimum = theirs.get("virtual_minimum_uid", POSTFIX_MINIMUM_UID)
    if minimum == POSTFIX_MINIMUM_UID:
        minimum = settings.postfix.virtual_minimum_uid
    if minimum == POSTFIX_MINIMUM_UID:
        minimum = MINIMUM_UID
    return {"virtual_mailbox_base": base, "virtual_minimum_uid": minimum}
