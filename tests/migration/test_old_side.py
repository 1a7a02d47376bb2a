"""The old maps, asked by the real postmap: any FIXED table will do in the place of `pgsql:`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.migration.conftest import MakePostfix

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable
from mailmaps.maps.search import Rules
from mailmaps.maps.tables import KINDS
from mailmaps.migration.old_side import OldSide, Postmap

pytestmark = pytest.mark.postfix

RULES = Rules(recipient_delimiter="+")


@pytest.fixture
def folder(make_postfix: MakePostfix) -> Path:
    return make_postfix("")


def table(folder: Path, name: str, *lines: str) -> str:
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    os.utime(folder / name, (0, 0))  # Postfix waits a second for a file that was just written
    return f"texthash:{folder}/{name}"


def test_the_walk_over_several_tables(folder: Path) -> None:
    first = table(folder, "first", "@ex.test catch@all", "c@ex.test one@x, two@x")
    second = table(folder, "second", "a@ex.test new@x", "a+b@ex.test exact@x", "@other.test @third.test")
    old = OldSide(folder, KINDS["virtual_alias_maps"], [first, second], RULES)
    expected: dict[str, Answer] = {
        "A+Ext@ex.test": Found("new+Ext@x"),
        "a+b@EX.test": Found("exact@x"),
        "c+x@ex.test": Found("one+x@x,two+x@x"),
        "c@ex.test": Found("one@x, two@x"),
        "z@ex.test": Found("catch@all"),
        "u+v@other.test": Found("u+v@third.test"),
        "nobody@nowhere.test": NOT_FOUND,
    }
    assert old.answers(expected) == expected


def test_other_tables_give_the_value_as_it_is(folder: Path) -> None:
    source = table(folder, "first", "a@ex.test  new@x", "ex.test smtp:[h]", ".test error:no")
    old = OldSide(folder, KINDS["transport_maps"], [source], RULES)
    answers = old.answers(["a+b@ex.test", "b@ex.test", "b@sub.ex.test", "*"])
    assert list(answers.values()) == [Found("new@x"), Found("smtp:[h]"), Found("error:no"), NOT_FOUND]


def test_awkward_keys(folder: Path) -> None:
    (folder / "re").write_text("/^/ <$0>\n".replace("$0", "x") + "")
    postmap = Postmap(folder, f"regexp:{folder}/re")
    keys = ["-", " blank ", "#hash", "a\tb", '"q\t"@x', "\udcff", "%s", "é", "", "a\nb", "a\0b"]
    assert postmap.ask(keys) == {
        key: Found("<x>") for key in ["-", " blank ", "#hash", "%s", "é", "a\tb", '"q\t"@x']
    }, "what is no UTF-8 is not found, as in Postfix; the last three cannot be keys"


def test_one_key_that_fails_does_not_take_the_others_along(folder: Path) -> None:
    (folder / "good").write_text("/./ yes\n")
    # fail: fails for every key; the pipe asks it for what the first part maps to.
    (folder / "first").write_text("/^bad/ bad\n")
    source = f"unionmap:{{regexp:{folder}/good,pipemap:{{regexp:{folder}/first,fail:it}}}}"
    keys = ["a", "b", "bad", "c", "d"]
    answers = Postmap(folder, source).ask(keys)
    assert {key for key, answer in answers.items() if isinstance(answer, Unavailable)} == {"bad"}
    assert answers["d"] == Found("yes")


def test_a_table_that_is_away_is_not_asked_key_by_key(folder: Path) -> None:
    start = time.monotonic()
    answers = Postmap(folder, "fail:it").ask([f"key{number}" for number in range(100)])
    assert len(answers) == 100
    assert all(isinstance(answer, Unavailable) for answer in answers.values())
    assert time.monotonic() - start < 10


def test_a_source_that_cannot_say_ends_the_search(folder: Path) -> None:
    good = table(folder, "first", "a@ex.test x")
    kind = KINDS["relay_recipient_maps"]
    assert OldSide(folder, kind, [good, "fail:it"], RULES).answers(["a@ex.test"]) == {"a@ex.test": Found("x")}
    answer = OldSide(folder, kind, ["fail:it", good], RULES).answers(["a@ex.test"])["a@ex.test"]
    assert isinstance(answer, Unavailable)
