"""What Postfix answers with `pgsql:`: postmap(1) for each candidate, and Postfix's walk over them.

`postmap -q KEY` asks a table exactly KEY, once. So every candidate of a search is asked of every source, in
batches (`postmap -q -`, one key a line), and the walk is made here: each candidate over all sources before
the next, the extension put back by the same functions as in the daemon. One error ends a whole batch of
postmap without saying whose it was; then the halves are asked, down to the single key.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from mailmaps.maps import search
from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.maps.search import Question, Rules
from mailmaps.maps.tables import TableKind

BATCH = 500  # keys; a failing batch costs a second for each time it is halved
PATIENCE = 600.0  # seconds for one batch; libpq has no deadline of its own
MOST_FAILURES = 20  # single keys that fail, a second each, before halving is given up
PROBE = "mailmaps-nobody@a.b.c.d.e.f.g.mailmaps.invalid"  # with labels for %1 to %9


class PostmapError(Exception):
    """postmap cannot be run; the text says why."""


class OldSide:
    """One table as Postfix asked it: `sources` in order, each "pgsql:FILE" or "pgsql:NAME"."""

    def __init__(self, config_dir: Path, kind: TableKind, sources: Sequence[str], rules: Rules) -> None:
        self._kind = kind
        self._rules = rules
        self._sources = [Postmap(config_dir, source) for source in sources]

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answer to each key. Raises `PostmapError`."""
        questions = {key: self._kind.walk(key, self._rules) for key in keys}
        candidates = list(dict.fromkeys(text for one in questions.values() for text in one.candidates))
        known = [source.ask(candidates) for source in self._sources]
        return {key: self._walk(question, known) for key, question in questions.items()}

    def _walk(self, question: Question, known: list[dict[str, Answer]]) -> Answer:
        for index, candidate in enumerate(question.candidates):
            for answers in known:
                answer = answers.get(candidate, NOT_FOUND)
                if isinstance(answer, Unavailable):
                    return answer
                if isinstance(answer, Found):
                    return Found(self._result(question, index, answer.value))
        return NOT_FOUND

    def _result(self, question: Question, index: int, value: str) -> str:
        if not self._kind.propagates:
            return value
        return search.put_back(question, index, (value,), self._rules, self._kind.propagates, exactly=True)


class Postmap:
    """One table, asked by `postmap -q`."""

    def __init__(self, config_dir: Path, source: str) -> None:
        self._command = ["postmap", "-c", str(config_dir), "-q"]
        self._source = source
        self._failures = 0
        self._away: bool | None = None

    def ask(self, keys: Sequence[str]) -> dict[str, Answer]:
        """What is known of the keys; those that are not known are left out. Raises `PostmapError`."""
        plain = [key for key in keys if key and not set(key) & set("\t\n\0")]
        found: dict[str, Answer] = {}
        for start in range(0, len(plain), BATCH):
            found |= self._batch(plain[start : start + BATCH])
        for key in keys:
            if "\t" in key and not set(key) & set("\n\0"):
                found |= self._single(key)
        return found

    def _batch(self, keys: Sequence[str]) -> dict[str, Answer]:
        output, error = self._run("-", "".join(f"{key}\n" for key in keys))
        if not error:
            return _pairs(output, keys)
        if len(keys) == 1 or self._failures >= MOST_FAILURES or self._is_away():
            self._failures += 1
            return dict.fromkeys(keys, Unavailable(error))
        half = len(keys) // 2
        return self._batch(keys[:half]) | self._batch(keys[half:])

    def _is_away(self) -> bool:
        """Whether the table fails for a key that nobody has, and so for all of them; asked once."""
        if self._away is None:
            self._away = bool(self._run("-", f"{PROBE}\n")[1])
        return self._away

    def _single(self, key: str) -> dict[str, Answer]:
        output, error = self._run(key, "")
        if error:
            return {key: Unavailable(error)}
        return {key: Found(output.removesuffix("\n"))} if output else {}

    def _run(self, key: str, keys: str) -> tuple[str, str]:
        """What postmap prints, and what it died of."""
        try:
            done = subprocess.run(
                [*self._command, key.encode(errors="surrogateescape"), self._source],
                input=keys.encode(errors="surrogateescape"),
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        except FileNotFoundError:
            raise PostmapError("postmap is not installed here") from None
        except subprocess.TimeoutExpired:
            raise PostmapError(f"postmap gave no answer within {PATIENCE:g} s for {self._source}") from None
        return done.stdout.decode(errors="surrogateescape"), _fatal(done.stderr.decode(errors="replace"))


def _fatal(stderr: str) -> str:
    """Why postmap died, empty when it did not; a warning before it says more than its last words."""
    lines = [line.partition(": ")[2] for line in stderr.splitlines()]
    if not any(line.startswith(("fatal:", "panic:", "error:")) for line in lines):
        return ""
    warnings = [line for line in lines if line.startswith("warning:") and "config_dir" not in line]
    return (warnings or lines)[-1].partition(": ")[2]


def _pairs(output: str, keys: Sequence[str]) -> dict[str, Answer]:
    """The lines `key<TAB>value`, which come in the order of the keys; a value may go over several lines."""
    position = {key: number for number, key in enumerate(keys)}
    found: dict[str, str] = {}
    last = ""
    for line in output.removesuffix("\n").split("\n") if output else []:
        key, tab, value = line.partition("\t")
        if tab and position.get(key, -1) > position.get(last, -1):
            found[key] = value
            last = key
        else:
            found[last] += f"\n{line}"
    return {key: Found(value) for key, value in found.items()}
