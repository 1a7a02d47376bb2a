"""Every kind of finding has its row in docs/check.md, and no row is of a kind that is gone."""

from __future__ import annotations

import re
from pathlib import Path

from tests.doctor.finding_kinds import GAP, kinds

DOCS = Path(__file__).parent.parent.parent / "docs/check.md"


def rows() -> set[str]:
    """The first cell of each row that has three."""
    lines = DOCS.read_text().splitlines()
    cells = [
        line.strip("|").split(" | ") for line in lines if line.startswith("| ") and not line.startswith("|-")
    ]
    return {_plain(row[0]) for row in cells if len(row) == 3} - {"says"}


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", "").replace("\\|", "|")).strip()


def test_every_kind_is_explained() -> None:
    told = rows()
    assert [kind for kind in kinds() if _plain(kind.text) not in told] == []


def test_no_row_is_of_a_kind_that_is_gone() -> None:
    assert rows() - {_plain(kind.text) for kind in kinds()} == set()


def test_the_source_is_read() -> None:
    found = {kind.text: kind.level for kind in kinds()}
    assert found["passwords are taken without TLS"] == "ERROR"
    assert found[f"{GAP} is a circle"] == "ERROR"
    assert len(found) > 80
