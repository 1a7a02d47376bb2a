"""What is said to the operator: a line an event, its text constant, what varies as key=value after it."""

from mailmaps.logs.events import Events, events, where

__all__ = ["Events", "events", "where"]
