"""The documentation keeps up: every setting is in the shipped mailmaps.toml, with its default."""

from __future__ import annotations

from pathlib import Path

from mailmaps.config import Settings, parse

SHIPPED = Path(__file__).parent.parent / "src" / "mailmaps" / "mailmaps.toml"


def names(settings: object, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name in type(settings).model_fields:  # type: ignore[attr-defined]
        value = getattr(settings, name)
        if hasattr(value, "model_fields_set"):
            found |= {f"{name}.{inner}" for inner in names(value)}
        else:
            found.add(name)
    return {prefix + name for name in found}


def test_the_shipped_settings_equal_the_defaults() -> None:
    assert parse(SHIPPED.read_text()) == parse("") == Settings()


def test_every_setting_is_written_down() -> None:
    text = SHIPPED.read_text()
    for name in names(Settings()):
        last = name.rpartition(".")[2]
        assert f"\n{last} = " in text or f"\n# {last} = " in text or f"\n[{last}." in text, name
