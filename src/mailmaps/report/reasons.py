"""What a reason has in common with others: addresses, hosts, numbers and ids taken out of it.

    host mx.example.org[192.0.2.1] said: 550 5.1.1 <jan@example.org>: unknown (in reply to RCPT TO command)
    host HOST said: 550 5.1.1 <...>: unknown (in reply to RCPT TO command)

Each pattern is linear: no two repetitions can take the same character.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Characters of a reason that are looked at, and shown.
LONGEST_READ = 600
LONGEST_SHOWN = 160

# What differs in nearly every line; what remains is then often the same, and remembered.
_ANGLES = re.compile(r"<[^<>]{0,320}>")
_URLS = re.compile(r"https?://[^\s<>]+")
_BRACKETS = re.compile(r"(?<![A-Za-z0-9._-])[A-Za-z0-9._-]{0,255}\[[0-9A-Fa-f.:]{2,45}\](?::[0-9]{1,5})?")
_WORDS = re.compile(
    r"(?P<angle><\.\.\.>)"
    r'|(?P<quoted>"[^"]{0,320}")'
    r"|(?P<by>(?:blocked using|listed (?:by|in|at)) [A-Za-z0-9.-]{1,255})"
    r"|(?P<service>\[private/[^\]\s]{1,100}\])"
    r"|(?P<word>[^\s<>\"\[\](),;]+)"
)
_KEPT_CODE = re.compile(r"[245][0-9]{2}|[245]\.[0-9]{1,3}\.[0-9]{1,3}|[0-9]{1,2}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\.?(?::[0-9]{1,5})?:?", re.ASCII)
_FILE = re.compile(r"/[^\s]*")


def printable(text: str) -> str:
    """The text with every character that is none for people as `?`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() and not "\ud800" <= char <= "\udfff" else "?" for char in text)


def normalised(reason: str) -> str:
    """The reason without what differs from mail to mail, printable, at most `LONGEST_SHOWN` characters."""
    text = _ANGLES.sub("<...>", printable(reason[:LONGEST_READ]))
    return _shortened(_BRACKETS.sub("HOST", _URLS.sub("URL", text)))


@lru_cache(maxsize=4096)
def _shortened(reason: str) -> str:
    text = " ".join(_WORDS.sub(_replaced, reason).split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _replaced(match: re.Match[str]) -> str:
    kind, text = match.lastgroup, match[0]
    if kind == "quoted":
        return '"..."'
    return _word(text) if kind == "word" else text


def _word(word: str) -> str:
    name, equals, value = word.partition("=")
    if equals and value and not name.startswith("/"):
        return f"{name}={_word(value)}" if len(name) < 40 else "ID"
    bare = word.rstrip(":.")
    if _KEPT_CODE.fullmatch(bare):
        return word
    if "@" in word:
        return "ADDRESS" + word[len(bare) :]
    if _FILE.match(word) and word.count("/") > 1:
        return "FILE" + word[len(bare) :]
    if _HOST.fullmatch(word):
        return "HOST" + word[len(bare) :]
    if any(char.isdigit() for char in bare) and (len(bare) > 8 or bare.isdigit()):
        return "ID" + word[len(bare) :]
    return word
