"""The kinds of findings that the source can make: each text, with `…` for what is filled in.

Read with `ast`: every `Finding(LEVEL, SUBJECT, TEXT, REMEDY)` and `Counted.add(LEVEL, SUBJECT, KIND, TEXT,
REMEDY)` whose level is not OK. A name stands for the last value that its function gives it before.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "src/mailmaps"

# Where `mailmaps check` comes by.
MODULES = sorted(
    path
    for place in ("cf_checks.py", "cli/*check*.py", "database/*.py", "doctor/*.py")
    for path in SOURCE.glob(place)
)

GAP = "…"


@dataclass(frozen=True)
class Kind:
    """One kind: where it is made, how bad it is, and what it says."""

    module: str
    level: str
    text: str
    remedy: str


def kinds() -> list[Kind]:
    """All of them, in the order of the source; a text that is wholly filled in (an error's own) is none."""
    found: dict[tuple[str, str], Kind] = {}
    for path in MODULES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for kind in _kinds_of(function, str(path.relative_to(SOURCE))):
                    found.setdefault((kind.module, kind.text), kind)
    return list(found.values())


def _kinds_of(function: ast.AST, module: str) -> Iterator[Kind]:
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.AugAssign)]
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        level, text, remedy = _arguments(node)
        if level is None or text is None:
            continue
        word = ast.unparse(level).replace("Level.", "")
        shown = _text(text, node.lineno, assigned)
        if word != "OK" and re.search(r"\w{3,}", shown):
            cure = "" if remedy is None else _text(remedy, node.lineno, assigned)
            yield Kind(module, word, shown, cure)


def _arguments(call: ast.Call) -> tuple[ast.expr | None, ast.expr | None, ast.expr | None]:
    name = ast.unparse(call.func)
    if name == "Finding" and len(call.args) > 2:
        return call.args[0], call.args[2], [*call.args, None][3]
    if name.endswith("ounted.add") and len(call.args) > 3:
        return call.args[0], call.args[3], [*call.args, None][4]
    return None, None, None


def _text(value: ast.expr, line: int, assigned: list[ast.Assign | ast.AugAssign]) -> str:
    return " ".join(re.sub(rf"({GAP})+", GAP, _parts(value, line, assigned)).split())


def _parts(value: ast.expr, line: int, assigned: list[ast.Assign | ast.AugAssign]) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        values = [one if isinstance(one, ast.Constant) else ast.Constant(GAP) for one in value.values]
        return "".join(_parts(one, line, assigned) for one in values)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _parts(value.left, line, assigned) + _parts(value.right, line, assigned)
    if isinstance(value, ast.IfExp):
        return _parts(value.body, line, assigned) or _parts(value.orelse, line, assigned)
    if isinstance(value, ast.Name):
        before = [one for one in assigned if one.lineno <= line and _is_for(one, value.id)]
        if not before:
            return GAP
        last = max(before, key=lambda one: one.lineno)
        more = _parts(value, last.lineno - 1, assigned) if isinstance(last, ast.AugAssign) else ""
        return more + _parts(last.value, last.lineno - 1, assigned)
    return GAP


def _is_for(one: ast.Assign | ast.AugAssign, name: str) -> bool:
    targets = one.targets if isinstance(one, ast.Assign) else [one.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
