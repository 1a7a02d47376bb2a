"""A list of domains of main.cf, asked as Postfix asks it: names, files of names, and tables by postmap(1).

The first word that matches decides, and `!` before it means "not" (util/match_list.c). Lists of domains take
subdomains too: `example.com` stands for them if parent_domain_matches_subdomains says so, `.example.com` if
not (util/match_ops.c); other lists (virtual_mailbox_domains, mydestination) take the very name alone. Only
tables that are files or texts are asked: a question to another database is another check's.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mailmaps.maps.cf_text import logical_lines
from mailmaps.maps.pgsql_cf import read_text

# Seconds for one postmap(1), which reads all domains; its file may be locked by who writes it.
POSTMAP_LIMIT = 60.0

# Tables that need nobody who answers.
_ASKED = frozenset("static inline regexp pcre texthash hash btree dbm lmdb cdb sdbm".split())

_WORD = re.compile(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|[^\s,{}])+")


class NotAsked(Exception):
    """A word of the list that cannot be asked; the text says which and why."""


class MatchList:
    """One list; `subdomains`: whether a name stands for its subdomains, None for lists of whole names."""

    def __init__(self, value: str, config_dir: Path, *, subdomains: bool | None = None) -> None:
        self._value = value
        self._config_dir = config_dir
        self._subdomains = subdomains

    @property
    def is_asked_whole(self) -> bool:
        """Whether none of its words is a table that somebody else answers. Raises as `matching` does."""
        return all(
            ":" not in word or word.startswith("[") or word.removeprefix("proxy:").partition(":")[0] in _ASKED
            for word, _ in self._words(self._value, True, ())
        )

    def matching(self, domains: Iterable[str]) -> dict[str, str]:
        """Those of the domains (folded) that are in the list, each with the word that matched.

        Raises `NotAsked`, `OSError` and `UnicodeDecodeError` of a file that is named.
        """
        left = {domain: self._candidates(domain) for domain in domains}
        found: dict[str, str] = {}
        for word, is_in in self._words(self._value, True, ()):
            if not left:
                break
            for domain in self._matched(word, left):
                del left[domain]
                if is_in:
                    found[domain] = word
        return found

    def _candidates(self, domain: str) -> list[str]:
        if self._subdomains is None:
            return [domain]
        labels = domain.split(".")
        parents = [".".join(labels[number:]) for number in range(1, len(labels))]
        return [domain, *(parents if self._subdomains else [f".{one}" for one in parents])]

    def _words(self, text: str, is_in: bool, inside: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
        for word in _WORD.findall(text):
            name = word.lstrip("!")
            matches = is_in == ((len(word) - len(name)) % 2 == 0)
            if not name.startswith("/") or name in inside:
                yield name, matches
                continue
            for line in logical_lines(read_text(Path(name))):
                yield from self._words(line.value, matches, (*inside, name))

    def _matched(self, word: str, left: Mapping[str, Sequence[str]]) -> list[str]:
        if ":" not in word or word.startswith("["):
            return [domain for domain, keys in left.items() if word.lower() in keys]
        if word.removeprefix("proxy:").partition(":")[0] not in _ASKED:
            return []
        known = self._known(word, dict.fromkeys(key for keys in left.values() for key in keys))
        return [domain for domain, keys in left.items() if not known.isdisjoint(keys)]

    def _known(self, table: str, keys: Iterable[str]) -> set[str]:
        """Which keys a table has. postmap(1): exit code 1 where it has none."""
        plain = table.removeprefix("proxy:")
        words = ["postmap", "-c", str(self._config_dir), "-q", "-", plain]
        text = "".join(f"{key}\n" for key in keys).encode(errors="surrogateescape")
        try:
            done = subprocess.run(words, input=text, capture_output=True, timeout=POSTMAP_LIMIT, check=False)
        except FileNotFoundError:
            raise NotAsked("postmap is not installed here") from None
        except subprocess.TimeoutExpired:
            raise NotAsked(f"{table}: postmap has waited for {POSTMAP_LIMIT:g} s: it is locked") from None
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode not in (0, 1) or "fatal:" in said:
            raise NotAsked(
                f"{table}: {said.rpartition('fatal: ')[2] or f'postmap ends with {done.returncode}'}"
            )
        lines = done.stdout.decode(errors="surrogateescape").splitlines()
        return {line.partition("\t")[0] for line in lines}
