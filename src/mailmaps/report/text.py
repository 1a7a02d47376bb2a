"""The report as plain text: what stdout, and the text part of the mail, have.

No control character reaches it: cells are printable before they come here.
"""

from __future__ import annotations

import textwrap

from mailmaps.report.document import Document, Section, Table

WIDTH = 76


def as_text(document: Document) -> str:
    """The text, lines of at most `WIDTH` characters except where a cell is longer."""
    lines = [document.title, "=" * min(len(document.title), WIDTH), ""]
    label = max(len(figure.label) for figure in document.figures)
    number = max(len(figure.value) for figure in document.figures)
    lines += [
        f"  {figure.label:<{label}}  {figure.value:>{number}}  {figure.detail}".rstrip()
        for figure in document.figures
    ]
    lines.append("")
    for note in document.notes:
        lines += [*_wrapped(f"Note: {note}"), ""]
    for section in document.sections:
        lines += _section(section)
    if document.nothing:
        lines += [*_wrapped(f"Nothing to tell of: {', '.join(document.nothing)}."), ""]
    lines += _wrapped(f"From {document.source}.")
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = [section.title, "-" * len(section.title)]
    if section.lead:
        lines += _wrapped(section.lead)
    for table in section.tables:
        lines += ["", *_table(table)]
    return [*lines, ""]


def _table(table: Table) -> list[str]:
    *numbers, name = table.columns
    widths = [
        max([len(title), *(len(row[column]) for row in table.rows)]) for column, title in enumerate(numbers)
    ]
    lines = [_row((*numbers, name), widths)]
    lines += [_row(row, widths) for row in table.rows]
    if table.rest:
        lines.append(" " * (sum(widths) + 2 * len(widths) + 2) + table.rest)
    return lines


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    *numbers, text = cells
    begin = "  ".join(f"{cell:>{width}}" for cell, width in zip(numbers, widths, strict=True))
    first, *others = textwrap.wrap(text, max(30, WIDTH - len(begin) - 4), break_on_hyphens=False) or [""]
    indent = " " * (len(begin) + 6)
    return "\n".join([f"  {begin}  {first}", *(indent + other for other in others)])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
