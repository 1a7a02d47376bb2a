"""Changes values in TOML text and leaves everything else, comments included, as it is."""

from __future__ import annotations

from collections.abc import Mapping

from mailmaps.config.locate import assignments


def set_values(text: str, section: str, values: Mapping[str, str]) -> str:
    """Set `values` (TOML source by key) in `[section]`; missing keys and a missing section are added."""
    lines = text.splitlines()
    spans = {path[-1]: span for path, span in assignments(text).items() if path[:-1] == (section,)}
    missing = [f"{key} = {value}" for key, value in values.items() if key not in spans]
    for key in sorted(values.keys() & spans.keys(), key=lambda key: spans[key], reverse=True):
        first, last = spans[key]
        lines[first - 1 : last] = [f"{key} = {values[key]}"]
    if missing:
        header = f"[{section}]"
        if header not in (line.strip() for line in lines):
            lines += ["", header]
        at = next(number for number, line in enumerate(lines) if line.strip() == header)
        lines[at + 1 : at + 1] = missing
    return "\n".join(lines) + "\n"
