"""What the files shall say of the rows of the database: the rule, for one row at a time.

A row of a file is a value, or `LATER`: an empty value, which Postfix takes for trouble with the table
(src/global/maps.c, maps_find: DICT_ERR_CONFIG), so that smtpd(8) says 451 and virtual(8) defers. That is said
of what must neither be accepted nor be called unknown:

* An account that virtual(8) would not deliver for (uid below virtual_minimum_uid, gid 0, a mailbox with
  `..`): its addresses. Mail that a list sends there is accepted, and deferred by virtual(8) for this one.
* A key that is known and answers nothing (the account is inactive), where Postfix would go on to another row
  (the catch-all of the domain) and give somebody else's mail away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mailmaps.filemaps.targets import ALIASES, GIDS, MAILBOXES, UIDS, FileTable
from mailmaps.maps.address import fold
from mailmaps.maps.mailbox import mailbox_problem
from mailmaps.maps.row_bytes import LONGEST_KEY, pack, unpack
from mailmaps.maps.search import Rules

LATER = b""

# As a reading has it: the key is known and answers nothing.
NOTHING = pack(())

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

# A key, and what is packed, that are what the file shall have: printing ASCII, a key without capitals.
_PLAIN = re.compile(rb"[ -@\[-~]+\n[ -~]+")
_PLAIN_ADDRESS = re.compile(rb"[ -?\[-~]*@[ -@\[-~]*\n[ -~]+")
_NUMBER = re.compile(r"[0-9]+")

# uid_t and gid_t; the largest of all means "none" to safe_open() (src/virtual/mailbox.c).
_LARGEST_ID = (1 << 32) - 2
_DIGITS = len(str(_LARGEST_ID))

# A local part and a label that nobody has.
_SOMEBODY = "mailmaps-asks"

# Rows by table: the row that the database has for a key.
Get = Mapping[str, Callable[[bytes], bytes | None]]


@dataclass(frozen=True, slots=True)
class Named:
    """A key of a table that is not in the files as the database has it, and why."""

    table: str
    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.table}: {self.key!a}: {self.why}"


class Contents:
    """The rule for `tables`, with the search rules and virtual_minimum_uid of Postfix."""

    def __init__(self, tables: list[FileTable], rules: Rules, minimum_uid: int) -> None:
        self._tables = {table.name: table for table in tables}
        self._rules = rules
        self._minimum_uid = minimum_uid

    def refusal(self, key: bytes, get: Get) -> str:
        """Why no mail is taken for the mailbox of an address; empty if it is, or if there is none."""
        mailbox = get[MAILBOXES](key) if MAILBOXES in get else None
        if mailbox is None or mailbox == NOTHING:
            return ""
        values = unpack(mailbox)
        problem = mailbox_problem(values[0]) if len(values) == 1 else "there are several mailboxes for it"
        if not problem and UIDS in get:
            problem = _id_problem("uid", get[UIDS](key), self._minimum_uid, "virtual_minimum_uid")
        if not problem and GIDS in get:
            problem = _id_problem("gid", get[GIDS](key), 1, "what virtual(8) takes")
        return problem

    def unasked(self, key: bytes) -> str:
        """Why a key cannot be in a file at all: Postfix would never find it; empty if it can."""
        if not 0 < len(key) <= LONGEST_KEY:
            return f"an lmdb: key has 1 to {LONGEST_KEY} bytes"
        if _CONTROL.search(key):
            return "it has control characters"
        if key.isascii() and key == key.lower():
            return ""
        try:
            text = key.decode()
        except UnicodeDecodeError:
            return "it is not UTF-8" if self._rules.smtputf8_enable else ""
        return "" if text == fold(text, self._rules.smtputf8_enable) else "it is not in lower case"

    def plain(self, table: str) -> re.Pattern[bytes]:
        """Matches KEY LF VALUE, as a reading has them, of which nothing else here has anything to say.

        Nearly all rows are such, and each is looked at several times.
        """
        return _PLAIN if self._tables[table].bare_keys else _PLAIN_ADDRESS

    def is_ignored(self, table: str, key: bytes) -> bool:
        """Whether a key means nothing in this table, so that nobody misses it."""
        return not self._tables[table].bare_keys and b"@" not in key

    def value(self, packed: bytes) -> tuple[bytes, str]:
        """The value of a row that has values; or `LATER`, and why."""
        text = packed.partition(b"\0")[0]
        if _CONTROL.search(text):
            return LATER, "its value has control characters"
        if not text.isascii() and self._rules.smtputf8_enable:
            try:
                text.decode()
            except UnicodeDecodeError:
                return LATER, "its value is not UTF-8"
        return (text, "") if text else (LATER, "its value is empty")

    def others(self, table: str, key: bytes) -> tuple[bytes, ...]:
        """The keys that Postfix may ask after this one, in a table that is a file."""
        text = key.decode(errors="surrogateescape")
        # A domain, and what begins with "@" or ".", is asked on the way from an address too.
        probes = [text]
        if text.startswith("@"):
            probes.append(_SOMEBODY + text)
        elif text.startswith("."):
            probes += [_SOMEBODY + text, f"{_SOMEBODY}@{_SOMEBODY}{text}"]
        elif "@" not in text:
            probes.append(f"{_SOMEBODY}@{text}")
        found: dict[str, None] = {}
        for probe in probes:
            candidates = self._tables[table].kind.walk(probe, self._rules).candidates
            if text in candidates:
                found |= dict.fromkeys(candidates[candidates.index(text) + 1 :])
        found.pop(text, None)
        return tuple(one.encode(errors="surrogateescape") for one in found)

    def asked(self, table: str, key: bytes) -> tuple[bytes, ...]:
        """The keys that Postfix asks for this one, itself first."""
        return (key, *self.others(table, key))

    def leads_to(self, key: str, target: str) -> Iterator[str]:
        """The keys that Postfix asks for a target of virtual_alias_maps, of this key."""
        local = key.rpartition("@")[0]
        addresses = [target, local + target] if target.startswith("@") else [target]
        for address in addresses:
            if "@" in address:
                for table in self._tables.keys() & {ALIASES, MAILBOXES}:
                    yield from self._tables[table].kind.walk(address, self._rules).candidates


def _id_problem(what: str, packed: bytes | None, least: int, whose: str) -> str:
    """What virtual(8) would have against a uid or gid (src/virtual/mailbox.c, deliver_mailbox)."""
    if packed is not None and packed.isdigit() and len(packed) < _DIGITS and int(packed) >= least:
        return ""
    values = () if packed is None else unpack(packed)
    if not values:
        return f"it has no {what}"
    if len(values) != 1:
        return f"there are several {what}s for it"
    if not _NUMBER.fullmatch(values[0]) or len(values[0]) > _DIGITS:
        return f"its {what} is no number"
    number = int(values[0])
    if number < least:
        return f"its {what} {number} is below {whose}" if number else f"its {what} is 0"
    return "" if number <= _LARGEST_ID else f"its {what} {number} is too large"


# What is LATER in the same breath: an address of an account that is refused.
OF_ACCOUNT = (MAILBOXES, ALIASES)
