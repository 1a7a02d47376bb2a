"""The names a postmaster types: checked by the schema's own rules, and spelt as Postfix asks for them.

Postfix folds the case of what it looks up (`mailmaps.maps.address.fold`) and looks up a domain as the mail
has it: `xn--` for most senders, UTF-8 where the sender speaks SMTPUTF8; neither is turned into the other
(SMTPUTF8_README). So names are stored folded, in NFC (RFC 6532 3.1), and a domain in the form that was
typed. What is stored otherwise than typed is said (`Spelt.notes`), never silently changed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from mailmaps.maps.address import fold, quote_local_part, unquote
from mailmaps.maps.mailbox import mailbox_problem

LONGEST_ADDRESS = 254  # bytes, RFC 5321 4.5.3.1.3; schema/0004_addresses.sql has the same
LONGEST_DOMAIN = 253

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# schema/0004_addresses.sql, domain_problem
_NO_DOMAIN = re.compile(r'^$|[\x20"(),:;<>@\\*/]|\.$|\.\.')
_USERNAME = re.compile(r"^!|[\s,]|^$")
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


class BadName(ValueError):
    """A name that cannot stand; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Spelt:
    """A name as it is stored, and what was changed to get there, each a sentence."""

    value: str
    notes: tuple[str, ...] = ()


def domain(typed: str, *, subdomains: bool = False) -> Spelt:
    """A domain; with `subdomains` also `.example.org`. Raises `BadName`."""
    spelt = _spell("domain", typed)
    text = spelt.value
    if problem := _domain_problem(text.removeprefix(".") if subdomains else text):
        raise BadName(f'"{_shown(typed)}" {problem}')
    return Spelt(text, (*spelt.notes, *_idn_notes(text)))


def address(typed: str, *, catch_all: bool = True) -> Spelt:
    """An address in external form, or `@domain` for all others there. Raises `BadName`."""
    spelt = _spell("address", typed)
    text = spelt.value
    local, at, name = text.rpartition("@")
    if not at:
        raise BadName(f'"{_shown(typed)}" has no domain')
    if len(text.encode()) > LONGEST_ADDRESS:
        raise BadName(f'"{_shown(typed)}" is longer than {LONGEST_ADDRESS} bytes')
    if problem := _domain_problem(name):
        raise BadName(f'"{_shown(typed)}": its domain {problem}')
    if not local and not catch_all:
        raise BadName(f'"{_shown(typed)}" is a whole domain, here one address is wanted')
    external = quote_local_part(unquote(local)) if local else ""
    if external != local:
        raise BadName(f'"{_shown(typed)}" is not as Postfix writes it, which is {external}@{name}')
    return Spelt(text, spelt.notes)


def username(typed: str) -> Spelt:
    """The name of an account, which is its login. Raises `BadName`."""
    spelt = _spell("username", typed)
    if _USERNAME.search(spelt.value):
        raise BadName(
            f'"{_shown(typed)}" cannot be a username: it is empty, begins with "!", or has a blank or comma, '
            "where Postfix splits lists of owners"
        )
    return spelt


def mailbox(typed: str) -> str:
    """A path below the base, as it is stored: without slashes in front and behind. Raises `BadName`."""
    path = re.sub("/+", "/", typed).strip("/")
    problem = mailbox_problem(path)
    if not problem and (_CONTROL.search(path) or any(name in (".", "") for name in path.split("/"))):
        problem = 'its mailbox has control characters or "."'
    if not problem and any(name != name.strip() for name in path.split("/")):
        problem = "a folder of its mailbox begins or ends with a blank"
    if problem:
        raise BadName(f'"{_shown(typed)}": {problem}')
    return path


def mailbox_of(email: str) -> str:
    """Where the mail of an account with this (checked) email goes: domain/local part. Raises `BadName`."""
    local, _, name = unquote(email).rpartition("@")
    if not local or "/" in local or local.startswith("."):
        raise BadName(f"no folder can be called as {email}: say --mailbox {name}/...")
    return mailbox(f"{name}/{local}")


def transport(typed: str) -> str:
    """NAME:NEXTHOP as in transport(5); the nexthop may be left out. Raises `BadName`."""
    if _CONTROL.search(typed) or " " in typed.partition(":")[0] or not re.match(r"[\w.-]+:", typed, re.ASCII):
        raise BadName(
            f'"{_shown(typed)}" is no transport: it is NAME:NEXTHOP of master.cf, such as virtual: or '
            "smtp:[mx.example.org]"
        )
    return typed


def domain_of(stored: str) -> str:
    """The domain of an address."""
    return stored.rpartition("@")[2]


def _spell(what: str, typed: str) -> Spelt:
    if any("\ud800" <= char <= "\udfff" for char in typed):
        raise BadName(f"the {what} is not UTF-8")
    if _CONTROL.search(typed):
        raise BadName(f'the {what} "{_shown(typed)}" has a control character')
    composed = unicodedata.normalize("NFC", typed)
    folded = unicodedata.normalize("NFC", fold(composed))
    if fold(folded) != folded:
        raise BadName(f'the {what} "{_shown(typed)}" has letters that cannot be folded and composed at once')
    notes = []
    if composed != typed:
        notes.append(f"{what} {_shown(typed)}: its accents are composed (NFC), as mail has them")
    if folded != composed:
        notes.append(f"{what} {composed}: stored as {folded}, since Postfix asks in lower case")
    return Spelt(folded, tuple(notes))


def _domain_problem(text: str) -> str:
    if len(text.encode()) > LONGEST_DOMAIN:
        return f"is longer than {LONGEST_DOMAIN} bytes"
    if _NO_DOMAIN.search(text) or text.startswith("."):
        return "is no domain"
    if text.isascii() and not _HOST.fullmatch(text):
        return "is no domain: letters, digits and - in each part"
    return ""


def _idn_notes(text: str) -> tuple[str, ...]:
    if text.isascii():
        return ()
    try:
        ascii_form = text.encode("idna").decode()
    except UnicodeError:
        return ()
    return (f"most mail for {text} is addressed to {ascii_form}: add that too, as --alias-of {text}",)


def _shown(typed: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in typed)[:300]
