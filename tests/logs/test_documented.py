"""docs/logs.md names every event that somebody should look at, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "mailmaps"

LEVELS = {"warning": "warning", "error": "error", "exception": "error", "fault": "error"}

# Those of mailmaps.logs itself, which have no call with a text in it.
OUR_OWN = {
    ("ends for a fault", "error"),
    ("an exception was ignored", "error"),
    ("a thread ended for a fault", "error"),
    ("log lines are lost", "warning"),
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each `log.METHOD(...)` of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method)):
                yield method, node


def said(method: str, call: ast.Call) -> tuple[str | None, str]:
    """Text (None: it is not constant) and level."""
    if method == "counted":
        assert isinstance(call.args[0], ast.Attribute)
        level, text = call.args[0].attr.lower(), call.args[1]
    else:
        level, text = LEVELS.get(method, method), call.args[0]
    return (str(text.value) if isinstance(text, ast.Constant) else None), level


def test_every_event_above_info_is_in_the_table() -> None:
    found = set(OUR_OWN)
    for path in sorted(SOURCE.rglob("*.py")):
        for method, call in calls(path):
            text, level = said(method, call)
            if level in ("debug", "info"):
                continue
            assert text is not None, f"{path}:{call.lineno}: the text of an event is constant"
            found.add((text, level))
    documented = set(re.findall(r"^\| `(.+?)` \| (warning|error)(?: \*)? \| .+ \|$", _table(), re.MULTILINE))
    assert sorted(found - documented) == []
    assert sorted(documented - found) == []
    assert len(documented) == _table().count("\n") - 2


def _table() -> str:
    return (ROOT / "docs" / "logs.md").read_text().partition("| text | level |")[2]


def test_everybody_logs_events() -> None:
    """A logger of the standard library would take texts that vary."""
    strangers = [
        str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        if path.parent != SOURCE / "logs" and "logging.getLogger" in path.read_text()
    ]
    assert strangers == []
