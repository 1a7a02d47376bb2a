"""The report as HTML for a mail: tables and colours, nothing from elsewhere, readable in the dark.

Every text goes through `html.escape`: reasons and addresses come from strangers. The sheet is in
the page; a program that drops it still shows tables with their numbers to the right. The picture is the
part of the same mail that `cid:` names.
"""

from __future__ import annotations

from html import escape

from mailmaps.report.document import Document, Figure, Section, Table

_STYLE = """
:root{color-scheme:light dark;supported-color-schemes:light dark}
body{margin:0;background:#f4f6f8;color:#1d2329;font:14px/1.45 system-ui,'Segoe UI',Roboto,sans-serif}
.page{max-width:860px;margin:0 auto;padding:20px 16px}
h1{font-size:20px;margin:0 0 12px}
h2{font-size:16px;margin:22px 0 6px;padding-left:8px;border-left:4px solid #3b6ea8}
h2.bad{border-color:#c23b3f}
p{margin:4px 0 8px}
img{max-width:100%;height:auto;border:0;border-radius:6px;margin:10px 0}
table{border-collapse:collapse;width:100%;margin:0 0 12px}
td,th{padding:3px 8px;border-bottom:1px solid #dde3e9;vertical-align:top;text-align:right;
white-space:nowrap;min-width:56px}
td:last-child,th:last-child{text-align:left;white-space:normal;word-break:break-word;width:99%}
th,.soft{color:#5b6672;font-size:12px}
.card{display:inline-block;vertical-align:top;min-width:80px;margin:0 4px 8px 0;padding:8px 10px;
border:1px solid #dde3e9;border-radius:6px;background:#fff}
.card b{display:block;font-size:20px}
.card.bad{border-color:#e5a3a5;background:#fdeeee}
.note{padding:6px 10px;background:#fff6db;border-left:4px solid #d9a514}
@media (prefers-color-scheme:dark){
body{background:#15181c;color:#e4e7eb}
.card{background:#20252b;border-color:#39414a}
.card.bad{background:#3a1f21;border-color:#8c3b3f}
th,.soft{color:#a3adb8}
td,th{border-color:#39414a}
.note{background:#33290f;border-color:#8a6d1d}
}
"""


def as_html(document: Document, picture: str = "") -> str:
    """The page; `picture` is the Content-ID of the picture without <>, empty for none."""
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head>",
        f'<body><div class="page"><h1>{escape(document.title)}</h1>',
        _figures(document.figures),
        *(f'<p class="note">{escape(note)}</p>' for note in document.notes),
    ]
    if picture:
        shown = escape(picture_text(document))
        parts.append(f'<p><img src="cid:{escape(picture)}" alt="{shown}" width="720"></p>')
    parts += map(_section, document.sections)
    if document.nothing:
        parts.append(f'<p class="soft">Nothing to tell of: {escape(", ".join(document.nothing))}.</p>')
    parts.append(f'<p class="soft">From {escape(document.source)}.</p>')
    return "\n".join([*parts, "</div></body></html>\n"])


def picture_text(document: Document) -> str:
    """What the picture shows, in words."""
    sums = [sum(counts) for counts in zip(*(slot[1:] for slot in document.slots), strict=True)]
    each = "hour" if document.hourly else "day"
    return (
        f"Bars for each {each}: {sums[0]:,} delivered, {sums[1]:,} deferred or bounced, {sums[2]:,} refused"
    )


def _figures(figures: list[Figure]) -> str:
    cards = (
        f'<div class="card{" bad" if figure.bad else ""}"><span class="soft">{escape(figure.label)}</span>'
        f'<b>{escape(figure.value)}</b><span class="soft">{escape(figure.detail) or "&nbsp;"}</span></div>'
        for figure in figures
    )
    return f"<div>{' '.join(cards)}</div>"


def _section(section: Section) -> str:
    kind = ' class="bad"' if section.problem else ""
    lead = f"<p>{escape(section.lead)}</p>" if section.lead else ""
    return f"<h2{kind}>{escape(section.title)}</h2>{lead}" + "".join(map(_table, section.tables))


def _table(table: Table) -> str:
    """Numbers to the right by an attribute, for programs that drop the sheet."""
    *numbers, name = table.columns
    head = "".join(f'<th align="right">{escape(title)}</th>' for title in numbers)
    rows = [f'<tr>{head}<th align="left">{escape(name)}</th></tr>', *map(_row, table.rows)]
    if table.rest:
        rows.append(f'<tr>{"<td></td>" * len(numbers)}<td class="soft">{escape(table.rest)}</td></tr>')
    return "\n".join(["<table>", *rows, "</table>"])


def _row(cells: tuple[str, ...]) -> str:
    *numbers, text = cells
    first = "".join(f"<td align=right>{escape(cell)}</td>" for cell in numbers)
    return f"<tr>{first}<td>{escape(text)}</td></tr>"
