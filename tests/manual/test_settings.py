"""mailmaps.toml(5) has every setting with its default and what it may be, and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from tests.manual.pages import sections, tags

from mailmaps.config import Settings
from mailmaps.config.section import Section
from mailmaps.manual import settings
from mailmaps.manual.described import Described, describe, shipped

PAGE = "mailmaps.toml.5"
SCHEMA = Settings.model_json_schema()


def of_schema() -> dict[tuple[str, str], dict[str, Any]]:
    """Each setting by section and name, as pydantic's JSON schema describes it: a second opinion."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, one in SCHEMA["properties"].items():
        section = one
        header = f"[{name}]"
        if "additionalProperties" in one:
            section, header = one["additionalProperties"], f"[{name}.NAME]"
        if reference := section.get("$ref"):
            section = SCHEMA["$defs"][reference.rpartition("/")[2]]
            found |= {(header, inner): what for inner, what in section["properties"].items()}
        elif "patternProperties" in one:
            section = SCHEMA["$defs"][
                next(iter(one["patternProperties"].values()))["$ref"].rpartition("/")[2]
            ]
            found |= {(f"[{name}.NAME]", inner): what for inner, what in section["properties"].items()}
        else:
            found["Before the first section", name] = one
    return found


def of_page() -> dict[tuple[str, str], str]:
    """Each setting by section and name, with the rest of its tag."""
    found: dict[tuple[str, str], str] = {}
    for header, listed in tags(PAGE).items():
        for tag in listed:
            if match := re.fullmatch(r"(\w+)((?: = .+)? \(.+\).*)", tag):
                found[header, match[1]] = match[2]
    return found


def test_the_settings_are_those_of_the_program() -> None:
    assert of_page().keys() == of_schema().keys()


@pytest.mark.parametrize("key", of_schema(), ids=" ".join)
def test_each_has_its_default_and_what_it_may_be(key: tuple[str, str]) -> None:
    header, name = key
    tag, what = of_page()[key], of_schema()[key]
    if (default := what.get("default")) is None and "default" in what:
        assert tag.endswith(", not set")
    elif given := re.match(r" = (.+) \(", tag):
        assert tomllib.loads(f"value ={given[1]}") == {"value": default}
    else:
        assert f"Default of {name}: {json.dumps(default)}" in " ".join(sections(PAGE)[header].split())
    for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if bound in what:
            assert re.search(rf"(?<!\d){what[bound]:.15g}(?!\d)", tag.rpartition("(")[2])
    for value in (what.get("items") or what).get("enum", []):
        assert json.dumps(value) in tag.rpartition("(")[2]


def test_what_the_shipped_file_says_of_a_setting_is_said() -> None:
    """All that stands in comments above settings and sections, but the head of the file."""
    said = {header: " ".join(text.split()) for header, text in sections(PAGE).items()}
    for name, section in describe(shipped()).items():
        header = f"[{name}]" if name else "Before the first section"
        header = header if header in said else "[tables.NAME]"
        comments = [group.comment for group in section.groups] + ([section.comment] if name else [])
        for line in (line for comment in comments for line in comment):
            text = re.sub(r"^[a-z_]+: |:$", "", line).replace("`", "").strip()
            assert " ".join(text.split())[1:] in said[header], line


def test_no_comment_of_the_shipped_file_is_lost() -> None:
    text = shipped()
    sorted_in = [
        line
        for section in describe(text).values()
        for comment in [section.comment, *(group.comment for group in section.groups)]
        for line in comment
        if line
    ]
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    assigned = {name for _, name in of_page()}
    wanted = [
        line
        for line in comments
        if (line and line.partition(" = ")[0] not in assigned) or line.startswith(" ")
    ]
    lost = [line for line in wanted if line not in [one.strip() for one in sorted_in]]
    assert lost == []


def test_a_file_is_read_by_its_rule() -> None:
    text = (
        "# Of the file.\n\n# Of a\n# and b.\na = 1\nb = 2\n\nc = 3\n# Of s.\n\n# Still of s.\n[s]\n# d = 4\n"
    )
    found = describe(text)
    top, section = found[""], found["s"]
    assert top.comment == ["Of the file."]
    assert [(group.comment, group.names) for group in top.groups] == [
        (["Of a", "and b."], ["a", "b"]),
        ([], ["c"]),
    ]
    assert section.comment == ["Of s.", "", "Still of s."]
    assert [(group.comment, group.names) for group in section.groups] == [([], ["d"])]


def test_a_setting_without_a_comment_is_there_all_the_same() -> None:
    class Later(Section):
        """[later]"""

        new: int = 7

    assert "\\fBnew\\fR = 7 (number)" in settings._section("later", Later, Described("later"))
