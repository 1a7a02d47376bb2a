"""mailmaps.toml: from the file to typed settings, and errors that name the line."""

from mailmaps.config.load import SettingsError, load, parse
from mailmaps.config.settings import Settings

__all__ = ["Settings", "SettingsError", "load", "parse"]
