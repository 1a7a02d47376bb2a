"""The daemon's state as a page for Prometheus, in whichever of its text formats the client can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mailmaps.metrics.families import FAMILIES, State


class _Families(Collector):
    """Reads plain integers when it is asked; nothing is counted here."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        for family in FAMILIES:
            yield family.metric(state)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would else ask for a state before there is one."""
        return ()


class Exposition:
    """`state` gives what `mailmaps status --json` shows. The process itself (memory, processor time, open
    files) is there too, under prometheus_client's own names (process_*, python_*).
    """

    def __init__(self, state: Callable[[], State]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Families(state))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[str, bytes]:
        """Content-Type and body; `accept` is the client's header, empty for none."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # of "version=abc"
            encode, content_type = choose_encoder("")
        return content_type, encode(self._registry)
