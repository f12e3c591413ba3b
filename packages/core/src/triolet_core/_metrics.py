"""Statistics of every part as Prometheus families, made when they are asked for.

Hot paths count in plain integers; the parts register a callable that returns them. The registry belongs to one
server, so that two servers in a process do not mix.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

Source = Callable[[], Mapping[str, int | float]]

_SCOPE = {"otel_scope_name": "metrics", "otel_scope_version": ""}
"""Labels that every series of the reference carries (http-api.md, section 8.3)."""


class Metrics:
    """The sources of one server. A name that ends in `_total` is a counter, any other a gauge."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._compatible: dict[str, Source] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Sources(self))
        ProcessCollector(registry=self._registry)

    def add_source(self, part: str, source: Source) -> None:
        """Show what `source` returns as `triolet_<part>_<name>`; a second source of that name takes its place."""
        self._sources[part] = source

    def add_compatible(self, part: str, source: Source) -> None:
        """Show what `source` returns under the names that the reference's dashboards use."""
        self._compatible[part] = source

    def values(self) -> dict[str, int | float]:
        """Return everything as `<part>_<name>`."""
        return {f"{part}_{name}": value for part, source in self._sources.items() for name, value in source().items()}

    def compatible_values(self) -> dict[str, int | float]:
        """Return everything that is shown under the reference's names."""
        return {name: value for source in self._compatible.values() for name, value in source().items()}

    def render(self) -> bytes:
        """Return the Prometheus text form."""
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        """Yield a family per value."""
        for part, source in self._sources.items():
            for name, value in source().items():
                yield _family(f"triolet_{part}_{name}", value, {})
        for source in self._compatible.values():
            for name, value in source().items():
                yield _family(name, value, _SCOPE)


class _Sources(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


def _family(name: str, value: float, labels: Mapping[str, str]) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    if name.endswith("_total"):
        family = CounterMetricFamily(name.removesuffix("_total"), name.replace("_", " "), labels=list(labels))
    else:
        family = GaugeMetricFamily(name, name.replace("_", " "), labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
